//! The tracer: starts the programs, reads what they count, and stops them without losing any.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use latency_common::{
    slot::{CPU_ROWS, CPU_ROWS_WITH_VECTORS, RowLayout},
    stage::Stage,
};

use super::{
    accounting::{self, Received},
    config::Config,
    cost::{self, CostMeter, Weighed},
    events::EventCounts,
    naming::Naming,
    slots,
    snapshot::Counted,
    stalls::{Context, Learned, StallCollector},
};
use crate::{
    host::cpu::cpus,
    kernel::{
        attached::Attached,
        loader::{self, Settings},
        probes::{
            hooks::{self, Turn},
            selection::{self, Failures, KernelFacts},
        },
        types::kallsyms,
    },
    model::{
        cost::KernelCost,
        distribution::Distribution,
        filter::Filter,
        ledger::{Ledger, ProgramBooks},
        run::{Method, ProbeUse, Transport},
        series::Series,
        stall::Stack,
    },
};

/// Snapshots that the packet probe may stay attached for.
const RX_QUEUE_WATCH: u32 = 10;

/// How long intervals under way are waited for at the end of a run.
const DRAIN: Duration = Duration::from_millis(100);

/// Events read from the ring buffer before others get their turn.
const EVENT_BATCH: usize = 65_536;

/// Room in the ring buffer of reports for each CPU, and the least that it has, bytes.
const RECORD_BYTES_PER_CPU: u32 = 128 << 10;
const LEAST_RECORD_BYTES: u32 = 1 << 20;

/// A kernel being traced.
pub struct Tracer {
    uses: Vec<ProbeUse>,
    attached: Attached,
    layout: RowLayout,
    transport: Transport,
    threshold_ns: u64,
    naming: Naming,
    named_slots: u64,
    watched: u32,
    events: EventCounts,
    stalls: StallCollector,
    misses: Vec<ProgramBooks>,
    meter: CostMeter,
    shed: Vec<Stage>,
    programs: usize,
    rows: Counted,
}

impl Tracer {
    /// Attaches the programs. A method that the kernel refuses is replaced by the next best.
    ///
    /// # Errors
    ///
    /// [`crate::model::failure::Failure`] when a stage cannot be timed as asked, other errors
    /// when the kernel refuses maps or the machine's `/proc` and `/sys` cannot be read. Nothing
    /// stays attached then.
    pub fn start(config: &Config) -> Result<Self> {
        let facts = KernelFacts::gather()?;
        let layout = layout(config)?;
        let settings = Settings {
            layout,
            threshold_ns: config.threshold_ns,
            transport: config.transport,
            ring_bytes: loader::ring_bytes_for(config.ring_events),
            record_bytes: config.record_bytes.unwrap_or_else(|| record_bytes_for(layout.cpus)),
            records_per_second: config.records_per_second,
            collapse_threshold_ns: config.collapse_threshold_ns,
            sample_hz: config.sample_hz,
            log: config.log,
        };
        let naming = Naming::new(layout)?;
        let mut failures = Failures::new();
        let (uses, attached) = loop {
            let uses =
                selection::plan(&config.stages, config.by_name, config.choice, &facts, &failures)?;
            match loader::attach(&uses, &settings, &facts) {
                Ok(attached) => break (uses, attached),
                Err(error) => error.note(&mut failures)?,
            }
        };
        let programs = attached.programs.len();
        drop(facts);
        give_memory_back();
        Ok(Self {
            programs,
            uses,
            attached,
            layout,
            transport: config.transport,
            threshold_ns: config.threshold_ns,
            naming,
            named_slots: 0,
            watched: 0,
            events: EventCounts::default(),
            stalls: StallCollector::default(),
            misses: Vec::new(),
            meter: CostMeter::default(),
            shed: Vec::new(),
            rows: Counted::default(),
        })
    }

    /// How each stage is timed.
    pub fn uses(&self) -> &[ProbeUse] {
        &self.uses
    }

    /// What the programs write, for those who read it themselves.
    pub fn attached(&mut self) -> &mut Attached {
        &mut self.attached
    }

    /// What is known of the machine's queues and IRQs.
    pub fn naming(&self) -> &Naming {
        &self.naming
    }

    /// Possible CPUs.
    pub fn cpus(&self) -> u32 {
        self.layout.cpus
    }

    /// Programs that were attached.
    pub fn programs(&self) -> usize {
        self.programs
    }

    /// Begins to measure what the programs cost. Costs something itself until [`Self::weigh`].
    pub fn begin_to_weigh(&mut self) {
        self.meter.begin(&self.attached);
    }

