//! `serve`: traces all the time, keeps the last minutes, answers HTTP and clients.

mod arguments;

use std::{
    io::Write,
    path::Path,
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use latency_common::stage::Stage;
use sd_notify::NotifyState;
use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
};

pub use self::arguments::{Arguments, Options};
use crate::{
    cli::{Console, stdout::Output},
    host::cpu::cpus,
    kernel::{
        confine::{self, Task},
        privileges,
        probes::bpf_stats::BpfStats,
        single_instance::SingleInstance,
    },
    measure::{
        self, Measurement,
        pacing::{Ends, Stop},
    },
    model::{exit::Exit, failure::Failure, note::Note},
    serve::{
        config::{Config, Listen},
        control, dump, http, push,
        request::{BY_SIGNAL, Request},
        ring::Ring,
        shared::{Shared, lock},
        sink::DaemonSink,
    },
};

/// After which time a tracer is replaced that has lost a stage: at first, and at most.
const LEAST_PATIENCE: Duration = Duration::from_secs(5 * 60);
const MOST_PATIENCE: Duration = Duration::from_secs(60 * 60);

/// How often it is tried to trace again after a client has.
const CLAIM_AGAIN: Duration = Duration::from_secs(1);

/// How often systemd is told that all is well, if it does not want it more often.
const WATCHDOG: Duration = Duration::from_secs(5);

/// Runs the command.
///
/// # Errors
///
/// Errors in the configuration, the privileges, the kernel, the listeners or the state directory are
/// found before the first program is attached.
pub fn run(args: &Arguments, console: Console) -> Result<Exit> {
    let config = configuration(args)?;
    if args.check {
        let mut text = Vec::new();
        describe(&config, &mut text)?;
        Output::new(console.out, 0).write(&text)?;
        return Ok(Exit::Ok);
    }
    privileges::check()?;
    if config.measure.max_overhead.is_some() {
        BpfStats::switch_on().map_err(|refused| {
            Failure::unsupported(format!("the limit of the overhead cannot be kept: {refused}"))
                .hint("run it as root, with CAP_SYS_ADMIN, or with --max-overhead none")
        })?;
    }
    let instance = SingleInstance::claim()?;
    let ring = Ring::open(&config.state.join("ring"), config.ring)?;
    dump::clean(&config.state);
    measure::block_on(serve(args, config, ring, instance))
}

fn configuration(args: &Arguments) -> Result<Config> {
    let cpus = cpus::online(Path::new("/")).map_or(1, |cpus| cpus.len());
    let file = args.config.as_deref().map(Options::read).transpose()?.unwrap_or_default();
    let config = args.options.clone().over(file).config(cpus);
    if config.gives_up_privileges && config.measure.max_overhead.is_some() {
        let text = "--give-up-privileges: the cost of the programs cannot be measured then";
        return Err(Failure::usage(text).hint("add --max-overhead none").into());
    }
    Ok(config)
}

fn describe(config: &Config, text: &mut Vec<u8>) -> Result<()> {
    let time = humantime::format_duration;
    writeln!(text, "The configuration is fine.")?;
    let stages = config.measure.tracer.stages.iter().map(|stage| stage.name());
    writeln!(text, "stages      {}", stages.collect::<Vec<_>>().join(", "))?;
    let threshold = Duration::from_nanos(config.measure.tracer.threshold_ns);
    writeln!(text, "threshold   {}", time(threshold))?;
    writeln!(text, "interval    {}", time(config.measure.interval))?;
    writeln!(
        text,
        "ring        {} in at most {} bytes",
        time(config.ring.length),
        config.ring.bytes
    )?;
    writeln!(text, "state       {}", config.state.display())?;
    let triggers: Vec<String> = config.triggers.iter().map(ToString::to_string).collect();
    let triggers = if triggers.is_empty() { "none".into() } else { triggers.join(", ") };
    writeln!(text, "triggers    {triggers}")?;
    let (number, bytes) = config.keep;
    writeln!(text, "recordings  {number} in at most {bytes} bytes")?;
    let listen = match &config.listen {
        Listen::Nowhere => "nowhere".to_owned(),
        Listen::Address(address) => format!("http://{address}"),
        Listen::Unix(path) => format!("unix:{}", path.display()),
        Listen::Systemd => "the sockets of systemd".to_owned(),
    };
    writeln!(text, "HTTP        {listen}")?;
    writeln!(text, "socket      {}", config.socket.display())?;
    if let Some(collector) = &config.otlp {
        writeln!(text, "OTLP        {collector}, every {}", time(config.otlp_every))?;
    }
    Ok(())
}

