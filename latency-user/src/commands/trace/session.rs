//! A run under way: its snapshots, its recording, what is shown of it, its end.

use std::{
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result};
use tokio::{
    io::{Interest, unix::AsyncFd},
    process::Child,
    time::{self, MissedTickBehavior},
};

use super::Arguments;
use crate::{
    analysis::{culprits::add_stack, stall_totals::StallTotals},
    cli::Console,
    cli::{child, signals::Signals, stdout::Output, values::Format},
    collect::{stalls::Learned, tracer::Tracer},
    host::{kernel, net::tcp_pressure, process::usage, settings},
    kernel::probes::sampler,
    model::{
        cost::{KernelCost, SelfCost, Shed},
        distribution::Distribution,
        filter::Filter,
        interval::Interval,
        ledger::Ledger,
        run::{Run, Sampling},
        series::Series,
        summary::{SeriesSummary, Stalls, Summary},
        tcp_pressure::TcpPressure,
    },
    recording::writer::Writer,
    views::{self, Style},
};

/// How often the programs' cost is measured, for how long each time, and when first. Measuring
/// adds a reading of the clock to each run of a program.
const WEIGH_EVERY: Duration = Duration::from_secs(2);
const WEIGH_FOR: Duration = Duration::from_millis(200);
const WEIGH_FIRST: Duration = Duration::from_millis(200);

/// How often the ring buffer is looked at.
const RING_POLL: Duration = Duration::from_millis(10);

/// How often records of stalls are read at least.
const RECORDS_POLL: Duration = Duration::from_secs(1);

/// A run under way.
pub(super) struct Session {
    tracer: Tracer,
    run: Run,
    filter: Filter,
    recording: Option<Writer>,
    recording_failed: bool,
    output: Output,
    err: Box<dyn std::io::Write>,
    style: Style,
    format: Format,
    began: Instant,
    startup_cpu: Duration,
    interval_began: (Instant, SystemTime),
    totals: StallTotals,
    tcp: tcp_pressure::Watch,
    max_overhead: Option<f64>,
    shed: Vec<Shed>,
}

impl Session {
    pub(super) fn new(
        args: &Arguments,
        tracer: Tracer,
        mut recording: Option<Writer>,
        mut console: Console,
    ) -> Result<Self> {
        let began_at = SystemTime::now();
        let began = Instant::now();
        let root = Path::new("/");
        let run = Run {
            host: kernel::hostname(root)?,
            kernel: kernel::release(root)?,
            started_at: humantime::format_rfc3339_millis(began_at).to_string(),
            duration_s: 0.0,
            ifaces: args.iface.clone(),
            threshold_ns: args.threshold.as_nanos() as u64,
            transport: args.transport.into(),
            probes: tracer.uses().to_vec(),
            sampling: sampling(args.sample_hz, &tracer),
            cpus: tracer.cpus(),
            version: env!("CARGO_PKG_VERSION").into(),
        };
        if let Some(recording) = &mut recording {
            recording.begin(&run)?;
            match settings::read(root, &args.iface) {
                Ok(settings) => recording.settings(&settings)?,
                Err(error) => {
                    writeln!(console.err, "warning: the recording has no settings: {error:#}")?;
                }
            }
        }
        let filter =
            Filter { ifaces: args.iface.clone(), irqs: tracer.naming().irqs_of(&args.iface) };
        Ok(Self {
            tracer,
            run,
            filter,
            recording,
            recording_failed: false,
            output: Output::new(console.out, console.rows),
            err: console.err,
            style: Style { colour: console.colour, width: 80 },
            format: args.format,
            began,
            startup_cpu: usage::of_this_process().cpu,
            interval_began: (began, began_at),
            totals: StallTotals::default(),
            tcp: tcp_pressure::Watch::new(root),
            max_overhead: args.max_overhead,
            shed: Vec::new(),
        })
    }

