//! User errors, and how a run ends.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::{Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use latency_tests::{namespace, tool, veth};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    suite::{Where, trial},
    tracing::{Tracing, for_everybody, latency_user, number},
};

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    let everywhere = |name, body| trial(name, Where::Everywhere, &[], body);
    [
        everywhere("command_line::invalid_values_are_refused", invalid_values),
        everywhere("command_line::unknown_interfaces_are_refused", unknown_interface),
        everywhere("command_line::missing_privileges_are_named", no_privileges),
        everywhere("command_line::a_kernel_without_btf_is_refused", no_types),
        everywhere("command_line::tracefs_is_not_needed", no_tracefs),
        everywhere("command_line::a_second_tracer_is_refused", second_tracer),
        everywhere("command_line::unwritable_output_is_an_error", no_output),
        everywhere("command_line::every_exit_path_writes_a_summary", endings),
        everywhere("command_line::a_closed_stdout_exits_quietly", closed_pipe),
        everywhere("command_line::the_exit_status_of_the_command_is_passed_on", command_status),
        everywhere("command_line::doctor_needs_no_root", doctor),
        everywhere("command_line::forced_probe_methods_match_doctor", methods),
        everywhere("command_line::ebpf_warnings_are_shown_with_verbose_only", warnings),
        everywhere("command_line::interface_names_are_completed", completion),
        everywhere("command_line::tables_fit_eighty_columns", table),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn run(arguments: &[&str]) -> Result<Output> {
    latency_user()?.args(arguments).stdin(Stdio::null()).output().context("run latency-user")
}

/// Checks the exit status, that each of `words` is on standard error, and that standard output is
/// empty.
fn refused(output: &Output, status: i32, words: &[&str]) -> Result<()> {
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(status),
        "{}, expected {status}: {message}",
        output.status
    );
    ensure!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    ensure!(message.starts_with("error: "), "{message}");
    for word in words {
        ensure!(message.contains(word), "{word:?} is missing: {message}");
    }
    Ok(())
}

fn invalid_values() -> Result<()> {
    for (arguments, word) in [
        (&["--duration", "0s"][..], "0s"),
        (&["--duration", "soon"], "500us"),
        (&["--duration", "-1s"], "-1"),
        (&["--duration", "99999999999999999999s"], "999"),
        (&["--interval", "1us"], "10ms"),
        (&["--threshold", "2m"], "68"),
        (&["--stages", "net_rx,net_tx"], "rx_wait"),
        (&["--probes", "magic"], "fentry"),
        (&["--transport", "pigeon"], "maps"),
        (&["--ring-events", "0"], "128"),
        (&["--format", "xml"], "json"),
    ] {
        let output = run(&[&["trace"], arguments].concat())?;
        refused(&output, 2, &[word]).with_context(|| format!("{arguments:?}"))?;
    }
    Ok(())
}

fn unknown_interface() -> Result<()> {
    refused(&run(&["trace", "--iface", "nope0"])?, 1, &["nope0", "hint: ", "lo"])
}

fn no_privileges() -> Result<()> {
    let (_directory, mut command) = for_everybody()?;
    let output = command.arg("trace").output()?;
    refused(&output, 3, &["CAP_BPF is missing: ", "CAP_PERFMON is missing: ", "hint: ", "sudo"])
}

fn no_types() -> Result<()> {
    namespace::run(|| {
        tool::run("mount -t tmpfs none /sys/kernel/btf")?;
        let words = ["type information", "/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF"];
        refused(&run(&["trace", "--duration", "1s"])?, 3, &words)
    })
}

fn no_tracefs() -> Result<()> {
    namespace::run(|| {
        tool::run("umount /sys/kernel/tracing")?;
        tool::run("umount -l /sys/kernel/debug")?;
        let output = run(&["trace", "--duration", "100ms"])?;
        ensure!(output.status.success(), "{output:?}");
        Ok(())
    })
}

fn second_tracer() -> Result<()> {
    let first = Tracing::start(&[])?;
    let id = first.id().to_string();
    refused(&run(&["trace", "--duration", "1s"])?, 1, &["another latency-user", &id, "hint: "])?;
    first.summary()?;
    // The first tracer is gone, so the next one may start.
    Tracing::start(&[])?.summary()?;
    Ok(())
}

fn no_output() -> Result<()> {
    let path = "/nonexistent/run.hlog";
    refused(&run(&["trace", "--output", path])?, 1, &[path])?;
    // A full disk does not end the measurement, but it is reported.
    let output = run(&["trace", "--duration", "200ms", "--output", "/dev/full"])?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1) && message.contains("/dev/full"), "{output:?}");
    Ok(())
}

/// However a run ends, it prints its summary and the recording ends with one.
fn endings() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("run.hlog");
    let text = path.to_string_lossy().into_owned();
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let ended = Tracing::start(&["--output", &text])?.end(signal)?;
        ensure!(ended.status.success(), "signal {signal}: {}", ended.status);
        ensure!(ended.summary["kind"] == "summary", "signal {signal}: {}", ended.summary);
        ensure!(ended.summary["ledger"]["balanced"] == true, "{}", ended.summary["ledger"]);
        is_complete(&text).with_context(|| format!("signal {signal}"))?;
    }
    let started = std::time::Instant::now();
    let output = run(&["trace", "--duration", "300ms", "--format", "json", "--output", &text])?;
    ensure!(output.status.success() && started.elapsed() >= Duration::from_millis(300));
    let last = String::from_utf8(output.stdout)?;
    let last: Value = serde_json::from_str(last.lines().last().context("no output")?)?;
    ensure!(last["kind"] == "summary" && last["run"]["duration_s"].as_f64() >= Some(0.3), "{last}");
    is_complete(&text)
}

