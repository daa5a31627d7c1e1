//! Attached programs: their maps, and how they are detached.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, OwnedFd},
};

use anyhow::{Context, Result, bail};
use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, MapData, RingBuf},
    programs::{Program, RawTracePoint},
};
use aya_log::EbpfLogger;
use latency_common::{
    collapse_call::CollapseStack, cpu_state::CpuState, row::HistogramRow, slot::SlotInfo,
    stage::Stage,
};
use log::Log;

use super::{
    link::Link,
    maps::mmap::MmapArray,
    probes::{
        bpf_stats::RunTime,
        hooks::{self, AttachOrder},
        misses,
        sampler::Sampler,
    },
    types::kallsyms,
};
use crate::model::{
    ledger::ProgramCounts,
    note::Note,
    run::{SampleWhen, Sampling},
};

/// Attached programs. All are detached and freed when this is dropped or the process ends.
pub struct Attached {
    pub(super) ebpf: Ebpf,
    pub(super) links: Vec<Placed>,
    pub(super) disabled_stages: Array<MapData, u32>,
    pub(super) sampler: Option<Sampler>,
    /// Why the packet probe could not be loaded.
    pub(super) packet_probe_failure: Option<String>,
    pub(super) rx_queue_links: Vec<Link>,
    pub(super) reports_kprobe_misses: bool,
    /// All rows.
    pub rows: MmapArray<HistogramRow>,
    /// State of each CPU.
    pub cpus: MmapArray<CpuState>,
    /// What each slot counts.
    pub slots: MmapArray<SlotInfo>,
    /// Number of slots requested.
    pub slot_cursor: MmapArray<u64>,
    pub(super) collapse_calls: HashMap<MapData, u64, CollapseCalls>,
    /// The stall ring buffer.
    pub records: RingBuf<MapData>,
    /// The event ring buffer, if the transport sends events.
    pub events: Option<RingBuf<MapData>>,
    /// The kernel side's warnings, if requested.
    pub logger: Option<EbpfLogger<&'static dyn Log>>,
    /// Names of the attached programs, without duplicates.
    pub programs: Vec<&'static str>,
    /// Why no stacks are sampled, if they were requested.
    pub sampler_failure: Option<String>,
}

/// Lets aya copy the kernel side's calls in progress.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct CollapseCalls(CollapseStack);

// SAFETY: `repr(C)`, integers without padding (its size is asserted).
unsafe impl Pod for CollapseCalls {}

/// An attached program.
pub(super) struct Placed {
    pub(super) order: AttachOrder,
    pub(super) program: &'static str,
    /// Kept, not read: see [`Link`].
    pub(super) _link: Link,
}

impl Attached {
    /// Detaches the programs of `order`.
    pub fn detach(&mut self, order: AttachOrder) {
        self.links.retain(|placed| placed.order != order);
    }

    /// Disables a stage, and detaches `programs`, which no other stage needs. Returns their missed
    /// runs.
    ///
    /// # Errors
    ///
    /// When the map that disables the stage cannot be read or written.
    pub fn disable(&mut self, stage: Stage, programs: &[&str]) -> Result<Vec<ProgramCounts>> {
        let disabled = self.disabled_stages.get(&0, 0).context("read the disabled stages")?;
        self.disabled_stages.set(0, disabled | stage.bit(), 0).context("disable a stage")?;
        let mut counts = self.misses();
        counts.retain(|program| programs.contains(&program.program.as_str()));
        for order in [AttachOrder::Start, AttachOrder::EndAndStart, AttachOrder::End] {
            self.links
                .retain(|placed| placed.order != order || !programs.contains(&placed.program));
        }
        self.programs.retain(|name| !programs.contains(name));
        Ok(counts)
    }

