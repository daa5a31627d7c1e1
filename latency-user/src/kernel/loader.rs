//! Loads the programs, attaches them in order, and mmaps their maps.

use std::{collections::BTreeMap, io, path::Path};

use anyhow::{Context, Result, anyhow};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, RingBuf},
    programs::{FEntry, FExit, KProbe, Program, ProgramError, RawTracePoint},
};
use aya_log::EbpfLogger;
use latency_common::{
    cpu_state::CpuState, row_layout::RowLayout, span_event::SpanEvent, stage::Stage,
};

use super::{
    atomics,
    attached::{Attached, Placed},
    bare,
    link::Link,
    maps::mmap::MmapArray,
    object,
    probes::{
        hooks::{self, Hook, Target},
        sampler::{self, Sampler},
        selection::{Failures, KernelFacts},
    },
    types::offsets,
};
use crate::{
    host::cpu::cpus,
    model::{
        method::Method,
        note::Obstacle,
        run::{SampleClock, SampleWhen, SelectedProbe, Transport},
    },
};

/// Stack sampling starts once a span has lasted threshold / `SAMPLED_PART`, at most `SAMPLED_AFTER`:
/// with a high threshold, the first part of a stall would stay unexplained.
const SAMPLED_PART: u64 = 4;
const SAMPLED_AFTER_NS: u64 = 250_000;

/// The kernel-internal errno `ENOTSUPP`; libc does not define it.
const ENOTSUPP: i32 = 524;

/// Settings of the programs, set before they are loaded.
#[derive(Clone, Debug)]
pub struct ProgramConfig {
    /// Layout of the rows.
    pub layout: RowLayout,
    /// Minimum duration of a stall, ns.
    pub threshold_ns: u64,
    /// How events travel.
    pub transport: Transport,
    /// Size of the event ring buffer, bytes: a power of two, at least a page.
    pub ring_bytes: u32,
    /// Size of the stall ring buffer, bytes: a power of two, at least a page.
    pub record_bytes: u32,
    /// Stalls and slow collapses that a CPU may report in one second.
    pub records_per_second: u64,
    /// Minimum duration of `tcp_collapse` calls that are reported with their socket, ns.
    pub collapse_threshold_ns: u64,
    /// Sampling frequency, Hz; 0: no stacks.
    pub sample_hz: u64,
    /// What the sampling clock counts.
    pub sample_clock: SampleClock,
    /// When each CPU has the clock.
    pub sample_when: SampleWhen,
    /// Whether to log the kernel side's warnings.
    pub log: bool,
}

/// Why attaching failed.
#[derive(Debug)]
pub enum AttachError {
    /// One method of one stage does not work on this kernel.
    Method(Stage, Method, Obstacle),
    /// Something else.
    Other(anyhow::Error),
}