async fn serve(
    args: &Arguments,
    config: Config,
    ring: Ring,
    instance: SingleInstance,
) -> Result<Exit> {
    let control = control::listen(&config.socket)?;
    let listeners = http::listen(&config.listen)?;
    let measure = config.measure.clone();
    let measurement = Measurement::start(&measure)?;
    let (shared, work) = Shared::new(config, measurement.run().clone());
    let mut sink = DaemonSink::new(&shared, ring);
    super::confine(Task::Serve { again: !shared.config().gives_up_privileges });
    let writer = {
        let shared = Arc::clone(&shared);
        thread::Builder::new()
            .name("recordings".into())
            .spawn(move || dump::work(&shared, &work))
            .context("start a thread")?
    };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let answering = answer(control, listeners, &shared, stopped)?;
    let signals = Signals::new(args, &shared)?;
    log::info!("started");
    tell(&[NotifyState::Ready]);
    let balanced = measure_all_the_time(measurement, instance, &shared, &mut sink, signals).await;
    tell(&[NotifyState::Stopping]);
    let socket = shared.config().socket.clone();
    drop(sink);
    let _ = stop.send(());
    let _ = answering.join();
    shared.finish();
    let _ = writer.join();
    let _ = std::fs::remove_file(socket);
    Ok(if balanced? { Exit::Ok } else { Exit::Failed })
}

/// Answers on a thread of its own, until `stopped`.
fn answer(
    control: std::os::unix::net::UnixListener,
    listeners: Vec<http::Listener>,
    shared: &Arc<Shared>,
    stopped: tokio::sync::oneshot::Receiver<()>,
) -> Result<thread::JoinHandle<()>> {
    let shared = Arc::clone(shared);
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .build()
        .context("start the event loop of clients")?;
    let answer = move || {
        // This thread reads what others send.
        if let Err(error) = confine::drop_all() {
            log::warn!("the thread of clients keeps its privileges: {error:#}");
        }
        runtime.block_on(async {
            for listener in listeners {
                tokio::spawn(http::serve(listener, Arc::clone(&shared)));
            }
            tokio::spawn(control::serve(control, Arc::clone(&shared)));
            tokio::spawn(push::serve(Arc::clone(&shared)));
            let _ = stopped.await;
            // Clients get their ends.
            tokio::time::sleep(Duration::from_millis(200)).await;
            push::last(&shared).await;
        });
    };
    thread::Builder::new().name("clients".into()).spawn(answer).context("start a thread")
}

/// Measures until a signal arrives. A tracer that had to disable a stage, or that has no row left
/// for new queues, is replaced after a while. Returns whether all ledgers balanced.
async fn measure_all_the_time(
    mut measurement: Measurement,
    mut instance: SingleInstance,
    shared: &Arc<Shared>,
    sink: &mut DaemonSink,
    mut signals: Signals,
) -> Result<bool> {
    let mut notify = |stage: Option<Stage>, note: &Note| {
        let stage = stage.map(|stage| format!("{}: ", stage.name())).unwrap_or_default();
        log::warn!("{stage}{note}");
    };
    let mut patience = Patience::new();
    let mut balanced = true;
    loop {
        let signal = async {
            tokio::select! {
                stop = signals.received() => stop,
                () = patience.over(shared) => Ok(Stop::Restart),
                () = shared.pause_asked.notified() => Ok(Stop::Restart),
            }
        };
        let early = Some(Arc::clone(&shared.early));
        let ends = Ends { duration: None, signal, early, outlast_stages: true };
        let followed = measurement.follow(ends, &mut [sink], &mut notify).await;
        let is_restart = matches!(followed, Ok(Stop::Restart));
        shared.restarting.store(is_restart, Ordering::Relaxed);
        let finished = measurement.finish(&mut [sink], &mut notify)?.summary.ledger.balanced;
        if !finished {
            log::warn!("{}", Note::LedgerUnbalanced);
        }
        balanced &= finished;
        followed?;
        if !is_restart {
            return Ok(balanced);
        }
        let pause = lock(&shared.pauses).take();
        if let Some(pause) = pause {
            drop(instance);
            log::warn!("a client traces instead");
            let _ = pause.paused.send(());
            let mut resumed = pause.resumed;
            loop {
                tokio::select! {
                    stop = signals.received() => return stop.map(|_| balanced),
                    () = shared.early.notified() => sink.catch_up(),
                    // It has gone, whether it said so or not.
                    _ = &mut resumed => break,
                }
            }
            let Some(claimed) = claim_again(&mut signals).await? else { return Ok(balanced) };
            instance = claimed;
            shared.paused.store(false, Ordering::SeqCst);
        }
        log::warn!("the tracer is started anew, with all stages");
        measurement =
            Measurement::start(&shared.config().measure).inspect_err(|_| sink.catch_up())?;
        shared.restarting.store(false, Ordering::Relaxed);
    }
}

