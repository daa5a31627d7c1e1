//! Attaches the no-op programs until its standard input ends.
//!
//! `bench-noop OBJECT HOOKS`: the programs of HOOKS (comma-separated: raise, entry, poll, exit; or
//! none) read the clock, the others are empty. Prints `attached` once they are attached.

use std::{
    env,
    io::{Read, stdin},
};

use anyhow::{Context, Result, bail};
use aya::{EbpfLoader, programs::RawTracePoint};

/// Hook, program and tracepoint, in the order of the bits in `CLOCK_READS`.
const HOOKS: [(&str, &str, &str); 4] = [
    ("raise", "noop_raise", "softirq_raise"),
    ("entry", "noop_entry", "softirq_entry"),
    ("poll", "noop_poll", "napi_poll"),
    ("exit", "noop_exit", "softirq_exit"),
];

#[expect(clippy::print_stdout, reason = "the benchmark waits for this word")]
fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let object = arguments.next().context("no object named")?;
    let reads = clock_reads(&arguments.next().context("no hooks named")?)?;
    let mut ebpf = EbpfLoader::new()
        .override_global("CLOCK_READS", &reads, true)
        .load_file(&object)
        .with_context(|| format!("load {object}"))?;
    for (_, program, tracepoint) in HOOKS {
        let program: &mut RawTracePoint = ebpf
            .program_mut(program)
            .with_context(|| format!("{object} has no program {program}"))?
            .try_into()?;
        program.load()?;
        program.attach(tracepoint)?;
    }
    println!("attached");
    stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// The bits of the hooks that read the clock.
fn clock_reads(names: &str) -> Result<u32> {
    let mut bits = 0;
    for name in names.split(',').filter(|name| *name != "none") {
        match HOOKS.iter().position(|(hook, ..)| *hook == name) {
            Some(at) => bits |= 1 << at,
            None => bail!("no hook {name:?}: raise, entry, poll, exit or none"),
        }
    }
    Ok(bits)
}