impl From<anyhow::Error> for AttachError {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl AttachError {
    /// Notes a failed method for the next selection.
    ///
    /// # Errors
    ///
    /// When something other than a method failed, or the method had failed before.
    pub fn note(self, failures: &mut Failures) -> Result<()> {
        match self {
            Self::Method(stage, method, obstacle) => {
                match failures.insert((stage, method), obstacle.clone()) {
                    None => Ok(()),
                    Some(_) => {
                        Err(anyhow!("{} by {method} failed twice: {obstacle}", stage.name()))
                    }
                }
            }
            Self::Other(error) => Err(error),
        }
    }
}

/// Loads and attaches the selected programs.
///
/// # Errors
///
/// The first method that the kernel refuses, with its reason; nothing stays attached then.
pub fn attach(
    probes: &[SelectedProbe],
    config: &ProgramConfig,
    facts: &KernelFacts,
) -> Result<Attached, AttachError> {
    let mut wanted: BTreeMap<&str, (Hook, Stage, Method)> = BTreeMap::new();
    for (stage, method) in in_use(probes) {
        let is_needed = |hook: &&Hook| !hook.only_preemptible || facts.preemption.softirqs;
        for hook in hooks::hooks(stage, method).iter().filter(is_needed) {
            wanted.entry(hook.program).or_insert((*hook, stage, method));
        }
    }
    let mut wanted: Vec<_> = wanted.into_values().collect();
    wanted.sort_by_key(|(hook, ..)| hook.order);
    // Before the object is loaded, which takes far longer.
    for (hook, stage, method) in &wanted {
        if let Err(error) = accepts(hook, facts) {
            let obstacle = Obstacle::LoadRefused { error: error.to_string(), verifier: None };
            return Err(AttachError::Method(*stage, *method, obstacle));
        }
    }
    let mut ebpf = load_object(probes, config, facts)?;
    let refused =
        |stage, method, error: &ProgramError| AttachError::Method(stage, method, obstacle(error));
    // Load everything before attaching anything, so that a rejected program has no side effect.
    for (hook, stage, method) in &wanted {
        load_program(&mut ebpf, hook, facts).map_err(|error| refused(*stage, *method, &error))?;
    }
    // It is attached later, when loading is given up.
    let packet_probe_failure = match in_use(probes).any(|(stage, _)| stage == Stage::NapiPoll) {
        true => load_packet_probe(&mut ebpf).err().map(|error| format!("{error:#}")),
        false => None,
    };
    let mut links = Vec::new();
    for (hook, stage, method) in &wanted {
        let link = attach_program(&mut ebpf, hook, facts)
            .map_err(|error| refused(*stage, *method, &error))?;
        links.push(Placed { order: hook.order, program: hook.program, _link: link });
    }
    let layout = config.layout;
    let mut take = |name: &str| -> Result<Map> {
        ebpf.take_map(name).with_context(|| format!("the eBPF object has no map {name}"))
    };
    let rows = MmapArray::new(take("ROWS")?, layout.rows()).context("rows")?;
    let cpus = MmapArray::new(take("CPUS")?, layout.cpus).context("per-CPU state")?;
    let slots = MmapArray::new(take("SLOT_INFO")?, layout.slots).context("slots")?;
    let slot_cursor = MmapArray::new(take("SLOT_CURSOR")?, 1).context("slot cursor")?;
    let collapse_calls = HashMap::try_from(take("COLLAPSE_CALLS")?).context("calls in progress")?;
    // The section contains only the one variable that is not frozen.
    let disabled_stages = Array::try_from(take(".bss")?).context("disabled stages")?;
    let records = RingBuf::try_from(take("STALL_RECORDS")?).context("ring buffer of stalls")?;
    let events = match config.transport.sends_events() {
        true => Some(RingBuf::try_from(take("SPAN_EVENTS")?).context("ring buffer")?),
        false => None,
    };
    let logger = match config.log {
        true => Some(EbpfLogger::init(&mut ebpf).context("log of the kernel side")?),
        false => None,
    };
    let mut programs: Vec<&'static str> = wanted.iter().map(|(hook, ..)| hook.program).collect();
    let (sampler, sampler_failure) = match start_sampler(&mut ebpf, config, &cpus) {
        Ok(sampler) => (sampler, None),
        // It was asked for by name.
        Err(error) if config.sample_clock != SampleClock::default() => return Err(error.into()),
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    programs.extend(sampler.iter().flat_map(Sampler::programs));
    let misses_field = "perf_event.kprobe.missed";
    Ok(Attached {
        ebpf,
        links,
        disabled_stages,
        sampler,
        packet_probe_failure,
        rx_queue_links: Vec::new(),
        reports_kprobe_misses: facts.btf.offset("bpf_link_info", misses_field).is_some(),
        records,
        sampler_failure,
        rows,
        cpus,
        slots,
        slot_cursor,
        collapse_calls,
        events,
        logger,
        programs,
    })
}

fn start_sampler(
    ebpf: &mut Ebpf,
    config: &ProgramConfig,
    states: &MmapArray<CpuState>,
) -> Result<Option<Sampler>> {
    if config.sample_hz == 0 {
        return Ok(None);
    }
    let online = cpus::online(Path::new("/"))?;
    let ProgramConfig { sample_hz, sample_clock, sample_when, .. } = *config;
    sampler::attach(ebpf, sample_hz, sample_clock, sample_when, &online, states).map(Some)
}

fn in_use(probes: &[SelectedProbe]) -> impl Iterator<Item = (Stage, Method)> {
    probes.iter().filter_map(|probe| probe.method.map(|method| (probe.stage, method)))
}

/// Creates the maps and prepares the programs.
fn load_object(
    probes: &[SelectedProbe],
    config: &ProgramConfig,
    facts: &KernelFacts,
) -> Result<Ebpf> {
    let layout = &config.layout;
    let stages: u32 = in_use(probes).map(|(stage, _)| stage.bit()).sum();
    let tracepoint_stages: u32 = in_use(probes)
        .filter(|(_, method)| *method == Method::Tracepoint)
        .map(|(stage, _)| stage.bit())
        .sum();
    let count_in_rows = u32::from(config.transport.counts_in_rows());
    let send_events = u32::from(config.transport.sends_events());
    let wake_at_bytes = u64::from(config.ring_bytes / 4);
    let slot_base = layout.slot_base();
    let log_level: u8 = if config.log { 0xff } else { 0 };
    let records_wake_at_bytes = u64::from(config.record_bytes / 4);
    let sample_after_ns = (config.threshold_ns / SAMPLED_PART).min(SAMPLED_AFTER_NS);
    let wake_for_clock =
        u32::from(config.sample_hz > 0 && config.sample_when == SampleWhen::Stalled);
    let min_tick_ns = sampler::min_tick_ns(config.sample_hz);
    let has_fetch = atomics::has_fetch();
    let fetch_atomics = u32::from(has_fetch);
    // Kernels without them claim each slot by a key of its own.
    let keys = if has_fetch { layout.slots } else { layout.slots * 2 + layout.cpus };
    let preemptible_softirqs = u32::from(facts.preemption.softirqs);
    let offsets = offsets::resolve(&facts.btf);

    let mut loader = EbpfLoader::new();
    // aya would parse the kernel's types for relocations, but the object has none.
    loader.btf(None);
    for (global, offset) in &offsets {
        loader.override_global(global, offset, true);
    }
    loader
        .override_global("STAGES", &stages, true)
        .override_global("TRACEPOINT_STAGES", &tracepoint_stages, true)
        .override_global("THRESHOLD_NS", &config.threshold_ns, true)
        .override_global("COUNT_IN_ROWS", &count_in_rows, true)
        .override_global("SEND_EVENTS", &send_events, true)
        .override_global("WAKE_AT_BYTES", &wake_at_bytes, true)
        .override_global("RECORDS_PER_SECOND", &config.records_per_second, true)
        .override_global("RECORDS_WAKE_AT_BYTES", &records_wake_at_bytes, true)
        .override_global("WAKE_FOR_CLOCK", &wake_for_clock, true)
        .override_global("SAMPLE_AFTER_NS", &sample_after_ns, true)
        .override_global("MIN_TICK_NS", &min_tick_ns, true)
        .override_global("COLLAPSE_THRESHOLD_NS", &config.collapse_threshold_ns, true)
        .override_global("PREEMPTIBLE_SOFTIRQS", &preemptible_softirqs, true)
        .override_global("FETCH_ATOMICS", &fetch_atomics, true)
        .override_global("ROWS_PER_CPU", &layout.rows_per_cpu, true)
        .override_global("SLOT_BASE", &slot_base, true)
        .override_global("SLOTS", &layout.slots, true)
        .override_global(aya_log::LEVEL, &log_level, true)
        .map_max_entries("STALL_RECORDS", config.record_bytes)
        .map_max_entries("ROWS", layout.rows())
        .map_max_entries("CPUS", layout.cpus)
        .map_max_entries("SLOT_BY_KEY", keys)
        .map_max_entries("SLOT_INFO", layout.slots);
    // Ring buffers are a multiple of the page size, which is not always 4 KiB; also if unused.
    let event_bytes = if config.transport.sends_events() { config.ring_bytes } else { 1 };
    loader.map_max_entries("SPAN_EVENTS", event_bytes.max(page_bytes()));
    let ebpf = loader
        .load(&object::bytes(has_fetch)?)
        .context("load the eBPF object's maps into the kernel")?;
    Ok(ebpf)
}

/// Whether the kernel has fentry for the hook's function, if it needs that.
fn accepts(hook: &Hook, facts: &KernelFacts) -> io::Result<()> {
    let (Target::Fentry(function) | Target::Fexit(function)) = hook.target else { return Ok(()) };
    facts.btf.function(function).map_or(Ok(()), bare::accepts_fentry)
}

fn load_program(ebpf: &mut Ebpf, hook: &Hook, facts: &KernelFacts) -> Result<(), ProgramError> {
    let program = program_mut(ebpf, hook)?;
    match hook.target {
        Target::Tracepoint(_) => <&mut RawTracePoint>::try_from(program)?.load(),
        Target::Fentry(f) => <&mut FEntry>::try_from(program)?.load(f, facts.aya_btf()?),
        Target::Fexit(f) => <&mut FExit>::try_from(program)?.load(f, facts.aya_btf()?),
        Target::Kprobe(_) | Target::Kretprobe(_) => <&mut KProbe>::try_from(program)?.load(),
    }
}

fn load_packet_probe(ebpf: &mut Ebpf) -> Result<()> {
    let program = ebpf.program_mut(hooks::RX_QUEUE_PROGRAM).context("no packet probe")?;
    Ok(<&mut RawTracePoint>::try_from(program)?.load()?)
}

fn attach_program(ebpf: &mut Ebpf, hook: &Hook, facts: &KernelFacts) -> Result<Link, ProgramError> {
    let program = program_mut(ebpf, hook)?;
    Ok(match hook.target {
        Target::Tracepoint(name) => {
            let program = <&mut RawTracePoint>::try_from(program)?;
            let id = program.attach(hooks::without_group(name))?;
            Box::new(program.take_link(id)?)
        }
        Target::Fentry(_) => {
            let program = <&mut FEntry>::try_from(program)?;
            let id = program.attach()?;
            Box::new(program.take_link(id)?)
        }
        Target::Fexit(_) => {
            let program = <&mut FExit>::try_from(program)?;
            let id = program.attach()?;
            Box::new(program.take_link(id)?)
        }
        Target::Kprobe(function) | Target::Kretprobe(function) => {
            let program = <&mut KProbe>::try_from(program)?;
            let id = program.attach(facts.kprobe_name(hook.target).unwrap_or(function), 0)?;
            Box::new(program.take_link(id)?)
        }
    })
}

fn program_mut<'a>(ebpf: &'a mut Ebpf, hook: &Hook) -> Result<&'a mut Program, ProgramError> {
    // The test of the hooks table catches names that the object lacks.
    ebpf.program_mut(hook.program).ok_or(ProgramError::NotLoaded)
}

