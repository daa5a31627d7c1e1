//! The daemon where things go wrong, and where it is asked much: it goes on, or nothing is left of it
//! but what it kept.

use std::{
    ffi::CString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use latency_tests::{load, namespace, tool};
use libtest_mimic::Trial;

use crate::{
    serve::{Daemon, recorded},
    soak::{held, programs},
    suite::{Where, trial},
    tracing::{Tracing, latency_user, wait_until},
};

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    let host = |name, tools: &[&str], body| trial(name, Where::Host, tools, body);
    [
        host("endurance::a_stopped_daemon_goes_on", &[], stopped),
        host("endurance::a_full_disk_costs_what_is_said", &[], full),
        host("endurance::no_memory_leaves_a_readable_ring", &[], no_memory),
        host("endurance::scrapes_and_clients_leave_memory_flat", &[], many),
        host("endurance::three_capabilities_are_enough", &["setpriv"], few_capabilities),
        host("endurance::no_capability_is_left_if_none_is_wanted", &[], no_capability),
        trial("endurance::a_step_of_the_clock_tears_nothing", Where::Vm, &[], clock),
        trial("endurance::a_cpu_that_comes_online_is_told", Where::Vm, &[], hotplug),
    ]
    .into_iter()
    .flatten()
    .collect()
}

const RUNS: &str = "latency_user_net_rx_duration_seconds_count";
const INTERVALS: &str = "latency_user_intervals_total";
const MISSING: &str = "latency_user_ring_intervals_missing_total";

fn stopped() -> Result<()> {
    namespace::run(|| {
        let daemon = Daemon::start(&[])?;
        load::udp(5003)?;
        daemon.signal(libc::SIGSTOP);
        load::udp(5003)?;
        thread::sleep(Duration::from_secs(3));
        daemon.signal(libc::SIGCONT);
        let intervals = daemon.metric(INTERVALS)?;
        wait_until("intervals", || Ok(daemon.metric(INTERVALS)? > intervals + 3.0))?;
        let answer = daemon.get("/healthz")?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let (answer, _hold) = daemon.ask(r#"{"request":"pause"}"#)?;
        ensure!(answer["error"].is_null(), "{answer}");
        let told = daemon.metric(RUNS)?;
        ensure!(daemon.metric("latency_user_ledger_balanced")? == 1.0, "not balanced");
        let ring = daemon.at("state").join("ring");
        let _directory = daemon.end()?;
        let count = recorded(&ring)?.count();
        ensure!(told == count as f64 && count > 5003, "{told} told, {count} recorded");
        Ok(())
    })
}

/// A file system of its own in this mount namespace.
fn mount_tmpfs(at: &Path, bytes: u64) -> Result<()> {
    let text = |text: &str| CString::new(text).context("a path with a NUL");
    let (kind, target) = (text("tmpfs")?, text(&at.to_string_lossy())?);
    let options = text(&format!("size={bytes}"))?;
    // SAFETY: NUL-terminated strings, in the mount namespace of this thread.
    let mounted = unsafe {
        libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, options.as_ptr().cast())
    };
    ensure!(mounted == 0, "mount a tmpfs: {}", std::io::Error::last_os_error());
    Ok(())
}

/// Complete intervals in the segments of a ring.
fn intervals_in(ring: &Path) -> Result<usize> {
    let mut sum = 0;
    for segment in fs::read_dir(ring)? {
        let text = fs::read_to_string(segment?.path())?;
        sum += text.matches("\"kind\":\"interval\"").count();
    }
    Ok(sum)
}

