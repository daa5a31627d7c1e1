//! The tracer: starts the programs, reads their counts, and stops them without losing events.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use latency_common::{
    row::HistogramRow,
    row_layout::{CPU_ROWS, CPU_ROWS_WITH_VECTORS, RowLayout},
    stage::Stage,
};

use super::{
    accounting::{self, Received, Started},
    clocks::{Clocks, monotonic_ns},
    config::Config,
    context::Context,
    cost::{self, CostMeter, CostSample},
    events::EventCounts,
    naming::Naming,
    packet_watch::PacketWatch,
    slots,
    snapshot::RowCounters,
    stalls::StallCollector,
};
use crate::{
    analysis::stall_time::TickClock,
    host::cpu::cpus,
    kernel::{
        attached::Attached,
        loader::{self, ProgramConfig},
        probes::{
            hooks::{self, AttachOrder},
            selection::{self, Failures, KernelFacts},
        },
    },
    model::{
        cost::{DisabledStage, KernelCost},
        ledger::{Ledger, ProgramCounts},
        method::Method,
        note::Note,
        run::{Sampling, SelectedProbe, Transport},
        series::Series,
        stall::batch::StallBatch,
    },
};

/// How long to wait for events in progress at the end of a run.
const DRAIN: Duration = Duration::from_millis(100);

/// Events read from the ring buffer before other work gets a turn.
const EVENT_BATCH: usize = 65_536;

/// Size of the stall ring buffer per CPU, and its minimum size, bytes.
const RECORD_BYTES_PER_CPU: u32 = 128 << 10;
const MIN_RECORD_BYTES: u32 = 1 << 20;

/// A kernel being traced.
pub struct Tracer {
    probes: Vec<SelectedProbe>,
    attached: Attached,
    layout: RowLayout,
    transport: Transport,
    threshold_ns: u64,
    sampling: Sampling,
    naming: Naming,
    named_slots: u64,
    packet_watch: PacketWatch,
    packets_refused: bool,
    events: EventCounts,
    stalls: StallCollector,
    misses: Vec<ProgramCounts>,
    meter: CostMeter,
    disabled: Vec<DisabledStage>,
    programs: usize,
    rows: RowCounters,
    started: Started,
}

impl Tracer {
    /// Attaches the programs. A method that the kernel refuses is replaced by the next best.
    ///
    /// # Errors
    ///
    /// [`crate::model::failure::Failure`] when a stage cannot be timed as requested; other errors
    /// when the kernel refuses maps or the machine's `/proc` and `/sys` cannot be read. Nothing
    /// stays attached then.
    pub fn start(config: &Config) -> Result<Self> {
        let facts = KernelFacts::gather()?;
        let layout = layout(config)?;
        let program_config = ProgramConfig {
            layout,
            threshold_ns: config.threshold_ns,
            transport: config.transport,
            ring_bytes: loader::ring_bytes_for(config.ring_events),
            record_bytes: config.record_bytes.unwrap_or_else(|| record_bytes_for(layout.cpus)),
            records_per_second: config.records_per_second,
            collapse_threshold_ns: config.collapse_threshold_ns,
            sample_hz: config.sample_hz,
            sample_clock: config.sample_clock,
            sample_when: config.sample_when,
            log: config.log,
        };
        let naming = Naming::new(layout)?;
        let mut failures = Failures::new();
        let (probes, attached) = loop {
            let probes = selection::select(
                &config.stages,
                config.by_name,
                config.choice,
                &facts,
                &failures,
            )?;
            match loader::attach(&probes, &program_config, &facts) {
                Ok(attached) => break (probes, attached),
                Err(error) => error.note(&mut failures)?,
            }
        };
        let programs = attached.programs.len();
        let sampling = attached.sampling();
        let clock = TickClock::new(sampling.hz, sampling.clock);
        let stalls = StallCollector::new(clock, Clocks::new(sampling.when), config.threshold_ns);
        log::debug!("{} rows for {} CPUs, {programs} programs", layout.rows(), layout.cpus);
        drop(facts);
        return_free_memory();
        Ok(Self {
            programs,
            probes,
            attached,
            layout,
            transport: config.transport,
            threshold_ns: config.threshold_ns,
            sampling,
            naming,
            named_slots: 0,
            packet_watch: PacketWatch::default(),
            packets_refused: false,
            events: EventCounts::default(),
            stalls,
            misses: Vec::new(),
            meter: CostMeter::default(),
            disabled: Vec::new(),
            rows: RowCounters::default(),
            started: Started::default(),
        })
    }

