//! Tests against a real kernel: the running one, or Debian's in a virtual machine.
//!
//! They need root. `LATENCY_USER` is the path of the tested program, `STALL_INJECTOR` and
//! `TCP_COLLAPSE_LOAD` those of test programs, `PROMETHEUS` the directory of Prometheus's;
//! `LATENCY_VM` is set in a virtual machine. `cargo xtask test` sets them. Tests run one at a time:
//! only one tracer can run on a machine.

mod bpftrace;
mod clocks;
mod command_line;
mod confined;
mod cost;
mod counts;
mod docs;
mod elsewhere;
mod endurance;
mod experiment;
mod frozen;
mod kernels;
mod lab;
mod otlp;
mod preemption;
mod prometheus;
mod queues;
mod readers;
mod recording;
mod serve;
mod soak;
mod sockets;
mod stalls;
mod suite;
mod tracing;
mod traps;
mod triage;
mod types;

use std::{env, process::ExitCode};

use latency_tests::injector;
use libtest_mimic::Arguments;

#[expect(clippy::print_stderr, reason = "what the test that runs it shows")]
fn main() -> ExitCode {
    if let Some(directory) = env::var_os(confined::TRIES_IN) {
        return match confined::attempts(directory.as_ref()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:?}");
                ExitCode::FAILURE
            }
        };
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let trials = [
        command_line::trials(),
        readers::trials(),
        confined::trials(),
        counts::trials(),
        preemption::trials(),
        queues::trials(),
        clocks::trials(),
        stalls::trials(),
        frozen::trials(),
        sockets::trials(),
        recording::trials(),
        traps::trials(),
        cost::trials(),
        experiment::trials(),
        experiment::tunings::trials(),
        soak::trials(),
        serve::trials(),
        endurance::trials(),
        elsewhere::trials(),
        otlp::trials(),
        prometheus::trials(),
        triage::trials(),
        kernels::trials(),
        lab::trials(),
        docs::trials(),
    ];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}