/// A client that traced may take a moment to end. `None`: a signal came first.
async fn claim_again(signals: &mut Signals) -> Result<Option<SingleInstance>> {
    loop {
        match SingleInstance::claim() {
            Ok(instance) => return Ok(Some(instance)),
            Err(error) => log::warn!("tracing is not possible yet: {error}"),
        }
        tokio::select! {
            stop = signals.received() => return stop.map(|_| None),
            () = tokio::time::sleep(CLAIM_AGAIN) => {}
        }
    }
}

/// When a tracer is replaced that has lost a stage, or rows for new queues.
struct Patience {
    length: Duration,
    since: Option<Instant>,
    started: Instant,
}

impl Patience {
    fn new() -> Self {
        Self { length: LEAST_PATIENCE, since: None, started: Instant::now() }
    }

    /// Waits until the tracer is to be replaced.
    async fn over(&mut self, shared: &Shared) {
        if shared.config().gives_up_privileges {
            return std::future::pending().await;
        }
        (self.since, self.started) = (None, Instant::now());
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if self.since.is_none() && shared.page().lacks_something() {
                // It went well for long: the load was an exception.
                if self.started.elapsed() > MOST_PATIENCE {
                    self.length = LEAST_PATIENCE;
                }
                self.since = Some(Instant::now());
            }
            if self.since.is_some_and(|since| since.elapsed() >= self.length) {
                self.length = (self.length * 2).min(MOST_PATIENCE);
                return;
            }
        }
    }
}

/// The signals of the daemon. Meanwhile, systemd is told that all is well.
struct Signals {
    args: Arguments,
    shared: Arc<Shared>,
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    user: Signal,
    watchdog: tokio::time::Interval,
}

impl Signals {
    fn new(args: &Arguments, shared: &Arc<Shared>) -> Result<Self> {
        let take = |kind| signal(kind).context("install a signal handler");
        let period = sd_notify::watchdog_enabled().map_or(WATCHDOG, |most| most / 3);
        Ok(Self {
            args: args.clone(),
            shared: Arc::clone(shared),
            interrupt: take(SignalKind::interrupt())?,
            terminate: take(SignalKind::terminate())?,
            hang_up: take(SignalKind::hangup())?,
            user: take(SignalKind::user_defined2())?,
            watchdog: tokio::time::interval(period),
        })
    }

    /// Waits for the signal to end; SIGHUP reads the configuration again, SIGUSR2 keeps a recording.
    async fn received(&mut self) -> Result<Stop> {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return Ok(Stop::Signal),
                _ = self.terminate.recv() => return Ok(Stop::Signal),
                _ = self.hang_up.recv() => reload(&self.args, &self.shared),
                _ = self.user.recv() => {
                    let last = self.shared.config().before;
                    let reason = "SIGUSR2".to_owned();
                    let request = Request { last, trigger: BY_SIGNAL, reason, reply: None };
                    lock(&self.shared.requests).push(request);
                    self.shared.early.notify_one();
                }
                _ = self.watchdog.tick() => {
                    if self.shared.is_healthy() {
                        tell(&[NotifyState::Watchdog]);
                    }
                }
            }
        }
    }
}

fn reload(args: &Arguments, shared: &Shared) {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
    match configuration(args) {
        Ok(new) => {
            let old = shared.config();
            for name in new.not_reloaded(&old) {
                log::warn!("{name} has changed, which needs a restart");
            }
            shared.set_config(new.reloaded(&old));
            log::warn!("the configuration was read again");
        }
        Err(error) => log::warn!("the old configuration stays: {error:#}"),
    }
    tell(&[NotifyState::Ready]);
}

/// Tells systemd, if it is there.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        log::debug!("systemd: {error}");
    }
}