/// The kernel's error in one line. The verifier's log, hundreds of lines, is logged at `-vv`.
fn obstacle(error: &ProgramError) -> Obstacle {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            log::debug!("verifier log:\n{verifier_log}");
            let text = verifier_log.to_string();
            let last = text.lines().rev().find(|line| {
                !line.is_empty()
                    && !line.starts_with("processed")
                    && !line.starts_with("verification")
                    && !line.starts_with("stack depth")
            });
            Obstacle::LoadRefused { error: io_error.to_string(), verifier: last.map(str::to_owned) }
        }
        ProgramError::SyscallError(error) if error.io_error.raw_os_error() == Some(ENOTSUPP) => {
            Obstacle::NoTrampoline
        }
        ProgramError::SyscallError(error) => Obstacle::AttachRefused {
            call: error.call.to_owned(),
            error: error.io_error.to_string(),
        },
        other => {
            let mut text = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            Obstacle::Failed { error: text }
        }
    }
}

/// Page size, bytes.
fn page_bytes() -> u32 {
    // SAFETY: the call touches no memory; every kernel reports its page size.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as u32 }
}

/// Size of a ring buffer for `events` with their headers, bytes: a power of two.
pub const fn ring_bytes_for(events: u32) -> u32 {
    const HEADER: u32 = 8;
    (events * (SpanEvent::SIZE as u32 + HEADER)).next_power_of_two()
}
