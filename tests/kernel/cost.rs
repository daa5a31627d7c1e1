//! The cost that the tracer reports for itself, and its limit (`--max-overhead`).

use std::{
    collections::BTreeMap,
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context, Result, ensure};
use latency_tests::{load, namespace, tool};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    suite::{Where, trial},
    tracing::{Tracing, number, wait_until},
};

/// Datagrams between two checks.
const PACKETS: u64 = 997;

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    [
        trial(
            "cost::program_cost_matches_bpftool",
            Where::Everywhere,
            &["bpftool"],
            matches_bpftool,
        ),
        trial("cost::stages_that_cost_too_much_are_disabled", Where::Everywhere, &[], disabled),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Compares the tracer's run counts with bpftool's. The tracer is stopped (SIGSTOP) between two of
/// its measurements, so the kernel's counts rest while bpftool reads them.
fn matches_bpftool() -> Result<()> {
    namespace::run(|| {
        let tracing = Tracing::start(&["--stages", "rx_wait,net_rx,napi_poll"])?;
        wait_until("a measurement under load", || {
            load::udp(PACKETS)?;
            Ok(runs()?.get("softirq_entry").is_some_and(|runs| *runs > PACKETS))
        })?;
        let mut kernel = BTreeMap::new();
        wait_until("a stop between two measurements", || {
            tracing.signal(libc::SIGSTOP)?;
            kernel = runs()?;
            load::udp(PACKETS)?;
            if kernel == runs()? {
                return Ok(true);
            }
            tracing.signal(libc::SIGCONT)?;
            Ok(false)
        })?;
        tracing.signal(libc::SIGCONT)?;
        let summary = tracing.summary()?;
        let cost = &summary["self_cost"]["kernel"];
        let programs = cost["programs"].as_array().context("no programs")?;
        for name in ["softirq_raise", "softirq_entry", "softirq_exit"] {
            let measured = programs.iter().find(|row| row["program"] == name);
            let measured = measured.with_context(|| format!("no {name} in {cost}"))?;
            let ran = *kernel.get(name).with_context(|| format!("no {name}: {kernel:?}"))?;
            let runs = number(measured, "runs")?;
            // One measurement more may have started before the tracer ended, without load.
            ensure!((ran..ran + PACKETS).contains(&runs), "{name}: {runs} runs, the kernel: {ran}");
            ensure!(number(measured, "ns")? > runs, "{measured}");
        }
        let share = |name: &str| cost[name].as_f64().context(format!("no {name}"));
        ensure!(share("measured_s")? > 0.0, "{cost}");
        let (all, busiest) = (share("share")?, share("busiest_share")?);
        ensure!(0.0 < all && all <= busiest && busiest < 1.0, "{cost}");
        Ok(())
    })
}

/// Runs of each program while statistics were enabled, as `bpftool` shows them.
fn runs() -> Result<BTreeMap<String, u64>> {
    let shown: Value = serde_json::from_str(&tool::run("bpftool prog show --json")?)?;
    let programs = shown.as_array().context("bpftool shows no list")?;
    Ok(programs
        .iter()
        .filter_map(|program| {
            Some((program["name"].as_str()?.to_owned(), program["run_cnt"].as_u64().unwrap_or(0)))
        })
        .collect())
}

/// With a limit of nearly zero under load, one stage after another is disabled, NET_RX last. Then
/// the run ends by itself, with a balanced ledger and a recording that gives the reason.
fn disabled() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("run.hlog");
    let name = path.to_str().context("the path is not UTF-8")?;
    namespace::run(|| {
        let stages = ["--stages", "rx_wait,net_rx,napi_poll", "--probes", "tracepoint"];
        let arguments = ["--max-overhead", "0.0001%", "--output", name];
        let mut tracing = Tracing::start(&[&stages[..], &arguments].concat())?;
        let mut last = Value::Null;
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                loop {
                    if done.load(Ordering::Relaxed) || load::udp(PACKETS).is_err() {
                        return;
                    }
                }
            });
            let read = (|| -> Result<()> {
                while let Some(object) = tracing.next_line()? {
                    last = object;
                }
                Ok(())
            })();
            done.store(true, Ordering::Relaxed);
            read
        })?;
        let cost = &last["self_cost"]["kernel"];
        let disabled =
            cost["disabled"].as_array().with_context(|| format!("no summary: {last}"))?;
        let disabled: Vec<_> = disabled.iter().filter_map(|end| end["stage"].as_str()).collect();
        ensure!(disabled.len() == 3 && disabled[2] == "net_rx", "{disabled:?}");
        ensure!(last["ledger"]["balanced"] == true, "{}", last["ledger"]);
        let probes = last["run"]["probes"].as_array().context("no probes")?;
        let has_note = |probe: &Value| {
            let notes = probe["notes"].as_array().into_iter().flatten();
            notes.map(|note| &note["code"]).any(|code| code == "stage-disabled")
        };
        ensure!(probes.iter().all(has_note), "{probes:?}");
        let recording = fs::read_to_string(&path)?;
        let headers = recording.matches("{\"kind\":\"run\"").count();
        ensure!(headers == 4, "{headers} headers in the recording");
        Ok(())
    })
}
