//! Loads the programs, attaches them in their turns, and maps what they write.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result, anyhow};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, RingBuf},
    programs::{FEntry, FExit, KProbe, Program, ProgramError, RawTracePoint},
};
use aya_log::EbpfLogger;
use latency_common::{event::IntervalEvent, slot::RowLayout, stage::Stage};

use super::{
    attached::{Attached, Link, Placed},
    maps::mmap::Mapped,
    probes::{
        hooks::{self, Hook, Target},
        sampler,
        selection::{Failures, KernelFacts},
    },
    types::offsets,
};
use crate::{
    host::cpu::cpus,
    model::run::{Method, ProbeUse, Transport},
};

/// The eBPF object, compiled in.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/latency-ebpf"));

/// What has lasted for this part of the threshold may become a stall, and is sampled.
const SAMPLED_PART: u64 = 4;

/// The kernel's own errno for what it does not support; libc has no name for it.
const ENOTSUPP: i32 = 524;

/// What the programs are told before they are loaded.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Arrangement of the rows.
    pub layout: RowLayout,
    /// Durations at or above it are stalls, ns.
    pub threshold_ns: u64,
    /// How events travel.
    pub transport: Transport,
    /// Size of the ring buffer of events, bytes: a power of two, at least a page.
    pub ring_bytes: u32,
    /// Size of the ring buffer of records of stalls, as above.
    pub record_bytes: u32,
    /// Stalls and slow collapses that a CPU may report in one second.
    pub records_per_second: u64,
    /// Calls of `tcp_collapse` at or above it are reported with their socket, ns.
    pub collapse_threshold_ns: u64,
    /// Ticks of the sampler in one second; 0: no stacks.
    pub sample_hz: u64,
    /// Whether the kernel side's own warnings are wanted.
    pub log: bool,
}

/// Why attaching failed.
#[derive(Debug)]
pub enum AttachError {
    /// One method of one stage does not work on this kernel.
    Method(Stage, Method, String),
    /// Something else.
    Other(anyhow::Error),
}

