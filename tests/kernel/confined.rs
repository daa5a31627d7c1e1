//! After attaching, a tracer has given up what it does not need.

use std::{
    env,
    fs::{self, File, OpenOptions},
    io,
    path::Path,
    process::Command,
    thread,
};

use anyhow::{Context, Result, ensure};
use latency_tests::{namespace, tool};
use latency_user::kernel::{
    confine::{self, Task},
    single_instance::SingleInstance,
};
use libtest_mimic::Trial;

use crate::{
    experiment::{HARMLESS, experiment},
    suite::{Where, trial},
    tracing::{Tracing, for_everybody, latency_user},
};

/// Names the directory in which this program tries what it must not be able to do, instead of
/// running tests.
pub(crate) const TRIES_IN: &str = "LATENCY_CONFINED";

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    let everywhere = |name, body| trial(name, Where::Everywhere, &[], body);
    [
        everywhere("confined::a_tracer_keeps_few_capabilities", status),
        everywhere("confined::a_tracer_can_change_nothing", refused),
        everywhere("confined::another_run_directory_does_not_hide_a_tracer", elsewhere),
        everywhere("confined::missing_capabilities_are_named_by_experiment", unprivileged),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The value of a line of `/proc/PID/task/TID/status`.
pub(crate) fn value(status: &str, name: &str) -> Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    let line = line.with_context(|| format!("no {name}: {status}"))?;
    let radix = if name.starts_with("Cap") { 16 } else { 10 };
    Ok(u64::from_str_radix(line.trim(), radix)?)
}

fn status() -> Result<()> {
    let tracing = Tracing::start(&[])?;
    let process = format!("/proc/{}/task", tracing.id());
    let threads = fs::read_dir(&process)?.collect::<io::Result<Vec<_>>>()?;
    ensure!(threads.len() > 1, "no thread writes the output");
    let needed = Task::Trace { command: false }.needed();
    let allowed: u64 = needed.iter().map(|(capability, _)| 1 << capability.index()).sum();
    for thread in threads {
        let status = fs::read_to_string(thread.path().join("status"))?;
        let is_main = thread.file_name().to_string_lossy() == tracing.id().to_string();
        let most = if is_main { allowed } else { 0 };
        for set in ["CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"] {
            ensure!(value(&status, set)? & !most == 0, "{set}, at most {most:x}: {status}");
        }
        ensure!(value(&status, "NoNewPrivs")? == 1, "{status}");
        ensure!(value(&status, "Seccomp")? == 2, "{status}");
    }
    tracing.summary().map(drop)
}

fn refused() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let output = Command::new(env::current_exe()?).env(TRIES_IN, directory.path()).output()?;
    let text = String::from_utf8(output.stdout)?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {message}", output.status);
    let (last, attempts) = text.lines().collect::<Vec<_>>().split_last().map_or_else(
        || (String::new(), Vec::new()),
        |(last, rest)| ((*last).to_owned(), rest.iter().map(|line| (*line).to_owned()).collect()),
    );
    ensure!(last == "read what it needs: done" && attempts.len() == 12, "{text}");
    ensure!(attempts.iter().all(|attempt: &String| attempt.ends_with(": refused")), "{text}");
    ensure!(fs::read_to_string(directory.path().join("old"))? == "old");
    ensure!(directory.path().read_dir()?.count() == 1, "{:?}", directory.path().read_dir()?);
    Ok(())
}

fn elsewhere() -> Result<()> {
    let first = Tracing::start(&[])?;
    let output = namespace::run(|| {
        tool::run("mount -t tmpfs none /run")?;
        Ok(latency_user()?.args(["trace", "--duration", "1s"]).output()?)
    })?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(1) && message.contains("another latency-user"),
        "{message}"
    );
    first.summary().map(drop)
}

fn unprivileged() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (_copy, command) = for_everybody()?;
    let program = command.get_program().to_owned();
    let arguments: Vec<_> =
        experiment(directory.path(), HARMLESS)?.get_args().map(ToOwned::to_owned).collect();
    let cases: [(&[&str], &str); 3] =
        [(&[], "CAP_NET_ADMIN"), (&["--plan"], "CAP_BPF"), (&["--list"], "CAP_SYS_ADMIN")];
    for (instead, capability) in cases {
        let (_copy, mut command) = for_everybody()?;
        match instead {
            [] => command.args(&arguments),
            instead => command.arg("experiment").args(instead),
        };
        let output = command.output()?;
        let message = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(3) && message.contains(capability),
            "{program:?} {instead:?}: {}: {message}",
            output.status
        );
    }
    Ok(())
}

/// Something to try in a directory, by name.
type Attempt = (&'static str, fn(&Path) -> io::Result<()>);

/// Confines this process as `trace` is after attaching, then tries what it must not be able to do.
/// Prints a line for each attempt: its name and `refused` or `done`.
///
/// # Errors
///
/// When what a tracer has to do is refused.
#[expect(clippy::print_stdout, reason = "its output is what the test reads")]
pub(crate) fn attempts(directory: &Path) -> Result<()> {
    let old = directory.join("old");
    fs::write(&old, "old")?;
    confine::confine(Task::Trace { command: false })?;
    let attempts: [Attempt; 12] = [
        ("create a file", |there| File::create(there.join("new")).map(drop)),
        ("write a file", |there| OpenOptions::new().write(true).open(there.join("old")).map(drop)),
        ("append to a file", |there| {
            OpenOptions::new().append(true).open(there.join("old")).map(drop)
        }),
        ("remove a file", |there| fs::remove_file(there.join("old"))),
        ("rename a file", |there| fs::rename(there.join("old"), there.join("new"))),
        ("link a file", |there| fs::hard_link(there.join("old"), there.join("new"))),
        ("make a directory", |there| fs::create_dir(there.join("new"))),
        ("change a sysctl", |_| fs::write("/proc/sys/net/core/busy_poll", "0")),
        ("start a program", |_| Command::new("true").status().map(drop)),
        ("load a program", |_| {
            SingleInstance::claim().map(drop).map_err(|error| io::Error::other(error.to_string()))
        }),
        ("leave its namespaces", |_| {
            // SAFETY: touches no memory.
            match unsafe { libc::unshare(libc::CLONE_NEWNS) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        }),
        ("become another user", |_| {
            // SAFETY: touches no memory.
            match unsafe { libc::setuid(65_534) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        }),
    ];
    for (name, attempt) in attempts {
        let here = directory.to_owned();
        // Threads that start later are confined as well.
        let tried = thread::spawn(move || attempt(&here));
        let tried = tried.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        println!("{name}: {}", if tried.is_ok() { "done" } else { "refused" });
    }
    // What it still has to do.
    fs::read_to_string("/proc/interrupts").context("read /proc/interrupts")?;
    // This one has more capabilities, which is what makes it hard.
    let parent = std::os::unix::process::parent_id();
    let namespace = format!("/proc/{parent}/ns/net");
    fs::read_link(namespace).context("read the namespace of another process")?;
    println!("read what it needs: done");
    Ok(())
}
