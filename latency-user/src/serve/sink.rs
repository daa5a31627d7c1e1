//! What the daemon does with each interval.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{
    client::{Client, Fate},
    dump,
    request::{Job, Request},
    ring::{Head, Ring, SEGMENT},
    shared::{Shared, lock},
    trigger::Armed,
};
use crate::{
    host::settings,
    measure::{
        pacing::Stop,
        sink::{Finished, Measured, Sink},
    },
    model::{run::Run, settings::HostSettings},
    recording::encoder::{EncodedInterval, Encoder},
};

/// The sink of the daemon.
pub struct DaemonSink {
    shared: Arc<Shared>,
    encoder: Encoder,
    ring: Ring,
    armed: Vec<Armed>,
    /// Recordings whose time after the trigger is not over.
    pending: Vec<Pending>,
    settings: Option<HostSettings>,
}

/// A recording that was decided on.
struct Pending {
    due: Instant,
    started: Instant,
    before: Duration,
    name: String,
    request: Request,
}

impl DaemonSink {
    /// A sink that keeps intervals in `ring`.
    pub fn new(shared: &Arc<Shared>, ring: Ring) -> Self {
        let armed = shared.config().triggers.iter().cloned().map(Armed::new).collect();
        Self {
            shared: Arc::clone(shared),
            encoder: Encoder::quick(),
            ring,
            armed,
            pending: Vec::new(),
            settings: None,
        }
    }

    fn keep(&mut self, measured: &Measured<'_>, interval: &EncodedInterval) {
        if self.ring.is_between() {
            self.settings = settings::read(Path::new("/"), &[]).ok();
        }
        let head = Head { run: measured.run, settings: self.settings.as_ref() };
        let added = self.ring.add(interval, &head);
        let error = added.err().map(|error| format!("{error:#}"));
        if error.is_some() {
            self.shared.metrics().missing_in_ring += 1;
        }
        let mut page = self.shared.page();
        if page.ring_error != error {
            match (&page.ring_error, &error) {
                (None, Some(error)) => log::warn!("intervals are not kept: {error}"),
                (Some(_), None) => log::warn!("intervals are kept again"),
                _ => {}
            }
            page.ring_error = error;
        }
    }

    fn pass_on(&self, measured: &Measured<'_>, interval: &EncodedInterval) -> Result<()> {
        let mut failed = None;
        let mut cut_off = 0;
        let mut clients = self.shared.clients();
        clients.retain_mut(|client| {
            let fate = client.interval(measured, interval, self.settings.as_ref());
            let fate = fate.unwrap_or_else(|error| {
                failed = Some(error);
                Fate::Leaves
            });
            if fate == Fate::CutOff {
                cut_off += 1;
                log::warn!("client {} was cut off: it did not read", client.id());
            }
            fate == Fate::Stays
        });
        let number = clients.len() as u64;
        drop(clients);
        let mut metrics = self.shared.metrics();
        metrics.clients = number;
        metrics.slow_clients += cut_off;
        failed.map_or(Ok(()), Err)
    }

    fn check_triggers(&mut self, measured: &Measured<'_>) {
        let config = self.shared.config();
        for armed in &mut self.armed {
            let Some(reason) = armed.check(measured, config.pause) else { continue };
            let trigger = armed.trigger.kind();
            log::warn!("{}: {reason}", armed.trigger);
            let pending = &self.pending;
            let is_pending = |name: &str| pending.iter().any(|other| other.name == name);
            let name = dump::name(&config.state, &measured.run.host, trigger, is_pending);
            self.shared.send(Job::Capture { name: name.clone() });
            let now = Instant::now();
            self.pending.push(Pending {
                due: now + config.after,
                started: now,
                before: config.before,
                name,
                request: Request { last: Duration::ZERO, trigger, reason, reply: None },
            });
        }
    }

    /// Takes what was asked for since the last interval.
    fn take_requests(&mut self, host: &str) {
        for request in std::mem::take(&mut *lock(&self.shared.requests)) {
            let is_pending = |name: &str| self.pending.iter().any(|other| other.name == name);
            let state = &self.shared.config().state;
            let name = dump::name(state, host, request.trigger, is_pending);
            self.shared.send(Job::Capture { name: name.clone() });
            let now = Instant::now();
            let before = request.last;
            self.pending.push(Pending { due: now, started: now, before, name, request });
        }
    }

