//! The sampler: perf's software clock on each CPU, to sample stacks of stalls in progress.

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    programs::{
        PerfEvent,
        perf_event::{PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent},
    },
};

use super::hooks;
use crate::kernel::attached::Link;

/// Starts the clock at `hz` on each of `cpus`.
///
/// # Errors
///
/// When the kernel refuses, for example because of `kernel.perf_event_max_sample_rate`.
pub(in crate::kernel) fn attach(ebpf: &mut Ebpf, hz: u64, cpus: &[u32]) -> Result<Vec<Link>> {
    let program: &mut PerfEvent =
        ebpf.program_mut(hooks::SAMPLER).context("the eBPF object has no sampler")?.try_into()?;
    program.load()?;
    let clock = PerfEventConfig::Software(SoftwareEvent::CpuClock);
    cpus.iter()
        .map(|&cpu| {
            let scope = PerfEventScope::AllProcessesOneCpu { cpu };
            let id = program.attach(clock, scope, SamplePolicy::Frequency(hz), false)?;
            Ok(Box::new(program.take_link(id)?) as Link)
        })
        .collect()
}
