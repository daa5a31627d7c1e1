//! What the threads of the daemon share.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Instant,
};

use tokio::sync::{Notify, oneshot};

use super::{
    client::Client,
    config::Config,
    metrics::Metrics,
    request::{BY_DUMP, BY_SIGNAL, Job, Request},
    trigger::Trigger,
    window::{Minute, Window},
};
use crate::model::{note::Note, run::Run};

/// Shared by the threads.
pub struct Shared {
    /// The configuration.
    pub config: RwLock<Arc<Config>>,
    /// What metrics are made of.
    pub metrics: Mutex<Metrics>,
    /// What the page is made of.
    pub page: Mutex<Recent>,
    /// Those who follow the intervals.
    pub clients: Mutex<Vec<Client>>,
    /// Recordings that were asked for, until the next interval.
    pub requests: Mutex<Vec<Request>>,
    /// Ends the current interval at once.
    pub early: Arc<Notify>,
    /// Whether the tracer ends to be started anew.
    pub restarting: AtomicBool,
    /// Set while somebody else traces, or wants to.
    pub paused: AtomicBool,
    /// A client that wants to trace.
    pub pauses: Mutex<Option<Pause>>,
    /// Tells the tracer of it.
    pub pause_asked: Notify,
    /// To the thread that writes recordings; `None`: it is to end.
    pub jobs: Mutex<Option<mpsc::Sender<Job>>>,
    /// The page as it was made last.
    pub front: Mutex<Option<Front>>,
}

/// A page that was made.
pub struct Front {
    /// When.
    pub made: Instant,
    /// For which period of fetching it again.
    pub refresh_s: Option<u64>,
    /// Its text.
    pub text: Vec<u8>,
}

/// A client that wants to trace instead of the daemon.
pub struct Pause {
    /// Told when the daemon does not trace any more.
    pub paused: oneshot::Sender<()>,
    /// Ready when the client has gone.
    pub resumed: oneshot::Receiver<()>,
}

/// The last minutes.
pub struct Recent {
    /// The header of the run.
    pub run: Run,
    /// Minutes that are over.
    pub window: Window,
    /// The one that is not.
    pub minute: Minute,
    /// When the last interval ended.
    pub last_interval: Option<Instant>,
    /// Why intervals are not kept; `None`: they are.
    pub ring_error: Option<String>,
}

impl Recent {
    /// Whether a stage was disabled, a CPU is not sampled, or new queues find no row.
    pub fn lacks_something(&self) -> bool {
        let is_disabled = |note: &Note| matches!(note, Note::StageDisabled { .. });
        let is_unsampled = |note: &Note| matches!(note, Note::CpusNotSampled { .. });
        let slots = self.minute.after().ledger.slots;
        self.run.probes.iter().any(|probe| probe.notes.iter().any(is_disabled))
            || self.run.sampling.notes.iter().any(is_unsampled)
            || (slots.capacity > 0 && slots.used >= slots.capacity)
    }
}

impl Shared {
    /// For a run that has just started. The receiver gets the work of the thread that writes
    /// recordings.
    pub fn new(config: Config, run: Run) -> (Arc<Self>, mpsc::Receiver<Job>) {
        let (jobs, work) = mpsc::channel();
        let mut metrics =
            Metrics::new(run.clone(), config.labels, config.max_series, config.schema);
        // A counter that appears with 1 has not increased.
        let kinds = config.triggers.iter().map(Trigger::kind).chain([BY_DUMP, BY_SIGNAL]);
        metrics.recordings = kinds.map(|kind| (kind.to_owned(), 0)).collect();
        let recent = Recent {
            run,
            window: Window::default(),
            minute: Minute::default(),
            last_interval: None,
            ring_error: None,
        };
        let shared = Self {
            config: RwLock::new(Arc::new(config)),
            metrics: Mutex::new(metrics),
            page: Mutex::new(recent),
            clients: Mutex::default(),
            requests: Mutex::default(),
            early: Arc::default(),
            restarting: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            pauses: Mutex::default(),
            pause_asked: Notify::new(),
            jobs: Mutex::new(Some(jobs)),
            front: Mutex::default(),
        };
        (Arc::new(shared), work)
    }

    /// The configuration as of now.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the configuration.
    pub fn set_config(&self, config: Config) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    /// Whether the tracer ends to be started anew.
    pub fn is_restarting(&self) -> bool {
        self.restarting.load(Ordering::Relaxed)
    }

    /// Asks the tracer to pause. Returns whether nobody else has.
    pub fn pause(&self, pause: Pause) -> bool {
        if self.paused.swap(true, Ordering::SeqCst) {
            return false;
        }
        *lock(&self.pauses) = Some(pause);
        self.pause_asked.notify_one();
        true
    }

    /// Work for the thread that writes recordings.
    pub fn send(&self, job: Job) {
        if let Some(jobs) = &*lock(&self.jobs) {
            let _ = jobs.send(job);
        }
    }

    /// The thread that writes recordings ends when it has done its work.
    pub fn finish(&self) {
        lock(&self.jobs).take();
    }

    /// The clients.
    pub fn clients(&self) -> MutexGuard<'_, Vec<Client>> {
        lock(&self.clients)
    }

    /// What the page is made of.
    pub fn page(&self) -> MutexGuard<'_, Recent> {
        lock(&self.page)
    }

    /// What metrics are made of.
    pub fn metrics(&self) -> MutexGuard<'_, Metrics> {
        lock(&self.metrics)
    }

    /// Whether intervals come as they should.
    pub fn is_healthy(&self) -> bool {
        if self.paused.load(Ordering::SeqCst) {
            return true;
        }
        let most = self.config().measure.interval * 3 + std::time::Duration::from_secs(2);
        self.page().last_interval.is_some_and(|last| last.elapsed() < most)
    }
}

/// What a thread that panicked has left is still whole: each change is one assignment.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