/// The recording ends with a summary.
fn is_complete(path: &str) -> Result<()> {
    let text = fs::read_to_string(path)?;
    let last = text.lines().last().unwrap_or_default();
    let object = last.strip_prefix("#[latency-user] ").with_context(|| format!("{last:?}"))?;
    let object: Value = serde_json::from_str(object)?;
    ensure!(object["kind"] == "summary", "{object}");
    Ok(())
}

fn closed_pipe() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("run.hlog");
    let text = path.to_string_lossy().into_owned();
    let mut child = latency_user()?
        .args(["trace", "--interval", "50ms", "--format", "json", "--output", &text])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdout = BufReader::new(child.stdout.take().context("no standard output")?);
    stdout.read_line(&mut String::new())?;
    drop(stdout);
    let mut message = String::new();
    child.stderr.take().context("no standard error")?.read_to_string(&mut message)?;
    let status = child.wait()?;
    ensure!(status.success() && message.is_empty(), "{status}: {message}");
    is_complete(&text)
}

fn command_status() -> Result<()> {
    for (script, expected) in [("exit 37", 37), ("true", 0), ("kill -TERM $$", 128 + 15)] {
        let output = run(&["trace", "--format", "json", "--", "sh", "-c", script])?;
        ensure!(output.status.code() == Some(expected), "{script}: {output:?}");
        let text = String::from_utf8(output.stdout)?;
        ensure!(text.lines().last().is_some_and(|last| last.contains("\"summary\"")), "{text}");
    }
    refused(&run(&["trace", "--", "no-such-program"])?, 1, &["no-such-program"])
}

fn doctor() -> Result<()> {
    let (_directory, mut command) = for_everybody()?;
    let output = command.args(["doctor", "--format", "json"]).output()?;
    let found: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(output.status.code() == Some(3) && found["tried"] == false, "{output:?}");
    let stages = found["stages"].as_array().context("no stages")?;
    ensure!(stages.len() == 6, "{found}");

    // As root, doctor tries every method; the first that works is the one to use.
    let output = run(&["doctor", "--format", "json"])?;
    let found: Value = serde_json::from_slice(&output.stdout)?;
    for stage in found["stages"].as_array().context("no stages")? {
        let methods = stage["methods"].as_array().context("no methods")?;
        let first = methods.iter().find(|method| method["works"] == true);
        ensure!(first.map_or(&Value::Null, |m| &m["method"]) == &stage["would_use"], "{stage}");
        for method in methods.iter().filter(|method| method["works"] != true) {
            ensure!(method["notes"].as_array().is_some_and(|notes| !notes.is_empty()), "{method}");
        }
    }
    Ok(())
}

/// A method that works can be forced; any other is refused with doctor's reason.
fn methods() -> Result<()> {
    let output = run(&["doctor", "--format", "json"])?;
    let found: Value = serde_json::from_slice(&output.stdout)?;
    for stage in found["stages"].as_array().context("no stages")? {
        let name = stage["stage"].as_str().context("no name")?;
        for method in stage["methods"].as_array().context("no methods")? {
            let forced = method["method"].as_str().context("no method")?;
            let arguments = ["trace", "--stages", name, "--probes", forced, "--duration", "50ms"];
            let output = run(&arguments)?;
            if method["works"] == true {
                ensure!(output.status.success(), "{name} by {forced}: {output:?}");
            } else {
                let reason = method["notes"][0]["text"].as_str().context("no reason")?;
                refused(&output, 3, &[name, reason, "hint: ", "doctor"])?;
            }
        }
    }
    Ok(())
}

fn warnings() -> Result<()> {
    for (verbose, expected) in [(&["--verbose"][..], true), (&[], false)] {
        let message = namespace::run(|| {
            let arguments = [verbose, &["--slots", "1"]].concat();
            let tracing = Tracing::start_with_stderr(&arguments)?;
            // Three devices with one queue each, but only one slot.
            for _ in 0..3 {
                veth::make(1)?;
                let mut sender = veth::sender()?;
                for _ in 0..20 {
                    sender.send(1, 9)?;
                    std::thread::sleep(Duration::from_millis(20));
                }
                tool::run(&format!("ip link del {}", veth::RECEIVER))?;
            }
            tracing.stderr()
        })?;
        ensure!(message.contains("no slot is left for NAPI instance") == expected, "{message}");
    }
    Ok(())
}

/// The shell completions of `trace --iface `.
fn completion() -> Result<()> {
    namespace::run(|| {
        veth::make(1)?;
        let output = latency_user()?
            .env("COMPLETE", "bash")
            .env("_CLAP_COMPLETE_INDEX", "3")
            .env("_CLAP_COMPLETE_COMP_TYPE", "9")
            .env("_CLAP_COMPLETE_SPACE", "true")
            .env("_CLAP_IFS", "\n")
            .args(["--", "latency-user", "trace", "--iface", ""])
            .output()?;
        let names = String::from_utf8(output.stdout)?;
        for name in [veth::RECEIVER, veth::SENDER, "lo"] {
            ensure!(names.lines().any(|line| line == name), "{name}: {names:?}");
        }
        Ok(())
    })
}

fn table() -> Result<()> {
    for arguments in [&["trace", "--duration", "300ms", "--interval", "100ms"][..], &["doctor"]] {
        let output = run(arguments)?;
        ensure!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout)?;
        ensure!(!text.contains('\x1b'), "colour without a terminal: {text}");
        for line in text.lines() {
            ensure!(line.chars().count() <= 80, "{line:?}");
        }
    }
    let tracing = Tracing::start(&[])?;
    let summary = tracing.summary()?;
    ensure!(number(&summary, "schema_version")? == 2, "{summary}");
    Ok(())
}