    /// Runs and time of each program since it was loaded, while statistics were on.
    pub fn run_times(&self) -> BTreeMap<&'static str, RunTime> {
        // The packet probe is attached only for a while, but stays loaded.
        let names = self.programs.iter().copied().chain([hooks::RX_QUEUE_PROGRAM]);
        names
            .filter_map(|name| {
                let info = self.ebpf.program(name)?.info().ok()?;
                let ns = u64::try_from(info.run_time().as_nanos()).unwrap_or(u64::MAX);
                Some((name, RunTime { runs: info.run_count(), ns }))
            })
            .collect()
    }

    /// A descriptor that becomes readable when many stall records are unread.
    ///
    /// # Errors
    ///
    /// When the process has too many descriptors.
    pub fn records_fd(&self) -> Result<OwnedFd> {
        self.records.as_fd().try_clone_to_owned().context("watch the ring buffer of stalls")
    }

    /// Stops the sampler.
    pub fn stop_sampling(&mut self) {
        self.sampler = None;
    }

    /// Lets the sampling clock of a CPU that stalled run for a while. Returns whether it has started
    /// it.
    pub fn stalled(&mut self, cpu: u32, now_ns: u64) -> bool {
        self.sampler.as_mut().is_some_and(|sampler| sampler.stalled(cpu, now_ns))
    }

    /// Stops the clocks that have run long enough, and returns their CPUs.
    pub fn stop_expired_clocks(&mut self, now_ns: u64) -> Vec<u32> {
        self.sampler.as_mut().map(|sampler| sampler.stop_expired(now_ns)).unwrap_or_default()
    }

    /// How stacks of stalls are sampled.
    pub fn sampling(&self) -> Sampling {
        let Some(sampler) = &self.sampler else {
            let note = match &self.sampler_failure {
                Some(failure) => Note::NoStacks { reason: failure.clone() },
                None => Note::SamplingOff,
            };
            return Sampling { notes: vec![note], ..Sampling::default() };
        };
        let note = if kallsyms::are_hidden() {
            Note::SymbolsHidden
        } else if sampler.sees_everything {
            Note::SampledByCycles
        } else {
            Note::SamplerBlindSpot
        };
        let Sampler { hz, clock, when, .. } = *sampler;
        let mut notes = vec![note];
        if when == SampleWhen::Stalled {
            notes.push(Note::SampledWhenStalled);
        }
        Sampling { hz, clock, when, notes }
    }

    /// Missed runs of each program. Must be called while they are attached: a probe's count is lost
    /// with its link.
    pub fn misses(&self) -> Vec<ProgramCounts> {
        let missed = misses::kprobe_misses();
        self.programs
            .iter()
            .filter_map(|name| {
                let program = self.ebpf.program(name)?;
                let id = program.info().ok()?.id();
                let is_kprobe = matches!(program, Program::KProbe(_));
                let count = || missed.iter().filter(|(of, _)| *of == id).map(|(_, n)| n).sum();
                Some(ProgramCounts {
                    program: (*name).to_owned(),
                    recursion_misses: misses::recursion_misses(program.fd().ok()?).ok(),
                    missed: (is_kprobe && self.reports_kprobe_misses).then(count),
                })
            })
            .collect()
    }

    /// Calls of `tcp_collapse` in progress.
    pub fn collapses_in_progress(&self) -> u64 {
        self.collapse_calls.iter().filter_map(Result::ok).map(|(_, calls)| calls.0.depth).sum()
    }

    /// Attaches the packet probe, which finds the RX queue of each NAPI instance.
    ///
    /// # Errors
    ///
    /// When the kernel lacks its tracepoints or refuses.
    pub fn watch_rx_queues(&mut self) -> Result<()> {
        if !self.rx_queue_links.is_empty() {
            return Ok(());
        }
        if let Some(failure) = &self.packet_probe_failure {
            bail!("{failure}");
        }
        let program: &mut RawTracePoint = self
            .ebpf
            .program_mut(hooks::RX_QUEUE_PROGRAM)
            .context("the eBPF object has no packet probe")?
            .try_into()?;
        for tracepoint in hooks::RX_QUEUE_TRACEPOINTS {
            let id = program.attach(tracepoint)?;
            self.rx_queue_links.push(Box::new(program.take_link(id)?));
        }
        Ok(())
    }

    /// Detaches the packet probe.
    pub fn unwatch_rx_queues(&mut self) {
        self.rx_queue_links.clear();
    }

    /// Whether the packet probe is attached.
    pub fn watches_rx_queues(&self) -> bool {
        !self.rx_queue_links.is_empty()
    }
}