    /// Takes a snapshot at each interval until something ends the run.
    pub(super) async fn follow(
        &mut self,
        args: &Arguments,
        signals: &mut Signals,
        child: &mut Option<Child>,
    ) -> Result<()> {
        let mut ticks = time::interval_at(time::Instant::now() + args.interval, args.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut polls = time::interval(RING_POLL);
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut weighings = time::interval_at(time::Instant::now() + WEIGH_FIRST, WEIGH_EVERY);
        weighings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut weighed_at = None;
        // Long intervals must not let records pile up until their ring is full.
        let mut reads = time::interval(RECORDS_POLL.min(args.interval));
        reads.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = args.duration.map(|duration| time::Instant::now() + duration);
        let records = self.tracer.attached().records_fd()?;
        // SAFETY: an `OwnedFd` stands for one and the same open descriptor as long as it lives.
        let records = unsafe { AsyncFd::register_with_interest(records, Interest::READABLE) }
            .context("wait for the ring buffer of stalls")?;
        let has_events =
            self.tracer.attached().events.is_some() || self.tracer.attached().logger.is_some();
        while !self.output.is_closed() {
            tokio::select! {
                biased;
                () = signals.received() => return Ok(()),
                status = child::exited(child) => {
                    status.context("wait for the command")?;
                    return Ok(());
                }
                () = time::sleep_until(end.unwrap_or_else(time::Instant::now)), if end.is_some() => {
                    return Ok(());
                }
                _ = ticks.tick() => self.interval()?,
                _ = polls.tick(), if has_events => self.drain(),
                _ = weighings.tick() => {
                    self.tracer.begin_to_weigh();
                    weighed_at = Some(time::Instant::now() + WEIGH_FOR);
                }
                () = time::sleep_until(weighed_at.unwrap_or_else(time::Instant::now)),
                    if weighed_at.is_some() =>
                {
                    weighed_at = None;
                    if !self.weigh()? && child.is_none() {
                        return Ok(());
                    }
                }
                _ = reads.tick() => self.tracer.drain_records(),
                ready = records.readable() => {
                    self.tracer.drain_records();
                    ready.context("wait for the ring buffer of stalls")?.clear_ready();
                }
            }
        }
        Ok(())
    }

    /// Looks at what the programs cost, and gives a stage up when it is too much. False: none is
    /// left, and the run ends.
    fn weigh(&mut self) -> Result<bool> {
        let (Some(weighed), Some(allowed)) = (self.tracer.weigh(), self.max_overhead) else {
            return Ok(true);
        };
        let share = weighed.busiest_share();
        if share <= allowed {
            return Ok(true);
        }
        let after_s = self.began.elapsed().as_secs_f64();
        let reason = views::cost::given_up(after_s, share, allowed);
        let Some(stage) = self.tracer.shed(&weighed, &reason)? else { return Ok(true) };
        let _ = writeln!(self.err, "warning: {}: {reason}", stage.name());
        self.shed.push(Shed { stage, after_s, share, allowed });
        self.run.probes = self.tracer.uses().to_vec();
        let run = self.run.clone();
        self.record(|recording| recording.header(&run));
        Ok(self.tracer.times_something())
    }

    fn drain(&mut self) {
        while self.tracer.drain_events() {}
        if let Some(logger) = &mut self.tracer.attached().logger {
            logger.flush();
        }
    }

    /// Takes what came since the last interval, and shows it.
    fn interval(&mut self) -> Result<()> {
        let shown = self.take_interval()?;
        self.tcp.look_in_time();
        self.totals.add(&shown);
        let mut text = Vec::new();
        match self.format {
            Format::Table => {
                views::table::interval(&shown, self.run.threshold_ns, self.style, &mut text)?;
                self.output.refresh(&text)
            }
            Format::Json => {
                views::json::interval(&shown, &mut text)?;
                self.output.write(&text)
            }
        }
    }

    /// Takes what came since the last interval, records it, and returns what is shown of it.
    fn take_interval(&mut self) -> Result<Interval> {
        let now = (Instant::now(), SystemTime::now());
        let (began, began_at) = std::mem::replace(&mut self.interval_began, now);
        let series = self.tracer.interval()?;
        self.filter.irqs.extend(self.tracer.naming().irqs_of(&self.filter.ifaces));
        let (learned, other_stacks) = self.tracer.learned_of(&self.filter);
        let Learned { stalls, collapses, stacks } = learned;
        let shown_stacks = stacks.clone();
        let mut interval =
            Interval { began_at, duration: now.0 - began, series, stalls, collapses, stacks };
        for stack in other_stacks {
            add_stack(&mut interval.stacks, &stack.frames, stack.count);
        }
        self.record(|recording| recording.interval(&interval));
        interval.stacks = shown_stacks;
        self.filter.apply(&mut interval);
        Ok(interval)
    }

    /// A recording that cannot be written any more (a full disk) must not end the measurement:
    /// it is said at once, and by the exit status.
    fn record(&mut self, what: impl FnOnce(&mut Writer) -> Result<()>) {
        let Some(recording) = &mut self.recording else { return };
        if let Err(error) = what(recording) {
            let _ = writeln!(self.err, "warning: the recording ends here: {error:#}");
            self.recording = None;
            self.recording_failed = true;
        }
    }

    /// Stops the programs and shows what they counted.
    pub(super) fn finish(mut self) -> Result<u8> {
        let ledger = self.tracer.finish();
        self.run.duration_s = self.began.elapsed().as_secs_f64();
        self.drain();
        let last = self.take_interval()?;
        self.totals.add(&last);
        let mut whole = self.tracer.total();
        whole.retain(|(series, _)| self.filter.keeps(series));
        let tcp = self.tcp.finish();
        let summary = self.summary(&whole, ledger, tcp)?;
        if let Some(Err(error)) = self.recording.take().map(|recording| recording.finish(&summary))
        {
            let _ = writeln!(self.err, "warning: the recording ends here: {error:#}");
            self.recording_failed = true;
        }
        let mut text = Vec::new();
        match self.format {
            Format::Table => views::table::summary(&summary, &whole, self.style, &mut text)?,
            Format::Json => {
                views::json::stalls(&last, &mut text)?;
                views::json::summary(&summary, &mut text)?;
            }
        }
        self.output.write(&text)?;
        if !summary.ledger.balanced && self.format == Format::Json {
            let _ = writeln!(self.err, "warning: the ledger does not balance: see its sums");
        }
        Ok(u8::from(self.recording_failed || !summary.ledger.balanced))
    }

    fn summary(
        &self,
        whole: &[(Series, Distribution)],
        ledger: Ledger,
        tcp: Vec<TcpPressure>,
    ) -> Result<Summary> {
        let series: Vec<SeriesSummary> = whole
            .iter()
            .map(|(series, distribution)| SeriesSummary::new(series, distribution))
            .collect();
        let usage = usage::of_this_process();
        let kernel = KernelCost { shed: self.shed.clone(), ..self.tracer.kernel_cost()? };
        Ok(Summary {
            run: self.run.clone(),
            stalls: Stalls::new(self.run.threshold_ns, &series, &self.totals, tcp),
            series,
            ledger,
            self_cost: SelfCost {
                programs: self.tracer.programs(),
                row_bytes: self.tracer.row_bytes(),
                user_cpu_s: (usage.cpu - self.startup_cpu).as_secs_f64(),
                startup_cpu_s: self.startup_cpu.as_secs_f64(),
                resident_bytes: usage.resident_bytes,
                kernel,
            },
        })
    }
}

/// What is said of the stacks beforehand.
fn sampling(hz: u64, tracer: &Tracer) -> Sampling {
    let (hz, note) = match (tracer.sampling_failure(), tracer.sampling_caveat()) {
        _ if hz == 0 => (0, "switched off".to_owned()),
        (Some(failure), _) => (0, format!("no stacks: {failure}")),
        (None, Some(caveat)) => (hz, caveat),
        (None, None) => (hz, sampler::BLIND_SPOT.to_owned()),
    };
    Sampling { hz, note }
}
