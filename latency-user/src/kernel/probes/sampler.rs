//! The sampler: a clock of perf on each CPU, to sample stacks of stalls in progress.
//!
//! Owns the two clocks. A timer ticks at equal distances, but not while interrupts are off. The cycle
//! counter of the CPU has an interrupt of its own, which on most machines cannot be masked. CPUs that
//! have their clock only after stalls have a slow timer all the time.

use std::{
    collections::BTreeMap,
    fs, hint,
    io::{self, Read},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use aya::{Ebpf, programs::PerfEvent};
use flate2::read::GzDecoder;
use latency_common::cpu_state::CpuState;

use super::{hooks, perf_clock::PerfClock};
use crate::{
    host::kernel,
    kernel::maps::mmap::MmapArray,
    model::run::{SampleClock, SampleWhen},
};

/// How long a clock that counts cycles may take until its first tick, on a CPU that is busy: longer
/// than any that works.
const FIRST_TICK: Duration = Duration::from_millis(20);

/// Where the kernel limits the frequency of samples.
const MAX_RATE: &str = "/proc/sys/kernel/perf_event_max_sample_rate";

/// Below this many ticks a second, most stalls would have no sample.
const MIN_HZ: u64 = 50;

/// Ticks a second of the slow timer: no multiple of what kernels and programs do regularly.
const SLOW_HZ: u64 = 47;

/// How long a clock runs after a stall on its CPU, ns.
const AFTER_STALL_NS: u64 = 60_000_000_000;

/// The clocks of all CPUs that were online when it was attached.
pub(in crate::kernel) struct Sampler {
    pub(in crate::kernel) clock: SampleClock,
    /// Ticks a second.
    pub(in crate::kernel) hz: u64,
    pub(in crate::kernel) when: SampleWhen,
    /// Whether it ticks while interrupts are off.
    pub(in crate::kernel) sees_everything: bool,
    clocks: BTreeMap<u32, PerfClock>,
    /// The slow timers; they run as long as they exist.
    slow_clocks: Vec<PerfClock>,
    /// The clocks that run for a while, and until when, ns.
    running: BTreeMap<u32, u64>,
}

impl Sampler {
    /// The names of its programs.
    pub(in crate::kernel) fn programs(&self) -> impl Iterator<Item = &'static str> {
        let slow = (!self.slow_clocks.is_empty()).then_some(hooks::SLOW_SAMPLER);
        [program(self.clock)].into_iter().chain(slow)
    }

    /// Lets the clock of a CPU that stalled run for a while. Returns whether it has started it.
    pub(in crate::kernel) fn stalled(&mut self, cpu: u32, now_ns: u64) -> bool {
        let (SampleWhen::Stalled, Some(clock)) = (self.when, self.clocks.get(&cpu)) else {
            return false;
        };
        let is_running = self.running.contains_key(&cpu);
        // A CPU that went offline has no clock any more.
        if !is_running && clock.start().is_err() {
            return false;
        }
        self.running.insert(cpu, now_ns + AFTER_STALL_NS);
        !is_running
    }

    /// Stops the clocks whose time is over, and returns their CPUs.
    pub(in crate::kernel) fn stop_expired(&mut self, now_ns: u64) -> Vec<u32> {
        let expired: Vec<u32> = self
            .running
            .iter()
            .filter(|(_, until)| **until <= now_ns)
            .map(|(cpu, _)| *cpu)
            .collect();
        for cpu in &expired {
            self.running.remove(cpu);
            if let Some(clock) = self.clocks.get(cpu)
                && let Err(error) = clock.stop()
            {
                log::debug!("cannot stop the sampling clock of CPU {cpu}: {error}");
            }
        }
        expired
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

/// Prepares a clock at `hz`, or as fast as the kernel allows, on each of `cpus`, and starts it if it
/// is to run always; it stamps its ticks in `states`.
///
/// # Errors
///
/// When the kernel refuses, or the clock does not tick.
pub(in crate::kernel) fn attach(
    ebpf: &mut Ebpf,
    hz: u64,
    clock: SampleClock,
    when: SampleWhen,
    cpus: &[u32],
    states: &MmapArray<CpuState>,
) -> Result<Sampler> {
    let hz = hz.min(max_rate());
    if hz < MIN_HZ {
        bail!("the kernel allows {hz} samples a second: raise kernel.perf_event_max_sample_rate");
    }
    let clocks = open(ebpf, program(clock), clock, hz, cpus)?;
    if when == SampleWhen::Always || clock == SampleClock::Cycles {
        clocks.values().try_for_each(PerfClock::start)?;
    }
    if clock == SampleClock::Cycles {
        await_tick(states).context("the CPU's cycles cannot be the clock of samples")?;
        if when == SampleWhen::Stalled {
            clocks.values().try_for_each(PerfClock::stop)?;
        }
    }
    let slow_clocks: Vec<PerfClock> = match when {
        SampleWhen::Always => Vec::new(),
        SampleWhen::Stalled => {
            let slow = open(ebpf, hooks::SLOW_SAMPLER, SampleClock::Time, SLOW_HZ.min(hz), cpus)?;
            slow.into_values().collect()
        }
    };
    slow_clocks.iter().try_for_each(PerfClock::start)?;
    let sees_everything = clock == SampleClock::Cycles && interrupts_everything();
    let running = BTreeMap::new();
    Ok(Sampler { clock, hz, when, sees_everything, clocks, slow_clocks, running })
}

/// A clock on each CPU, not started, that runs `program`.
fn open(
    ebpf: &mut Ebpf,
    program: &str,
    clock: SampleClock,
    hz: u64,
    cpus: &[u32],
) -> Result<BTreeMap<u32, PerfClock>> {
    let program: &mut PerfEvent =
        ebpf.program_mut(program).context("the eBPF object has no sampler")?.try_into()?;
    program.load()?;
    let program = program.fd()?;
    let open = |&cpu: &u32| Ok((cpu, PerfClock::open(clock, hz, cpu, program)?));
    cpus.iter().map(open).collect::<io::Result<_>>().context(match clock {
        SampleClock::Time => "`perf_event_open` failed",
        SampleClock::Cycles => "the CPU's cycles cannot be the clock of samples",
    })
}

/// The kernel lowers it when interrupts take long. If it cannot be read, the kernel decides.
fn max_rate() -> u64 {
    let text = fs::read_to_string(MAX_RATE).unwrap_or_default();
    text.trim().parse().unwrap_or(u64::MAX)
}

/// Some hypervisors have counters without their interrupt.
fn await_tick(states: &MmapArray<CpuState>) -> Result<()> {
    let started = Instant::now();
    while !(0..states.len()).any(|cpu| states.copy(cpu).last_tick_ns != 0) {
        if started.elapsed() > FIRST_TICK {
            bail!("the counter has no interrupt");
        }
        hint::spin_loop();
    }
    Ok(())
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
