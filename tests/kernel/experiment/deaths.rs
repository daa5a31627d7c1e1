//! Experiments that end early: by a signal, a crash during a write, a panic, a power loss, or
//! someone else's change.

use std::{
    fs::{self, File},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use latency_tests::{namespace, tool};
use serde_json::Value;

use super::{CHANGED_FIRST, HARMLESS, RMEM, Running, experiment, journals, kill, rmem};
use crate::tracing::{latency_user, wait_until};

pub(super) fn signals() -> Result<()> {
    const EVERYWHERE: [&str; 4] = ["window 1", "changed", "window 2", "put back"];
    let mut deaths = vec![(libc::SIGTERM, "window 2"), (libc::SIGHUP, "window 2")];
    for signal in [libc::SIGINT, libc::SIGKILL] {
        deaths.extend(EVERYWHERE.map(|step| (signal, step)));
    }
    namespace::run(|| {
        let before = rmem()?;
        for (signal, step) in deaths {
            let directory = tempfile::tempdir()?;
            let mut running = Running::start(&mut experiment(directory.path(), HARMLESS)?)?;
            running.wait_for(step)?;
            if step == "window 2" {
                ensure!(rmem()? == "4096 131072 4194304", "not changed in {step}: {}", rmem()?);
            }
            let watchdog = running.only_child()?;
            running.signal(signal)?;
            running.child.wait()?;
            let place = format!("signal {signal} in {step}");
            wait_until(&place, || Ok(!Path::new(&format!("/proc/{watchdog}")).exists()))?;
            ensure!(rmem()? == before, "{place}: {}", rmem()?);
            ensure!(
                journals(directory.path()).is_empty(),
                "{place}: {:?}",
                journals(directory.path())
            );
        }
        Ok(())
    })
}

/// An experiment under strace, which injects `fault` into system calls on the setting's file. The
/// watchdog is not traced.
fn faulty(directory: &Path, fault: &str) -> Result<Running> {
    let inner = experiment(directory, HARMLESS)?;
    let mut command = Command::new("strace");
    command.args(["-qq", "-o", "/dev/null", "-P", RMEM, "-e", fault, "--"]);
    command.arg(inner.get_program()).args(inner.get_args());
    Running::start(&mut command)
}

/// Waits until the watchdog has restored the setting and no journal is left.
fn wait_for_cleanup(directory: &Path, place: &str, before: &str) -> Result<()> {
    wait_until(place, || Ok(rmem()? == before && journals(directory).is_empty()))
}

/// Killed on entry to the first write, on entry to the write that restores, and between the first
/// write and reading it back.
pub(super) fn in_writes() -> Result<()> {
    namespace::run(|| {
        let before = rmem()?;
        for (at, last) in [(1, "window 1"), (2, "window 2")] {
            let directory = tempfile::tempdir()?;
            let mut running =
                faulty(directory.path(), &format!("inject=write:signal=KILL:when={at}"))?;
            running.wait_for(last)?;
            let status = running.child.wait()?;
            ensure!(status.signal() == Some(libc::SIGKILL), "write {at}: {status}");
            wait_for_cleanup(directory.path(), &format!("killed in write {at}"), &before)?;
        }
        let directory = tempfile::tempdir()?;
        let mut running = faulty(directory.path(), "inject=write:delay_exit=9000000:when=1")?;
        wait_until("the first write", || Ok(rmem()? != before))?;
        kill(running.only_child()?, libc::SIGKILL)?;
        running.child.wait()?;
        wait_for_cleanup(directory.path(), "killed before the value was read back", &before)
    })
}

/// An error from the sleep system call makes the standard library panic: it sleeps in short steps
/// while a change settles, for long enough to be traced on a slow machine.
pub(super) fn panic() -> Result<()> {
    namespace::run(|| {
        let before = rmem()?;
        let directory = tempfile::tempdir()?;
        let mut command = experiment(directory.path(), HARMLESS)?;
        command.args(["--window", "1s", "--settle", "60s", "--rounds", "1"]).args(CHANGED_FIRST);
        let mut running = Running::spawn(&mut command, Stdio::null())?;
        running.wait_for("changed")?;
        ensure!(rmem()? != before, "not changed");
        let mut tracer = Command::new("strace")
            .args(["-qq", "-o", "/dev/null", "-p", &running.child.id().to_string()])
            .args(["-e", "inject=nanosleep,clock_nanosleep:error=EINVAL"])
            .stdin(Stdio::null())
            .spawn()?;
        let message = running.rest()?;
        let ended = running.child.wait()?;
        tracer.wait()?;
        ensure!(ended.code() == Some(101), "it did not panic: {ended}: {message}");
        wait_for_cleanup(directory.path(), "a panic", &before)
    })
}

/// Stopped while the setting is changed: the watchdog puts it back, and the experiment says so when
/// it goes on.
pub(super) fn stopped() -> Result<()> {
    namespace::run(|| {
        let before = rmem()?;
        for signal in [libc::SIGSTOP, libc::SIGTSTP] {
            let directory = tempfile::tempdir()?;
            let out = directory.path().join("result");
            let mut command = experiment(directory.path(), HARMLESS)?;
            // SIGTSTP stops no process group whose parents are all in it, or gone.
            command.process_group(0);
            let mut running = Running::start_with(&mut command, File::create(&out)?.into())?;
            running.wait_for("window 2")?;
            ensure!(rmem()? != before, "not changed in window 2");
            running.signal(signal)?;
            wait_until("the watchdog", || Ok(rmem()? == before))?;
            // It is still there, and will put back what it may change again.
            running.only_child()?;
            running.signal(libc::SIGCONT)?;
            let status = running.child.wait()?;
            let found: Value = serde_json::from_str(&fs::read_to_string(&out)?)?;
            ensure!(status.code() == Some(1), "{status}");
            ensure!(found["conclusion"] == "interrupted", "{}", found["conclusion"]);
            ensure!(found["given_up"]["code"] == "put-back-by-watchdog", "{}", found["given_up"]);
            ensure!(rmem()? == before && journals(directory.path()).is_empty());
        }
        Ok(())
    })
}

/// A watchdog that is killed or stopped is replaced within the window, and the result is the same.
pub(super) fn watchdog() -> Result<()> {
    namespace::run(|| {
        let before = rmem()?;
        for signal in [libc::SIGKILL, libc::SIGSTOP] {
            for step in ["window 1", "window 2", "put back"] {
                let place = format!("signal {signal} in {step}");
                let directory = tempfile::tempdir()?;
                let out = directory.path().join("result");
                let mut command = experiment(directory.path(), HARMLESS)?;
                let mut running = Running::start_with(&mut command, File::create(&out)?.into())?;
                running.wait_for(step)?;
                kill(running.only_child()?, signal)?;
                running.wait_for("replaces it").context(place.clone())?;
                running.end().context(place.clone())?;
                let found: Value = serde_json::from_str(&fs::read_to_string(&out)?)?;
                ensure!(found["conclusion"] != "interrupted", "{place}");
                ensure!(directory.path().join("out/report.html").exists(), "{place}");
                ensure!(rmem()? == before && journals(directory.path()).is_empty(), "{place}");
            }
            // The one that replaces it works.
            let directory = tempfile::tempdir()?;
            let mut running = Running::start(&mut experiment(directory.path(), HARMLESS)?)?;
            running.wait_for("window 2")?;
            kill(running.only_child()?, signal)?;
            running.wait_for("replaces it")?;
            running.signal(libc::SIGKILL)?;
            running.child.wait()?;
            wait_for_cleanup(directory.path(), "the second watchdog", &before)?;
        }
        Ok(())
    })
}

/// One experiment is killed while it syncs its journal; another's journal is truncated, as by a
/// power loss. Neither has changed a setting, and neither blocks the next experiment.
pub(super) fn torn() -> Result<()> {
    namespace::run(|| {
        let before = rmem()?;
        let directory = tempfile::tempdir()?;
        let inner = experiment(directory.path(), HARMLESS)?;
        let status = Command::new("strace")
            .args(["-qq", "-o", "/dev/null", "-e", "inject=fsync:signal=KILL:when=1", "--"])
            .arg(inner.get_program())
            .args(inner.get_args())
            .stderr(Stdio::null())
            .status()?;
        ensure!(status.signal() == Some(libc::SIGKILL), "in the journal's write: {status}");
        let names = journals(directory.path());
        ensure!(names.iter().all(|name| name.ends_with(".unfinished")), "{names:?}");
        ensure!(names.len() == 1 && rmem()? == before, "{names:?}, {}", rmem()?);

        let state = directory.path().join("state");
        let mut running = Running::start(&mut experiment(directory.path(), HARMLESS)?)?;
        running.wait_for("window 1")?;
        let is_complete = |name: &String| name.ends_with(".journal");
        let name =
            journals(directory.path()).into_iter().find(is_complete).context("no journal")?;
        let complete = fs::read(state.join(name))?;
        running.signal(libc::SIGTERM)?;
        running.child.wait()?;
        fs::write(state.join("1-1.journal"), &complete[..complete.len() / 2])?;
        let undone =
            latency_user()?.args(["experiment", "--undo", "--state"]).arg(&state).output()?;
        let message = String::from_utf8_lossy(&undone.stdout);
        ensure!(undone.status.success() && message.contains("torn"), "{message}");
        ensure!(rmem()? == before && !journals(directory.path()).iter().any(is_complete));
        Ok(())
    })
}

/// Kills the watchdog too, as a power loss would. Uses the default directory, so that other
/// commands report the leftover journal.
pub(super) fn undo() -> Result<()> {
    namespace::run(|| {
        // Hides the machine's own journals, and leaves nothing in their directory.
        tool::run("mount -t tmpfs none /var/lib")?;
        let before = rmem()?;
        let directory = tempfile::tempdir()?;
        let mut command = latency_user()?;
        command.args(["experiment", "--set", HARMLESS, "--output"]).arg(directory.path());
        let mut running = Running::start(&mut command)?;
        running.wait_for("window 2")?;
        kill(running.only_child()?, libc::SIGKILL)?;
        running.signal(libc::SIGKILL)?;
        running.child.wait()?;
        ensure!(rmem()? != before, "it was restored although watchdog and experiment were killed");

        let refused = latency_user()?
            .args(["experiment", "--set", HARMLESS, "--output"])
            .arg(directory.path())
            .output()?;
        let message = String::from_utf8_lossy(&refused.stderr);
        ensure!(refused.status.code() == Some(1) && message.contains("--undo"), "{message}");
        let doctor = latency_user()?.args(["doctor"]).output()?;
        let message = String::from_utf8_lossy(&doctor.stderr);
        ensure!(message.contains("did not end") && message.contains("--undo"), "{message}");

        let undone = latency_user()?.args(["experiment", "--undo"]).output()?;
        ensure!(undone.status.success(), "{}", String::from_utf8_lossy(&undone.stderr));
        ensure!(rmem()? == before, "{}", rmem()?);
        let again = latency_user()?.args(["experiment", "--undo"]).output()?;
        ensure!(String::from_utf8_lossy(&again.stdout).contains("nothing to undo"));
        Ok(())
    })
}

pub(super) fn foreign() -> Result<()> {
    namespace::run(|| {
        let directory = tempfile::tempdir()?;
        let mut running = Running::start(&mut experiment(directory.path(), HARMLESS)?)?;
        running.wait_for("window 2")?;
        let second = experiment(directory.path(), HARMLESS)?.output()?;
        ensure!(second.status.code() == Some(1), "a second experiment: {}", second.status);
        fs::write(RMEM, "4096 100000 200000")?;
        running.wait_for("which this experiment did not set")?;
        ensure!(running.child.wait()?.code() == Some(1));
        ensure!(rmem()? == "4096 100000 200000", "{}", rmem()?);
        ensure!(journals(directory.path()).is_empty());
        Ok(())
    })
}