impl From<anyhow::Error> for AttachError {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl AttachError {
    /// Notes a failed method for the next plan.
    ///
    /// # Errors
    ///
    /// When it was not a method that failed, or one that had failed before.
    pub fn note(self, failures: &mut Failures) -> Result<()> {
        match self {
            Self::Method(stage, method, reason) => {
                match failures.insert((stage, method), reason.clone()) {
                    None => Ok(()),
                    Some(_) => Err(anyhow!("{} by {method} failed twice: {reason}", stage.name())),
                }
            }
            Self::Other(error) => Err(error),
        }
    }
}

/// Loads and attaches what `uses` plans.
///
/// # Errors
///
/// The first method that the kernel refuses, with its reason; nothing stays attached then.
pub fn attach(
    uses: &[ProbeUse],
    settings: &Settings,
    facts: &KernelFacts,
) -> Result<Attached, AttachError> {
    let mut ebpf = load_object(uses, settings, facts)?;
    let mut wanted: BTreeMap<&str, (Hook, Stage, Method)> = BTreeMap::new();
    for (stage, method) in in_use(uses) {
        for hook in hooks::hooks(stage, method) {
            wanted.entry(hook.program).or_insert((*hook, stage, method));
        }
    }
    let mut wanted: Vec<_> = wanted.into_values().collect();
    wanted.sort_by_key(|(hook, ..)| hook.turn);
    let refused =
        |stage, method, error: &ProgramError| AttachError::Method(stage, method, reason(error));
    // All are loaded before the first is attached: what is refused is refused without a trace.
    for (hook, stage, method) in &wanted {
        load_program(&mut ebpf, hook, facts).map_err(|error| refused(*stage, *method, &error))?;
    }
    let mut links = Vec::new();
    for (hook, stage, method) in &wanted {
        let link = attach_program(&mut ebpf, hook, facts)
            .map_err(|error| refused(*stage, *method, &error))?;
        links.push(Placed { turn: hook.turn, program: hook.program, _link: link });
    }
    let layout = settings.layout;
    let mut take = |name: &str| -> Result<Map> {
        ebpf.take_map(name).with_context(|| format!("the eBPF object has no map {name}"))
    };
    let rows = Mapped::new(take("ROWS")?, layout.rows()).context("rows")?;
    let cpus = Mapped::new(take("CPUS")?, layout.cpus).context("per-CPU state")?;
    let slots = Mapped::new(take("SLOT_INFO")?, layout.slots).context("slots")?;
    let slot_cursor = Mapped::new(take("SLOT_CURSOR")?, 1).context("slot cursor")?;
    let collapsing = HashMap::try_from(take("COLLAPSING")?).context("calls under way")?;
    // The eBPF object's only variable that is not frozen lies alone in its section.
    let shed = Array::try_from(take(".bss")?).context("what is given up")?;
    let records = RingBuf::try_from(take("RECORDS")?).context("ring buffer of stalls")?;
    let events = match settings.transport.sends_events() {
        true => Some(RingBuf::try_from(take("EVENTS")?).context("ring buffer")?),
        false => None,
    };
    let logger = match settings.log {
        true => Some(EbpfLogger::init(&mut ebpf).context("log of the kernel side")?),
        false => None,
    };
    let mut programs: Vec<&'static str> = wanted.iter().map(|(hook, ..)| hook.program).collect();
    let (sampler, sampler_failure) = match start_sampler(&mut ebpf, settings) {
        Ok(links) => (links, None),
        Err(error) => (Vec::new(), Some(format!("{error:#}"))),
    };
    if !sampler.is_empty() {
        programs.push(hooks::SAMPLER);
    }
    let misses_field = "perf_event.kprobe.missed";
    Ok(Attached {
        ebpf,
        links,
        shed,
        sampler,
        rx_queue_links: Vec::new(),
        kprobe_misses_are_told: facts.btf.offset("bpf_link_info", misses_field).is_some(),
        records,
        sampler_failure,
        rows,
        cpus,
        slots,
        slot_cursor,
        collapsing,
        events,
        logger,
        programs,
    })
}

fn start_sampler(ebpf: &mut Ebpf, settings: &Settings) -> Result<Vec<Link>> {
    if settings.sample_hz == 0 {
        return Ok(Vec::new());
    }
    sampler::attach(ebpf, settings.sample_hz, &cpus::online(Path::new("/"))?)
}

fn in_use(uses: &[ProbeUse]) -> impl Iterator<Item = (Stage, Method)> {
    uses.iter().filter_map(|one| one.method.map(|method| (one.stage, method)))
}

/// Creates the maps and prepares the programs.
fn load_object(uses: &[ProbeUse], settings: &Settings, facts: &KernelFacts) -> Result<Ebpf> {
    let layout = &settings.layout;
    let stages: u32 = in_use(uses).map(|(stage, _)| stage.bit()).sum();
    let tracepoint_stages: u32 = in_use(uses)
        .filter(|(_, method)| *method == Method::Tracepoint)
        .map(|(stage, _)| stage.bit())
        .sum();
    let count_in_rows = u32::from(settings.transport.counts_in_rows());
    let send_events = u32::from(settings.transport.sends_events());
    let wake_at_bytes = u64::from(settings.ring_bytes / 4);
    let slot_base = layout.slot_base();
    let log_level: u8 = if settings.log { 0xff } else { 0 };
    let records_wake_at_bytes = u64::from(settings.record_bytes / 4);
    let sample_after_ns = settings.threshold_ns / SAMPLED_PART;
    let offsets = offsets::resolve(&facts.btf);

    let mut loader = EbpfLoader::new();
    // The kernel's types would be parsed for relocations, of which the object has none.
    loader.btf(None);
    for (global, offset) in &offsets {
        loader.override_global(global, offset, true);
    }
    loader
        .override_global("STAGES", &stages, true)
        .override_global("TRACEPOINT_STAGES", &tracepoint_stages, true)
        .override_global("THRESHOLD_NS", &settings.threshold_ns, true)
        .override_global("COUNT_IN_ROWS", &count_in_rows, true)
        .override_global("SEND_EVENTS", &send_events, true)
        .override_global("WAKE_AT_BYTES", &wake_at_bytes, true)
        .override_global("RECORDS_PER_SECOND", &settings.records_per_second, true)
        .override_global("RECORDS_WAKE_AT_BYTES", &records_wake_at_bytes, true)
        .override_global("SAMPLE_AFTER_NS", &sample_after_ns, true)
        .override_global("COLLAPSE_THRESHOLD_NS", &settings.collapse_threshold_ns, true)
        .override_global("ROWS_PER_CPU", &layout.rows_per_cpu, true)
        .override_global("SLOT_BASE", &slot_base, true)
        .override_global("SLOTS", &layout.slots, true)
        .override_global(aya_log::LEVEL, &log_level, true)
        .map_max_entries("RECORDS", settings.record_bytes)
        .map_max_entries("ROWS", layout.rows())
        .map_max_entries("CPUS", layout.cpus)
        .map_max_entries("SLOT_OF", layout.slots)
        .map_max_entries("SLOT_INFO", layout.slots);
    // A ring buffer is whole pages long, which are not 4 KiB everywhere, also where it is not used.
    let event_bytes = if settings.transport.sends_events() { settings.ring_bytes } else { 1 };
    loader.map_max_entries("EVENTS", event_bytes.max(page_bytes()));
    let ebpf = loader.load(OBJECT).context("load the eBPF object's maps into the kernel")?;
    Ok(ebpf)
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
    // A hook's name that the object lacks is caught by the test of the hooks table.
    ebpf.program_mut(hook.program).ok_or(ProgramError::NotLoaded)
}

/// The kernel's answer in one line: the verifier's log has hundreds, and goes to `-v`.
fn reason(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            log::debug!("verifier log:\n{verifier_log}");
            let last = verifier_log.to_string();
            let last = last.lines().rev().find(|line| {
                !line.is_empty()
                    && !line.starts_with("processed")
                    && !line.starts_with("verification")
                    && !line.starts_with("stack depth")
            });
            match last {
                Some(last) => {
                    format!("the kernel refuses to load the program: {io_error} ({last})")
                }
                None => format!("the kernel refuses to load the program: {io_error}"),
            }
        }
        ProgramError::SyscallError(error) if error.io_error.raw_os_error() == Some(ENOTSUPP) => {
            "the kernel cannot attach a trampoline to the function: before Linux 6.6 (x86) not to \
             one with more than six arguments"
                .into()
        }
        ProgramError::SyscallError(error) => {
            format!("the kernel refuses to attach the program: {}: {}", error.call, error.io_error)
        }
        other => {
            let mut text = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            text
        }
    }
}

/// Size of a page of memory.
fn page_bytes() -> u32 {
    // SAFETY: the call touches no memory; every kernel tells its page size.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as u32 }
}

/// Bytes that `events` take in the ring buffer, with the header that the kernel adds to each.
pub const fn ring_bytes_for(events: u32) -> u32 {
    const HEADER: u32 = 8;
    (events * (IntervalEvent::SIZE as u32 + HEADER)).next_power_of_two()
}
