//! The loads of the benchmark, each in its own network namespace, slice by slice.
//!
//! `bench-load udp [CPU] | batches | queues N | stalls | some-stalls N | ping tcp | ping udp`. Each
//! line on standard input, `MILLISECONDS [EVENTS_PER_SECOND]`, is one slice; its outcome is one line
//! of JSON on standard output. Ends when standard input ends. `stalls` and `some-stalls` load the
//! object named by `STALL_INJECTOR`.

use std::env;

use anyhow::{Context, Result, bail};
use latency_tests::{
    bench_load::{batches, frames, ping, slices, udp},
    namespace,
};

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["udp"] => namespace::run(|| slices::serve(&mut udp::Loopback::new(None)?)),
        ["udp", cpu] => {
            let cpu = cpu.parse().with_context(|| format!("CPU: {cpu:?}"))?;
            namespace::run(|| slices::serve(&mut udp::Loopback::new(Some(cpu))?))
        }
        ["batches"] => namespace::run(|| slices::serve(&mut batches::Batches::new()?)),
        ["queues", number] => {
            let queues = number.parse().with_context(|| format!("queues: {number:?}"))?;
            namespace::run(|| slices::serve(&mut frames::Queues::new(queues)?))
        }
        ["stalls"] => namespace::run(|| slices::serve(&mut frames::Stalls::new()?)),
        ["some-stalls", one_of] => {
            let one_of = one_of.parse().with_context(|| format!("some-stalls: {one_of:?}"))?;
            namespace::run(|| slices::serve(&mut frames::SomeStalls::new(one_of)?))
        }
        ["ping", protocol] => namespace::run(|| slices::serve(&mut ping::Pair::new(protocol)?)),
        _ => bail!(
            "expected udp, batches, queues N, stalls, some-stalls N, ping tcp or ping udp: {words:?}"
        ),
    }
}