    /// How each stage is timed.
    pub fn probes(&self) -> &[SelectedProbe] {
        &self.probes
    }

    /// How events travel.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Minimum duration of a stall, ns.
    pub fn threshold_ns(&self) -> u64 {
        self.threshold_ns
    }

    /// The attached programs and their maps, for direct access.
    pub fn attached(&mut self) -> &mut Attached {
        &mut self.attached
    }

    /// Names of the machine's queues and IRQs.
    pub fn naming(&self) -> &Naming {
        &self.naming
    }

    /// Possible CPUs.
    pub fn cpus(&self) -> u32 {
        self.layout.cpus
    }

    /// Number of programs that were attached.
    pub fn programs(&self) -> usize {
        self.programs
    }

    /// Starts to measure the cost of the programs. The measurement itself adds cost until
    /// [`Self::end_cost_measurement`].
    pub fn start_cost_measurement(&mut self) {
        self.meter.start(&self.attached);
    }

    /// Ends the measurement and returns its result; `None`: it could not start.
    pub fn end_cost_measurement(&mut self) -> Option<CostSample> {
        self.meter.end(&self.attached)
    }

    /// The measured cost of the programs.
    ///
    /// # Errors
    ///
    /// When the online CPUs cannot be read.
    pub fn kernel_cost(&self) -> Result<KernelCost> {
        let cost = self.meter.sum(cpus::online(Path::new("/"))?.len());
        Ok(KernelCost { disabled: self.disabled.clone(), ..cost })
    }

    /// Disables the stage that saves most, because the programs take more than `limit` of the
    /// busiest CPU; `None`: no stage saves anything. `after_s` is the time since the start of the
    /// run.
    ///
    /// # Errors
    ///
    /// When the map that disables the stage cannot be read or written.
    pub fn disable_most_expensive(
        &mut self,
        sample: &CostSample,
        after_s: f64,
        limit: f64,
    ) -> Result<Option<(Stage, Note)>> {
        let mut stages: Vec<(Stage, Method)> =
            self.timed().filter_map(|probe| Some((probe.stage, probe.method?))).collect();
        let Some(stage) = sample.most_expensive(&stages) else { return Ok(None) };
        stages.retain(|(other, _)| *other != stage);
        let needed = |name: &str| stages.iter().any(|&(of, by)| cost::needs(of, by, name));
        let own: Vec<&str> =
            self.probes.iter().filter(|probe| probe.stage == stage).flat_map(programs_of).collect();
        let unneeded: Vec<&str> = own.into_iter().filter(|name| !needed(name)).collect();
        self.misses.extend(self.attached.disable(stage, &unneeded)?);
        let share = sample.busiest_share();
        self.disabled.push(DisabledStage { stage, after_s, share, limit });
        let note = Note::StageDisabled { after_s, share, limit };
        for probe in self.probes.iter_mut().filter(|probe| probe.stage == stage) {
            probe.notes.insert(0, note.clone());
        }
        Ok(Some((stage, note)))
    }

    /// Whether a stage is still timed.
    pub fn times_something(&self) -> bool {
        self.timed().next().is_some()
    }

    /// The stages that are still timed.
    fn timed(&self) -> impl Iterator<Item = &SelectedProbe> {
        let is_disabled = |stage| self.disabled.iter().any(|disabled| disabled.stage == stage);
        self.probes.iter().filter(move |probe| probe.method.is_some() && !is_disabled(probe.stage))
    }

