//! The sampler: a clock of perf on each CPU, to sample stacks of stalls in progress.
//!
//! Owns the two clocks. A timer ticks at equal distances, but not while interrupts are off. The cycle
//! counter of the CPU has an interrupt of its own, which on most machines cannot be masked.

use std::{
    fs, hint,
    io::Read,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use aya::{
    Ebpf,
    programs::{
        PerfEvent,
        perf_event::{HardwareEvent, PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent},
    },
};
use flate2::read::GzDecoder;
use latency_common::cpu_state::CpuState;

use super::hooks;
use crate::{
    host::kernel,
    kernel::{link::Link, maps::mmap::MmapArray},
    model::run::SampleClock,
};

/// How long a clock that counts cycles may take until its first tick, on a CPU that is busy: longer
/// than any that works.
const FIRST_TICK: Duration = Duration::from_millis(20);

/// Where the kernel limits the frequency of samples.
const MAX_RATE: &str = "/proc/sys/kernel/perf_event_max_sample_rate";

/// Below this many ticks a second, most stalls would have no sample.
const MIN_HZ: u64 = 50;

/// A running sampler.
pub(in crate::kernel) struct Sampler {
    pub(in crate::kernel) clock: SampleClock,
    /// Ticks a second.
    pub(in crate::kernel) hz: u64,
    /// Whether it ticks while interrupts are off.
    pub(in crate::kernel) sees_everything: bool,
    /// Kept, not read: see [`Link`].
    _links: Vec<Link>,
}

impl Sampler {
    /// The name of its program.
    pub(in crate::kernel) fn program(&self) -> &'static str {
        program(self.clock)
    }
}

const fn program(clock: SampleClock) -> &'static str {
    match clock {
        SampleClock::Time => hooks::SAMPLER,
        SampleClock::Cycles => hooks::CYCLE_SAMPLER,
    }
}

/// The minimum distance of two ticks that count cycles, ns: half a period. Of ticks that come sooner,
/// some are left out, and those that are kept are a period apart at most.
pub(in crate::kernel) fn min_tick_ns(hz: u64) -> u64 {
    500_000_000_u64.checked_div(hz).unwrap_or(0)
}

/// Starts a clock at `hz`, or as fast as the kernel allows, on each of `cpus`; it stamps its ticks
/// in `states`.
///
/// # Errors
///
/// When the kernel refuses, or the clock does not tick.
pub(in crate::kernel) fn attach(
    ebpf: &mut Ebpf,
    hz: u64,
    clock: SampleClock,
    cpus: &[u32],
    states: &MmapArray<CpuState>,
) -> Result<Sampler> {
    let hz = hz.min(max_rate());
    if hz < MIN_HZ {
        bail!("the kernel allows {hz} samples a second: raise kernel.perf_event_max_sample_rate");
    }
    let name = program(clock);
    let program: &mut PerfEvent =
        ebpf.program_mut(name).context("the eBPF object has no sampler")?.try_into()?;
    program.load()?;
    let links = match clock {
        SampleClock::Time => {
            start(program, PerfEventConfig::Software(SoftwareEvent::CpuClock), hz, cpus)?
        }
        SampleClock::Cycles => count_cycles(program, hz, cpus, states)
            .context("the CPU's cycles cannot be the clock of samples")?,
    };
    let sees_everything = clock == SampleClock::Cycles && interrupts_everything();
    Ok(Sampler { clock, hz, sees_everything, _links: links })
}

/// The kernel lowers it when interrupts take long. If it cannot be read, the kernel decides.
fn max_rate() -> u64 {
    let text = fs::read_to_string(MAX_RATE).unwrap_or_default();
    text.trim().parse().unwrap_or(u64::MAX)
}

fn count_cycles(
    program: &mut PerfEvent,
    hz: u64,
    cpus: &[u32],
    states: &MmapArray<CpuState>,
) -> Result<Vec<Link>> {
    let cycles = PerfEventConfig::Hardware(HardwareEvent::CpuCycles);
    let links = start(program, cycles, hz, cpus).context("no counter is free")?;
    // Some hypervisors have counters without their interrupt.
    let started = Instant::now();
    while !(0..states.len()).any(|cpu| states.copy(cpu).last_tick_ns != 0) {
        if started.elapsed() > FIRST_TICK {
            bail!("the counter has no interrupt");
        }
        hint::spin_loop();
    }
    Ok(links)
}

fn start(
    program: &mut PerfEvent,
    clock: PerfEventConfig,
    hz: u64,
    cpus: &[u32],
) -> Result<Vec<Link>> {
    cpus.iter()
        .map(|&cpu| {
            let scope = PerfEventScope::AllProcessesOneCpu { cpu };
            let id = program.attach(clock, scope, SamplePolicy::Frequency(hz), false)?;
            Ok(Box::new(program.take_link(id)?) as Link)
        })
        .collect()
}

/// Whether the interrupt of the CPU's counters cannot be masked. On Arm that is so only if the
/// kernel can emulate such interrupts, and was told to.
fn interrupts_everything() -> bool {
    if cfg!(target_arch = "aarch64") {
        let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
        return emulates_nmi(&line) && has_option("CONFIG_ARM64_PSEUDO_NMI");
    }
    cfg!(target_arch = "x86_64")
}

/// Whether a kernel's command line asks for them; the last word counts.
fn emulates_nmi(line: &str) -> bool {
    let mut values =
        line.split_whitespace().filter_map(|word| word.strip_prefix("irqchip.gicv3_pseudo_nmi="));
    values.next_back().is_some_and(|value| matches!(value, "1" | "y" | "Y" | "on" | "ON"))
}

/// Whether this kernel was built with an option; `false` if its configuration is nowhere.
fn has_option(option: &str) -> bool {
    let mut text = String::new();
    let packed = fs::File::open("/proc/config.gz");
    if packed.and_then(|file| GzDecoder::new(file).read_to_string(&mut text)).is_err() {
        let release = kernel::release(Path::new("/")).unwrap_or_default();
        text = fs::read_to_string(format!("/boot/config-{release}")).unwrap_or_default();
    }
    text.lines().any(|line| line.strip_prefix(option) == Some("=y"))
}

#[cfg(test)]
mod tests {
    use super::emulates_nmi;

    #[test]
    fn the_last_option_counts() {
        assert!(emulates_nmi("root=/dev/vda irqchip.gicv3_pseudo_nmi=1 quiet\n"));
        assert!(!emulates_nmi("irqchip.gicv3_pseudo_nmi=1 irqchip.gicv3_pseudo_nmi=0"));
        assert!(!emulates_nmi("quiet"));
        assert!(!emulates_nmi(""));
    }
}