fn full() -> Result<()> {
    namespace::run(|| {
        let place = tempfile::tempdir()?;
        mount_tmpfs(place.path(), 2 << 20)?;
        let filler = place.path().join("filler");
        fs::write(&filler, vec![1; (2 << 20) - (160 << 10)])?;
        let directory = tempfile::tempdir_in(place.path())?;
        // Stalls need room.
        let daemon = Daemon::start_in(directory, &["--threshold", "10us"])?;
        wait_until("a full disk", || {
            load::udp(503)?;
            Ok(daemon.metric(MISSING)? > 4.0)
        })?;
        let answer = daemon.get("/healthz")?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let page = daemon.get("/")?;
        ensure!(page.contains("Intervals are not kept"), "the page does not say it");
        load::udp(1009)?;
        fs::remove_file(&filler)?;
        wait_until("space to be used", || {
            let before = (daemon.metric(MISSING)?, daemon.metric(INTERVALS)?);
            thread::sleep(Duration::from_millis(500));
            let after = (daemon.metric(MISSING)?, daemon.metric(INTERVALS)?);
            Ok(after.0 == before.0 && after.1 > before.1)
        })?;
        load::udp(1009)?;
        let (answer, _hold) = daemon.ask(r#"{"request":"pause"}"#)?;
        ensure!(answer["error"].is_null(), "{answer}");
        let (missing, intervals) = (daemon.metric(MISSING)?, daemon.metric(INTERVALS)?);
        let ring = daemon.at("state").join("ring");
        let _directory = daemon.end()?;
        let kept = intervals_in(&ring)?;
        // The oldest segment may have gone for the newest intervals.
        ensure!(
            kept > 0 && kept as f64 + missing <= intervals,
            "{kept} kept, {missing} missing of {intervals} intervals"
        );
        ensure!(recorded(&ring)?.count() > 1009 / 2, "nothing was kept after it");
        Ok(())
    })
}

/// A control group with a limit of memory. Removed when this is dropped.
struct Group {
    path: PathBuf,
    limit: &'static str,
    usage: &'static str,
}

impl Group {
    fn new() -> Result<Self> {
        let name = format!("latency-user-test-{}", std::process::id());
        let (root, limit, usage) = match Path::new("/sys/fs/cgroup/memory").is_dir() {
            true => {
                let names = ("memory.limit_in_bytes", "memory.usage_in_bytes");
                ("/sys/fs/cgroup/memory", names.0, names.1)
            }
            false => {
                let root = "/sys/fs/cgroup";
                // Enabled already, as a rule.
                let _ = fs::write(format!("{root}/cgroup.subtree_control"), "+memory");
                (root, "memory.max", "memory.current")
            }
        };
        let path = Path::new(root).join(name);
        fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self { path, limit, usage })
    }

    fn add(&self, process: u32) -> Result<()> {
        fs::write(self.path.join("cgroup.procs"), process.to_string()).context("cgroup.procs")
    }

    fn usage(&self) -> Result<u64> {
        Ok(fs::read_to_string(self.path.join(self.usage))?.trim().parse()?)
    }

    fn set_limit(&self, bytes: u64) -> Result<()> {
        fs::write(self.path.join(self.limit), bytes.to_string()).context(self.limit)
    }

    fn kills(&self) -> Result<u64> {
        let files = ["memory.oom_control", "memory.events"];
        let text = files.iter().find_map(|file| fs::read_to_string(self.path.join(file)).ok());
        let text = text.context("no count of kills")?;
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        Ok(line.context("no oom_kill")?.trim().parse()?)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its processes may take a moment to end.
        for _ in 0..100 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn no_memory() -> Result<()> {
    let group = Group::new()?;
    let before = programs();
    let mut daemon = Daemon::start(&[])?;
    group.add(daemon.id())?;
    namespace::run(|| load::udp(1009))?;
    wait_until("intervals", || Ok(daemon.metric(INTERVALS)? > 20.0))?;
    let expected = daemon.metric(RUNS)?;
    // What it used before it was moved is charged elsewhere.
    group.set_limit(group.usage()? + (256 << 10))?;
    let status = loop {
        // The page needs more than that. It may be the request that kills.
        let _ = daemon.get("/");
        if let Some(status) = daemon.ended()? {
            break status;
        }
        ensure!(group.usage()? < 1 << 30, "it was not killed");
    };
    ensure!(group.kills()? >= 1, "ended by something else: {status}");
    wait_until("programs to go", || Ok(programs() == before))?;
    let count = recorded(&daemon.at("state").join("ring"))?.count();
    ensure!(count as f64 >= expected, "{count} of {expected} recorded");
    Tracing::start(&[])?.summary().map(drop)
}

/// Scrapes and clients before memory is looked at first, and after it.
const SCRAPES: [usize; 2] = [1000, 9000];
const CLIENTS: [usize; 2] = [100, 900];

fn many() -> Result<()> {
    namespace::run(|| {
        let daemon = Daemon::start(&["--labels", "cpu"])?;
        load::udp(5003)?;
        wait_until("runs", || Ok(daemon.metric(RUNS).is_ok()))?;
        let ask = |round: usize| -> Result<()> {
            for _ in 0..SCRAPES[round] {
                daemon.metric(RUNS)?;
            }
            for _ in 0..CLIENTS[round] {
                let (answer, _stream) = daemon.ask(r#"{"request":"follow"}"#)?;
                ensure!(answer["error"].is_null(), "{answer}");
            }
            wait_until("clients to leave", || Ok(daemon.metric("latency_user_clients")? == 0.0))
        };
        ask(0)?;
        let early = held(daemon.id())?;
        ask(1)?;
        let late = held(daemon.id())?;
        ensure!(late.descriptors <= early.descriptors + 2, "{early:?}, {late:?}");
        ensure!(late.resident_kib <= early.resident_kib + 8192, "{early:?}, {late:?}");
        ensure!(daemon.metric("latency_user_clients_cut_off_total")? == 0.0, "cut off");
        daemon.end().map(drop)
    })
}

/// What the container of the Kubernetes manifest is given, and how it starts the program.
fn manifest() -> Result<(Vec<String>, Vec<String>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/kubernetes/daemonset.yaml");
    let text = fs::read_to_string(path)?;
    let list = |key: &str| -> Result<Vec<String>> {
        let (_, rest) = text.split_once(key).with_context(|| format!("no {key}"))?;
        let (list, _) = rest.split_once(']').context("no list")?;
        serde_json::from_str(&format!("{list}]")).with_context(|| list.to_owned())
    };
    Ok((list("add: ")?, list("args: ")?))
}

fn few_capabilities() -> Result<()> {
    let (capabilities, arguments) = manifest()?;
    ensure!(capabilities == ["BPF", "PERFMON", "SYSLOG"], "{capabilities:?}");
    let output = latency_user()?.args(&arguments).arg("--check").output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ensure!(arguments.contains(&"none".to_owned()), "{arguments:?}");
    let program = latency_user()?.get_program().to_owned();
    namespace::run(|| {
        // As a container's root: all that is left is the bounding set. By number: older tools do not
        // know the names.
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-all,+cap_39,+cap_38,+cap_34", "--no-new-privs"]);
        command.arg(program);
        let directory = tempfile::tempdir()?;
        let daemon = Daemon::start_as(command, directory, &["--max-overhead", "none"])?;
        load::udp(5003)?;
        let path = latency_user()?
            .args(["dump", "--last", "1m", "--reason", "a test", "--socket", &daemon.socket()])
            .output()?;
        ensure!(path.status.success(), "{}", String::from_utf8_lossy(&path.stderr));
        let status = fs::read_to_string(format!("/proc/{}/status", daemon.id()))?;
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:\t"));
        let effective = u64::from_str_radix(effective.context("no CapEff")?, 16)?;
        let allowed = 1 << 39 | 1 << 38 | 1 << 34;
        ensure!(effective & !allowed == 0, "{effective:x}");
        ensure!(daemon.metric(RUNS)? > 5003.0 / 2.0, "too few runs");
        ensure!(daemon.metric("latency_user_ledger_balanced")? == 1.0, "not balanced");
        daemon.end().map(drop)
    })
}

fn no_capability() -> Result<()> {
    namespace::run(|| {
        let refused = latency_user()?.args(["serve", "--give-up-privileges"]).output()?;
        let message = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(message.contains("--max-overhead none"), "{message}");
        let daemon = Daemon::start(&["--give-up-privileges", "--max-overhead", "none"])?;
        for thread in fs::read_dir(format!("/proc/{}/task", daemon.id()))? {
            // A thread may end in between.
            let Ok(status) = fs::read_to_string(thread?.path().join("status")) else { continue };
            for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                let none = format!("\n{set}:\t0000000000000000\n");
                ensure!(status.contains(&none), "{set}: {status}");
            }
            ensure!(status.contains("\nNoNewPrivs:\t1\n"), "{status}");
        }
        let socket = daemon.socket();
        let tracing = Tracing::start(&["--socket", &socket])?;
        load::udp(5003)?;
        let summary = tracing.summary()?;
        ensure!(summary["ledger"]["balanced"] == true, "{}", summary["ledger"]);
        ensure!(daemon.metric(RUNS)? > 5003.0 / 2.0, "too few runs");
        ensure!(daemon.metric("latency_user_ledger_balanced")? == 1.0, "not balanced");
        let dump = latency_user()?
            .args(["dump", "--last", "1m", "--reason", "a test", "--socket", &socket])
            .output()?;
        ensure!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
        let (answer, _) = daemon.ask(r#"{"request":"pause"}"#)?;
        let error = answer["error"].as_str().context("it paused")?;
        ensure!(error.contains("given up its privileges"), "{error}");
        daemon.end().map(drop)
    })
}

/// Sets the clock of this virtual machine.
fn step(seconds: i64) -> Result<()> {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both calls take one structure of this function.
    let set = unsafe {
        libc::clock_gettime(libc::CLOCK_REALTIME, &mut now);
        now.tv_sec += seconds;
        libc::clock_settime(libc::CLOCK_REALTIME, &now)
    };
    ensure!(set == 0, "set the clock: {}", std::io::Error::last_os_error());
    Ok(())
}

fn clock() -> Result<()> {
    namespace::run(|| {
        let daemon = Daemon::start(&[])?;
        for seconds in [0, 7200, -9000, 1800] {
            step(seconds)?;
            load::udp(503)?;
            let intervals = daemon.metric(INTERVALS)?;
            wait_until("intervals", || Ok(daemon.metric(INTERVALS)? > intervals + 5.0))?;
            // Begins a new segment.
            let dump = latency_user()?
                .args(["dump", "--last", "15m", "--reason", "a test"])
                .args(["--socket", &daemon.socket()])
                .output()?;
            let path = String::from_utf8_lossy(&dump.stdout).trim().to_owned();
            ensure!(dump.status.success(), "{dump:?}");
            let report = latency_user()?.args(["report", "--format", "json", &path]).output()?;
            ensure!(report.status.success(), "{report:?}");
        }
        let (answer, _hold) = daemon.ask(r#"{"request":"pause"}"#)?;
        ensure!(answer["error"].is_null(), "{answer}");
        let (told, intervals) = (daemon.metric(RUNS)?, daemon.metric(INTERVALS)?);
        ensure!(daemon.metric(MISSING)? == 0.0, "intervals are missing");
        let ring = daemon.at("state").join("ring");
        let _directory = daemon.end()?;
        let (kept, count) = (intervals_in(&ring)?, recorded(&ring)?.count());
        ensure!(kept as f64 == intervals, "{kept} of {intervals} intervals");
        ensure!(count as f64 == told, "{count} of {told} runs");
        Ok(())
    })
}

fn hotplug() -> Result<()> {
    let online = Path::new("/sys/devices/system/cpu/cpu1/online");
    fs::write(online, "0").context("take a CPU offline")?;
    let tracing = Tracing::start(&[]);
    fs::write(online, "1").context("take a CPU online")?;
    let mut tracing = tracing?;
    tool::run("true")?;
    let is_told = |notes: &serde_json::Value| {
        let mut notes = notes.as_array().into_iter().flatten();
        notes.any(|note| note["code"] == "cpus-not-sampled" && note["cpus"][0] == 1)
    };
    // The next interval sees it.
    for _ in 0..5 {
        tracing.next_interval()?;
    }
    let summary = tracing.summary()?;
    ensure!(is_told(&summary["run"]["sampling"]["notes"]), "{}", summary["run"]["sampling"]);
    ensure!(summary["ledger"]["balanced"] == true, "{}", summary["ledger"]);
    Ok(())
}