    /// Ends the measurement and tells what it has shown; `None`: it could not begin.
    pub fn weigh(&mut self) -> Option<Weighed> {
        self.meter.end(&self.attached)
    }

    /// What the programs have cost as far as it was measured.
    ///
    /// # Errors
    ///
    /// When the online CPUs cannot be read.
    pub fn kernel_cost(&self) -> Result<KernelCost> {
        Ok(self.meter.sum(cpus::online(Path::new("/"))?.len()))
    }

    /// Gives up the stage that saves most; `None`: there is none left. `reason` comes into its
    /// [`ProbeUse`].
    ///
    /// # Errors
    ///
    /// When the programs refuse to be told.
    pub fn shed(&mut self, weighed: &Weighed, reason: &str) -> Result<Option<Stage>> {
        let mut stages: Vec<(Stage, Method)> =
            self.timed().filter_map(|one| Some((one.stage, one.method?))).collect();
        let Some(stage) = weighed.dearest(&stages) else { return Ok(None) };
        stages.retain(|(other, _)| *other != stage);
        let needed = |name: &str| stages.iter().any(|&(of, by)| cost::needs(of, by, name));
        let own: Vec<&str> =
            self.uses.iter().filter(|one| one.stage == stage).flat_map(programs_of).collect();
        let unneeded: Vec<&str> = own.into_iter().filter(|name| !needed(name)).collect();
        self.misses.extend(self.attached.shed(stage, &unneeded)?);
        self.shed.push(stage);
        for one in self.uses.iter_mut().filter(|one| one.stage == stage) {
            let before = one.note.take().map(|note| format!("; {note}")).unwrap_or_default();
            one.note = Some(format!("{reason}{before}"));
        }
        Ok(Some(stage))
    }

    /// Whether a stage is still timed.
    pub fn times_something(&self) -> bool {
        self.timed().next().is_some()
    }

    /// The stages that are timed still.
    fn timed(&self) -> impl Iterator<Item = &ProbeUse> {
        self.uses.iter().filter(|one| one.method.is_some() && !self.shed.contains(&one.stage))
    }

    /// Why the sampler does not run, although it was wanted.
    pub fn sampling_failure(&self) -> Option<&str> {
        self.attached.sampler_failure.as_deref()
    }

    /// Why stalls have no stacks, or less than they could have; `None`: they have all.
    pub fn sampling_caveat(&self) -> Option<String> {
        if let Some(failure) = self.sampling_failure() {
            return Some(format!("no stacks: {failure}"));
        }
        kallsyms::are_hidden().then(|| {
            "stacks show addresses: the kernel hides its symbols (kernel.kptr_restrict)".into()
        })
    }

    /// Bytes of the rows in the kernel.
    pub fn row_bytes(&self) -> u64 {
        u64::from(self.layout.rows()) * size_of::<latency_common::row::HistogramRow>() as u64
    }

    /// Reads a batch of events from the ring buffer and tells whether there may be more.
    pub fn drain_events(&mut self) -> bool {
        let Some(ring) = &mut self.attached.events else { return false };
        for _ in 0..EVENT_BATCH {
            let Some(event) = ring.next() else { return false };
            self.events.add(&event, self.threshold_ns);
        }
        true
    }

    /// Reads all records of stalls that are there.
    pub fn drain_records(&mut self) {
        while let Some(record) = self.attached.records.next() {
            self.stalls.add(&record);
        }
    }

    /// What was learned of stalls since the last call. Comes after [`Self::interval`], which
    /// learns the names of new queues.
    pub fn learned(&mut self) -> Learned {
        self.learned_of(&Filter::default()).0
    }

    /// As [`Self::learned`], but with the stacks of those stalls alone that `filter` keeps; behind
    /// them, the stacks of the others.
    pub fn learned_of(&mut self, filter: &Filter) -> (Learned, Vec<Stack>) {
        self.drain_records();
        let stages: Vec<Stage> = self.timed().map(|one| one.stage).collect();
        self.stalls.take(&Context { naming: &self.naming, stages: &stages }, filter)
    }

    /// What came since the last call, by series.
    ///
    /// # Errors
    ///
    /// When the machine's interfaces or IRQs cannot be read to name new rows.
    pub fn interval(&mut self) -> Result<Vec<(Series, Distribution)>> {
        self.read(false);
        self.refresh_names()?;
        let (named, unknown) = self.naming.name(self.rows.take_fresh());
        self.rows.put_back(unknown);
        Ok(named)
    }