    /// How stacks of stalls are sampled.
    pub fn sampling(&self) -> Sampling {
        self.sampling.clone()
    }

    /// Memory of the rows in the kernel, bytes.
    pub fn row_bytes(&self) -> u64 {
        u64::from(self.layout.rows()) * size_of::<HistogramRow>() as u64
    }

    /// Reads a batch of events from the ring buffer and returns whether there may be more.
    pub fn drain_events(&mut self) -> bool {
        let Some(ring) = &mut self.attached.events else { return false };
        for _ in 0..EVENT_BATCH {
            let Some(event) = ring.next() else { return false };
            self.events.add(&event, self.threshold_ns);
        }
        true
    }

    /// Reads the rows, for the next [`Self::take_series`].
    pub fn read_rows(&mut self) {
        self.read(false);
    }

    /// Reads all pending stall records.
    pub fn drain_records(&mut self) {
        while let Some(record) = self.attached.records.next() {
            self.stalls.add(&record);
        }
        self.adjust_clocks();
    }

    /// Lets the clocks of CPUs that stalled run, and stops those whose time is over.
    fn adjust_clocks(&mut self) {
        let now = monotonic_ns();
        for cpu in self.stalls.take_stalled_cpus() {
            if self.attached.stalled(cpu, now) {
                // It runs since the call returned.
                self.stalls.clocks.started(cpu, monotonic_ns());
            }
        }
        for cpu in self.attached.stop_expired_clocks(now) {
            self.stalls.clocks.stopped(cpu, monotonic_ns());
        }
    }

    /// The stalls that ended since the last call. Call after [`Self::take_series`], which reads the
    /// names of new queues.
    pub fn take_stalls(&mut self) -> StallBatch {
        self.drain_records();
        let stages: Vec<Stage> = self.timed().map(|probe| probe.stage).collect();
        self.stalls.take(&Context { naming: &self.naming, stages: &stages })
    }

    /// What each series recorded since the last call.
    ///
    /// # Errors
    ///
    /// When the machine's interfaces or IRQs cannot be read to name new rows.
    pub fn take_series(&mut self) -> Result<Vec<Series>> {
        self.read(false);
        self.refresh_names()?;
        let (named, unknown) = self.naming.name(self.rows.take_fresh());
        log::debug!("snapshot: {} series, {} rows without a name", named.len(), unknown.len());
        self.rows.put_back(unknown);
        Ok(named)
    }

    /// What each series recorded since tracing started, by the names that are known now.
    pub fn total(&self) -> Vec<Series> {
        self.naming.name(self.rows.total()).0
    }

    /// Notes what has started so far: for [`Self::ledger_so_far`], before the rows are read.
    pub fn note_started(&mut self) {
        self.started = Started::now(&self.attached, &self.started);
    }

    /// The ledger as of the last [`Self::take_series`], before which [`Self::note_started`] was called.
    /// Only with rows: without them, events on their way cannot be told from lost ones.
    pub fn ledger_so_far(&self) -> Ledger {
        let mut misses = self.misses.clone();
        misses.extend(self.attached.misses());
        accounting::of_running(self.ledger(misses), &self.started, self.layout.cpus)
    }

    fn ledger(&self, misses: Vec<ProgramCounts>) -> Ledger {
        accounting::close(
            &self.probes,
            &self.attached,
            &self.layout,
            self.transport,
            &self.rows,
            &Received { events: &self.events, stalls: &self.stalls },
            misses,
        )
    }

    /// Detaches all programs, letting events in progress end first; reads the remaining data and
    /// closes the ledger.
    pub fn finish(&mut self) -> Ledger {
        self.misses.extend(self.attached.misses());
        self.attached.unwatch_rx_queues();
        self.attached.detach(AttachOrder::Start);
        self.drain(|stage| stage == Stage::RxWait);
        self.attached.detach(AttachOrder::EndAndStart);
        self.drain(|_| true);
        self.attached.detach(AttachOrder::End);
        self.attached.stop_sampling();
        wait_for_programs();
        while self.drain_events() {}
        self.drain_records();
        self.read(true);
        let misses = std::mem::take(&mut self.misses);
        self.ledger(misses)
    }