    /// Completes the current segment if it is long enough, or a recording needs it now.
    fn rotate(&mut self, run: &Run, is_end: bool) {
        let now = Instant::now();
        let is_needed = self.pending.iter().any(|pending| is_end || pending.due <= now);
        let length = self.shared.page().minute.length();
        let is_due = self.ring.is_due() || length >= SEGMENT || is_needed || is_end;
        if is_due && !(length.is_zero() && self.ring.is_between()) {
            self.close(run);
        }
        let (due, later) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|pending| is_end || pending.due <= now);
        self.pending = later;
        for pending in due {
            self.dump(pending);
        }
    }

    /// Writes what was decided on and asked for, while nothing is measured.
    pub fn catch_up(&mut self) {
        let run = self.shared.page().run.clone();
        self.take_requests(&run.host);
        self.rotate(&run, true);
    }

    fn close(&mut self, run: &Run) {
        let mut page = self.shared.page();
        let next = page.minute.next();
        let minute = std::mem::replace(&mut page.minute, next).ended();
        page.window.add(Arc::clone(&minute));
        drop(page);
        if let Err(error) = self.ring.close(|length| minute.summary(run, length)) {
            log::warn!("the summary of a minute is missing: {error:#}");
        }
    }

    fn dump(&self, pending: Pending) {
        let Pending { started, before, name, request, .. } = pending;
        let segments = self.ring.last(before + started.elapsed());
        let Request { trigger, reason, reply, .. } = request;
        match dump::link(&self.shared.config().state, &name, &segments) {
            Ok(parts) => {
                self.shared.send(Job::Join { parts, name, trigger, reason, reply });
            }
            Err(error) => {
                self.shared.metrics().failed_recordings += 1;
                log::warn!("no recording {name}: {error:#}");
                if let Some(reply) = reply {
                    let _ = reply.send(Err(format!("{error:#}")));
                }
            }
        }
    }

    fn take(&mut self, measured: &Measured<'_>, is_end: bool) -> Result<()> {
        let interval = self.encoder.interval(measured.all)?;
        self.keep(measured, &interval);
        {
            let mut page = self.shared.page();
            page.run = measured.run.clone();
            page.minute.add(measured.all, measured.so_far);
            page.last_interval = Some(Instant::now());
        }
        let lowered = self.shared.metrics().add(measured);
        if let Some(level) = lowered {
            log::warn!(
                "more than {} histograms: their labels are of level {} from now on",
                self.shared.config().max_series,
                level.name()
            );
        }
        if is_end && !self.shared.is_restarting() {
            self.shared.clients().iter_mut().for_each(|client| client.end());
        }
        self.pass_on(measured, &interval)?;
        self.check_triggers(measured);
        self.take_requests(&measured.run.host);
        // A tracer that is replaced goes on at once; one that is paused may not.
        let goes_on = self.shared.is_restarting() && !self.shared.paused.load(Ordering::SeqCst);
        self.rotate(measured.run, is_end && !goes_on);
        Ok(())
    }
}

impl Sink for DaemonSink {
    fn start(&mut self, run: &Run) -> Result<()> {
        self.shared.page().run = run.clone();
        self.run_changed(run)
    }

    fn run_changed(&mut self, run: &Run) -> Result<()> {
        self.shared.metrics().set_run(run);
        let _ = self.ring.run_changed(run);
        for client in self.shared.clients().iter_mut() {
            client.run_changed(run)?;
        }
        Ok(())
    }

    fn interval(&mut self, measured: &Measured<'_>) -> Result<Option<Stop>> {
        self.take(measured, false)?;
        Ok(None)
    }

    fn last_interval(&mut self, measured: &Measured<'_>) -> Result<()> {
        self.take(measured, true)
    }

    fn finish(&mut self, end: &Finished<'_>) -> Result<()> {
        self.shared.page().minute.restart();
        self.shared.metrics().restart(end.summary);
        self.shared.clients().iter_mut().for_each(Client::restart);
        Ok(())
    }

    fn needs_so_far(&self) -> bool {
        true
    }

    fn needs_totals(&self) -> bool {
        // It has its own, of the last minutes.
        false
    }
}