    /// Everything since tracing began, by series.
    pub fn total(&self) -> Vec<(Series, Distribution)> {
        self.naming.name(self.rows.total().clone()).0
    }

    /// Detaches all programs so that what is under way still finds its end, reads what is left,
    /// and closes the books.
    pub fn finish(&mut self) -> Ledger {
        self.misses.extend(self.attached.misses());
        self.attached.unwatch_rx_queues();
        self.attached.detach(Turn::Begin);
        self.drain(|stage| stage == Stage::RxWait);
        self.attached.detach(Turn::Both);
        self.drain(|_| true);
        self.attached.detach(Turn::End);
        self.attached.stop_sampling();
        let_programs_end();
        while self.drain_events() {}
        self.drain_records();
        self.read(true);
        accounting::close(
            &self.uses,
            &self.attached,
            &self.layout,
            self.transport,
            self.rows.total(),
            &Received { events: &self.events, stalls: &self.stalls },
            std::mem::take(&mut self.misses),
        )
    }

    /// Waits until no interval of the stages in `of` is under way, or [`DRAIN`] has passed:
    /// what is open then is said in the ledger.
    fn drain(&mut self, of: impl Fn(Stage) -> bool) {
        let deadline = Instant::now() + DRAIN;
        loop {
            self.drain_events();
            self.drain_records();
            let open: u64 = self
                .timed()
                .filter(|one| of(one.stage))
                .filter_map(|one| one.method.map(|method| (one.stage, method)))
                .map(|(stage, method)| accounting::open(stage, method, &self.attached))
                .sum();
            if open == 0 || Instant::now() >= deadline {
                return;
            }
            thread::sleep(Duration::from_micros(200));
        }
    }

    fn read(&mut self, all: bool) {
        if self.transport.counts_in_rows() {
            self.rows.read(&self.attached.rows, all);
        } else {
            while self.drain_events() {}
            for index in self.events.rows() {
                if let Some(row) = self.events.distribution(index) {
                    self.rows.put(index, row);
                }
            }
        }
    }

    /// Names are looked up again when there are new slots, and while packets may tell more.
    fn refresh_names(&mut self) -> Result<()> {
        // The cursor also counts those that were asked for in vain.
        let handed_out = self.attached.slot_cursor.word(0, 0).min(self.layout.slots.into());
        let watching = self.attached.watches_rx_queues();
        if handed_out == self.named_slots && !watching {
            return Ok(());
        }
        if handed_out != self.named_slots {
            self.watched = 0;
        }
        self.naming.refresh(&self.attached.slots, handed_out as usize)?;
        self.named_slots = self.naming.known_slots() as u64;
        if self.naming.is_unsettled() && self.watched < RX_QUEUE_WATCH {
            self.watched += 1;
            if let Err(error) = self.attached.watch_rx_queues() {
                log::warn!("packets cannot tell which RX queue they came from: {error:#}");
                self.watched = RX_QUEUE_WATCH;
            }
        } else {
            self.attached.unwatch_rx_queues();
        }
        Ok(())
    }
}

/// Gives what the kernel's types took while they were read back to the machine.
fn give_memory_back() {
    // SAFETY: the call touches free memory of the allocator only.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The programs that time a stage.
fn programs_of(one: &ProbeUse) -> impl Iterator<Item = &'static str> + use<> {
    let hooks = one.method.map_or(&[][..], |method| hooks::hooks(one.stage, method));
    hooks.iter().map(|hook| hook.program)
}

/// Waits until programs that were detached while they ran have come to their end: what they count
/// last belongs to the books.
fn let_programs_end() {
    // SAFETY: the call touches no memory; it returns after an RCU grace period.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result != 0 {
        // Not on kernels with nohz_full CPUs; a program runs for microseconds.
        thread::sleep(Duration::from_millis(20));
    }
}

/// Size of the ring buffer of reports: a power of two.
fn record_bytes_for(cpus: u32) -> u32 {
    cpus.saturating_mul(RECORD_BYTES_PER_CPU).clamp(LEAST_RECORD_BYTES, 1 << 26).next_power_of_two()
}

/// Arranges the rows for this machine.
fn layout(config: &Config) -> Result<RowLayout> {
    let root = Path::new("/");
    let cpus = cpus::possible(root)?;
    let slots = match config.slots {
        Some(slots) => slots,
        None => slots::needed_here(root, cpus)?,
    };
    let rows_per_cpu = match config.stages.contains(&Stage::Softirq) {
        true => CPU_ROWS_WITH_VECTORS,
        false => CPU_ROWS,
    };
    Ok(RowLayout { cpus, rows_per_cpu, slots })
}