    /// Waits until no event of the stages selected by `of` is in progress, at most for [`DRAIN`].
    /// The ledger counts events that are still in progress.
    fn drain(&mut self, of: impl Fn(Stage) -> bool) {
        let deadline = Instant::now() + DRAIN;
        loop {
            self.drain_events();
            self.drain_records();
            let in_progress: u64 = self
                .timed()
                .filter(|probe| of(probe.stage))
                .filter_map(|probe| probe.method.map(|method| (probe.stage, method)))
                .map(|(stage, method)| accounting::in_progress(stage, method, &self.attached))
                .sum();
            if in_progress == 0 || Instant::now() >= deadline {
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
                    self.rows.put(index, &row);
                }
            }
        }
    }

    /// Reads names again if there are new slots, and while more evidence may name queues.
    fn refresh_names(&mut self) -> Result<()> {
        // CPUs that race for the last slot can move the cursor past the table size: clamp it.
        let assigned = self.attached.slot_cursor.word(0, 0).min(self.layout.slots.into());
        let refreshed = assigned != self.named_slots || self.attached.watches_rx_queues();
        if refreshed {
            self.naming.refresh(&self.attached.slots, assigned as usize)?;
            self.named_slots = self.naming.known_slots() as u64;
        }
        let packets = |row| self.rows.row(row).map_or(0, |row| row.sums.work);
        let mut unsettled = self.naming.unsettled_rows();
        let due = self.packet_watch.is_due(&unsettled, packets);
        if due && !refreshed {
            // The IRQs that scheduled these queues may have been seen meanwhile.
            self.naming.refresh(&self.attached.slots, assigned as usize)?;
            unsettled = self.naming.unsettled_rows();
        }
        if !due || unsettled.is_empty() {
            self.attached.unwatch_rx_queues();
        } else if !self.packets_refused
            && let Err(error) = self.attached.watch_rx_queues()
        {
            log::warn!("cannot find RX queues from packets: {error:#}");
            self.packets_refused = true;
        }
        Ok(())
    }
}

/// Returns the memory of the kernel's types, which are no longer needed, to the system.
fn return_free_memory() {
    // SAFETY: the call touches only free memory of the allocator.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The programs that time a stage.
fn programs_of(probe: &SelectedProbe) -> impl Iterator<Item = &'static str> + use<> {
    let hooks = probe.method.map_or(&[][..], |method| hooks::hooks(probe.stage, method));
    hooks.iter().map(|hook| hook.program)
}

/// Waits for programs that were detached while running: the ledger must include their last
/// counts.
fn wait_for_programs() {
    // SAFETY: the call touches no memory; it returns after an RCU grace period.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result != 0 {
        // Unsupported on kernels with nohz_full CPUs. A program runs for microseconds.
        thread::sleep(Duration::from_millis(20));
    }
}

/// Size of the stall ring buffer, bytes: a power of two.
fn record_bytes_for(cpus: u32) -> u32 {
    cpus.saturating_mul(RECORD_BYTES_PER_CPU).clamp(MIN_RECORD_BYTES, 1 << 26).next_power_of_two()
}

/// The row layout for this machine.
fn layout(config: &Config) -> Result<RowLayout> {
    let root = Path::new("/");
    let cpus = cpus::possible(root)?;
    let slots = match config.slots {
        Some(slots) => slots::check(slots)?,
        None => slots::needed_here(root, cpus)?,
    };
    let rows_per_cpu = match config.stages.contains(&Stage::Softirq) {
        true => CPU_ROWS_WITH_VECTORS,
        false => CPU_ROWS,
    };
    Ok(RowLayout { cpus, rows_per_cpu, slots })
}
