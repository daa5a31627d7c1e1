//! Experiments on real settings in private network namespaces: their conclusions, and that the
//! original value is back however they end.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
};

use anyhow::{Context, Result, ensure};
use latency_tests::{load, namespace, tool, veth};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    suite::{Where, trial},
    tracing::{latency_user, wait_until},
};

const RMEM: &str = "/proc/sys/net/ipv4/tcp_rmem";
/// A setting that no traffic here cares for.
const HARMLESS: &str = "sysctl:net.ipv4.tcp_rmem=4096 131072 4194304";

/// The trials of this file.
pub(crate) fn trials() -> Vec<Trial> {
    let host = |name, tools: &[&str], body| trial(name, Where::Host, tools, body);
    [
        host("experiment::the_case_study_improves_and_names_its_culprit", &["ip"], improves),
        host("experiment::what_makes_it_worse_is_put_back_with_status_4", &["ip"], worsens),
        host("experiment::the_same_value_makes_no_difference", &["ip"], same),
        host("experiment::every_death_puts_the_setting_back", &["ip"], deaths),
        host("experiment::undo_puts_back_what_no_watchdog_did", &["ip"], undo),
        host("experiment::what_someone_else_set_stays", &["ip"], foreign),
        host("experiment::tunings_as_other_tools_read_them", &["ip", "ethtool", "sysctl"], tunings),
        host("experiment::values_out_of_bounds_are_refused", &["ip"], bounds),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// An experiment with short windows, its state and recordings in `folder`.
pub(crate) fn experiment(folder: &Path, setting: &str) -> Result<Command> {
    let mut command = latency_user()?;
    command.args(["experiment", "--format", "json", "--set", setting]);
    command.arg("--state").arg(folder.join("state")).arg("--output").arg(folder.join("out"));
    Ok(command)
}

/// Runs an experiment beside the load of the case and returns its status and result.
fn beside(command: &Command) -> Result<(ExitStatus, Value)> {
    let load = env::var_os("TCP_COLLAPSE_LOAD").context("TCP_COLLAPSE_LOAD is not set")?;
    let mut whole = Command::new(load);
    whole.arg("beside").arg(command.get_program()).args(command.get_args());
    result(&mut whole)
}

pub(crate) fn result(command: &mut Command) -> Result<(ExitStatus, Value)> {
    let output = command.stdin(Stdio::null()).output().context("run an experiment")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let found = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{}: {said}", output.status))?;
    Ok((output.status, found))
}

fn rmem() -> Result<String> {
    Ok(fs::read_to_string(RMEM)?.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn improves() -> Result<()> {
    namespace::run(|| {
        let folder = tempfile::tempdir()?;
        let mut command =
            experiment(folder.path(), &format!("sysctl:net.ipv4.tcp_rmem={}", load::SMALL_RMEM))?;
        command.args(["--window", "4s", "--settle", "3s", "--rounds", "2", "--threshold", "4ms"]);
        let (status, found) = beside(&command)?;
        ensure!(status.success() && found["conclusion"] == "improved", "{status}: {found}");
        ensure!(found["setting"] == "original", "{found}");
        let culprits = found["culprits"].as_array().context("no culprits")?;
        ensure!(culprits.iter().any(|one| one["function"] == "tcp_collapse"), "{culprits:?}");
        ensure!(rmem()? == load::LARGE_RMEM, "{}", rmem()?);
        let page = fs::read_to_string(folder.path().join("out/report.html"))?;
        ensure!(page.contains("tcp_collapse"), "the page does not name the culprit");
        Ok(())
    })
}

fn worsens() -> Result<()> {
    namespace::run(|| {
        let folder = tempfile::tempdir()?;
        let inner =
            experiment(folder.path(), &format!("sysctl:net.ipv4.tcp_rmem={}", load::LARGE_RMEM))?;
        // The load begins with the large buffers; connections of that time are gone after 2 s.
        let first = format!("echo {} > {RMEM}; sleep 3; exec \"$@\"", load::SMALL_RMEM);
        let mut command = Command::new("sh");
        command.args(["-c", &first, "sh"]).arg(inner.get_program()).args(inner.get_args());
        command.args(["--window", "4s", "--settle", "3s", "--rounds", "2", "--threshold", "4ms"]);
        let (status, found) = beside(&command)?;
        ensure!(status.code() == Some(4) && found["conclusion"] == "worse", "{status}: {found}");
        ensure!(found["setting"] == "original", "{found}");
        ensure!(rmem()? == load::SMALL_RMEM, "{}", rmem()?);
        Ok(())
    })
}

fn same() -> Result<()> {
    namespace::run(|| {
        let folder = tempfile::tempdir()?;
        let before = rmem()?;
        let mut command = experiment(folder.path(), &format!("sysctl:net.ipv4.tcp_rmem={before}"))?;
        command.args(["--window", "2s", "--settle", "100ms", "--rounds", "2"]);
        let (status, found) = result(&mut command)?;
        ensure!(status.success() && found["conclusion"] == "no_difference_shown", "{found}");
        ensure!(rmem()? == before, "{}", rmem()?);
        Ok(())
    })
}

/// An experiment under way that is watched through its progress.
pub(crate) struct Running {
    pub(crate) child: Child,
    lines: BufReader<ChildStderr>,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        command.args(["--window", "1s", "--settle", "200ms", "--rounds", "1"]);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let lines = BufReader::new(child.stderr.take().context("its progress")?);
        Ok(Self { child, lines })
    }

    /// Waits until it says `word`.
    pub(crate) fn wait_for(&mut self, word: &str) -> Result<()> {
        let mut said = String::new();
        while !said.lines().last().unwrap_or_default().contains(word) {
            ensure!(self.lines.read_line(&mut said)? > 0, "{word:?} was never said: {said}");
        }
        Ok(())
    }

    /// Waits until it ends with a conclusion, whatever that is on a machine without load.
    pub(crate) fn end(mut self) -> Result<()> {
        let mut said = String::new();
        self.lines.read_to_string(&mut said)?;
        let status = self.child.wait()?;
        ensure!(matches!(status.code(), Some(0 | 4)), "{status}: {said}");
        Ok(())
    }

    /// Its watchdog.
    pub(crate) fn watchdog(&self) -> Result<i32> {
        let path = format!("/proc/{0}/task/{0}/children", self.child.id());
        let children = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        children.trim().parse().with_context(|| format!("one child, found {children:?}"))
    }

    pub(crate) fn signal(&self, signal: i32) -> Result<()> {
        kill(self.child.id() as i32, signal)
    }
}

pub(crate) fn kill(process: i32, signal: i32) -> Result<()> {
    // SAFETY: touches no memory; the process is a child, or a child's, that was not waited for.
    let sent = unsafe { libc::kill(process, signal) };
    ensure!(sent == 0, "signal {signal}: {}", std::io::Error::last_os_error());
    Ok(())
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn journals(folder: &Path) -> Vec<String> {
    let entries = folder.join("state").read_dir().into_iter().flatten().filter_map(Result::ok);
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name != "lock").collect()
}

fn deaths() -> Result<()> {
    const EVERYWHERE: [&str; 4] = ["window 1", "changed", "window 2", "put back"];
    let mut deaths = vec![(libc::SIGTERM, "window 2"), (libc::SIGHUP, "window 2")];
    for signal in [libc::SIGINT, libc::SIGKILL] {
        deaths.extend(EVERYWHERE.map(|step| (signal, step)));
    }
    namespace::run(|| {
        let before = rmem()?;
        for (signal, step) in deaths {
            let folder = tempfile::tempdir()?;
            let mut running = Running::start(&mut experiment(folder.path(), HARMLESS)?)?;
            running.wait_for(step)?;
            if step == "window 2" {
                ensure!(rmem()? == "4096 131072 4194304", "not changed in {step}: {}", rmem()?);
            }
            let watchdog = running.watchdog()?;
            running.signal(signal)?;
            running.child.wait()?;
            let place = format!("signal {signal} in {step}");
            wait_until(&place, || Ok(!Path::new(&format!("/proc/{watchdog}")).exists()))?;
            ensure!(rmem()? == before, "{place}: {}", rmem()?);
            ensure!(journals(folder.path()).is_empty(), "{place}: {:?}", journals(folder.path()));
        }
        Ok(())
    })
}

/// Not even the watchdog is left, as after a loss of power. The usual folder is used, so that
/// another command can tell of it.
fn undo() -> Result<()> {
    namespace::run(|| {
        // The machine's own journals are out of reach, and nothing stays among them.
        tool::run("mount -t tmpfs none /var/lib")?;
        let before = rmem()?;
        let folder = tempfile::tempdir()?;
        let mut command = latency_user()?;
        command.args(["experiment", "--set", HARMLESS, "--output"]).arg(folder.path());
        let mut running = Running::start(&mut command)?;
        running.wait_for("window 2")?;
        kill(running.watchdog()?, libc::SIGKILL)?;
        running.signal(libc::SIGKILL)?;
        running.child.wait()?;
        ensure!(rmem()? != before, "it was put back without anyone left to do it");

        let refused = latency_user()?
            .args(["experiment", "--set", HARMLESS, "--output"])
            .arg(folder.path())
            .output()?;
        let said = String::from_utf8_lossy(&refused.stderr);
        ensure!(refused.status.code() == Some(1) && said.contains("--undo"), "{said}");
        let told = latency_user()?.args(["doctor"]).output()?;
        let said = String::from_utf8_lossy(&told.stderr);
        ensure!(said.contains("did not end") && said.contains("--undo"), "{said}");

        let undone = latency_user()?.args(["experiment", "--undo"]).output()?;
        ensure!(undone.status.success(), "{}", String::from_utf8_lossy(&undone.stderr));
        ensure!(rmem()? == before, "{}", rmem()?);
        let again = latency_user()?.args(["experiment", "--undo"]).output()?;
        ensure!(String::from_utf8_lossy(&again.stdout).contains("nothing to undo"));
        Ok(())
    })
}

fn foreign() -> Result<()> {
    namespace::run(|| {
        let folder = tempfile::tempdir()?;
        let mut running = Running::start(&mut experiment(folder.path(), HARMLESS)?)?;
        running.wait_for("window 2")?;
        let second = experiment(folder.path(), HARMLESS)?.output()?;
        ensure!(second.status.code() == Some(1), "a second experiment: {}", second.status);
        fs::write(RMEM, "4096 100000 200000")?;
        running.wait_for("which this experiment did not set")?;
        ensure!(running.child.wait()?.code() == Some(1));
        ensure!(rmem()? == "4096 100000 200000", "{}", rmem()?);
        ensure!(journals(folder.path()).is_empty());
        Ok(())
    })
}

fn tunings() -> Result<()> {
    namespace::run(|| {
        veth::make(2)?;
        let folder = tempfile::tempdir()?;
        let device = format!("/sys/class/net/{}", veth::RECEIVER);
        let cat = |file: &str| -> Result<String> {
            Ok(tool::run(&format!("cat {device}/{file}"))?.trim().to_owned())
        };
        let files = [
            ("rps:va/1=0", "queues/rx-1/rps_cpus"),
            ("xps:va/0=0", "queues/tx-0/xps_cpus"),
            ("napi_defer_hard_irqs:va=3", "napi_defer_hard_irqs"),
            ("gro_flush_timeout:va=20000", "gro_flush_timeout"),
            ("threaded:va=1", "threaded"),
        ];
        let read = || files.iter().map(|(_, file)| cat(file)).collect::<Result<Vec<_>>>();
        let before = read()?;
        let mut command = experiment(folder.path(), HARMLESS)?;
        command.args(["--iface", veth::RECEIVER]);
        files.iter().for_each(|(setting, _)| {
            command.args(["--set", setting]);
        });
        let disk = free_loop_device()?;
        let scheduler = || tool::run(&format!("cat /sys/block/{disk}/queue/scheduler"));
        let scheduler_before = scheduler()?;
        command.args(["--set", &format!("scheduler:{disk}=mq-deadline")]);
        let mut running = Running::start(&mut command)?;
        running.wait_for("window 2")?;
        ensure!(scheduler()?.contains("[mq-deadline]"), "{}", scheduler()?);
        let numbers = |texts: Vec<String>| -> Result<Vec<u64>> {
            texts.iter().map(|text| Ok(u64::from_str_radix(&text.replace(',', ""), 16)?)).collect()
        };
        // Masks are hexadecimal; the decimal ones are read as what they look like.
        ensure!(numbers(read()?)? == [1, 1, 3, 0x20000, 1], "{:?}", read()?);
        let rmem = tool::run("sysctl -n net.ipv4.tcp_rmem")?;
        ensure!(rmem.split_whitespace().eq(["4096", "131072", "4194304"]), "{rmem}");
        running.wait_for("put back")?;
        ensure!(read()? == before, "{:?}, {before:?} before", read()?);
        ensure!(scheduler()? == scheduler_before, "{}", scheduler()?);
        running.child.wait()?;
        Ok(())
    })
}

/// A loop device that nobody uses: its scheduler has nothing to schedule.
fn free_loop_device() -> Result<String> {
    let disks = Path::new("/sys/block").read_dir()?.filter_map(Result::ok);
    let mut names = disks.map(|disk| disk.file_name().to_string_lossy().into_owned());
    let is_free = |name: &String| {
        let folder = Path::new("/sys/block").join(name);
        let scheduler = fs::read_to_string(folder.join("queue/scheduler")).unwrap_or_default();
        name.starts_with("loop")
            && !folder.join("loop").exists()
            && scheduler.contains("mq-deadline")
            && !scheduler.contains("[mq-deadline]")
    };
    names.find(is_free).context("no loop device is free")
}

fn bounds() -> Result<()> {
    namespace::run(|| {
        veth::make(1)?;
        let before = rmem()?;
        for setting in [
            "sysctl:net.ipv4.tcp_rmem=4096 9 8",
            "sysctl:net.ipv4.no_such=1",
            "rps:va/7=0",
            "rps:va/0=4095",
            "threaded:va=2",
            "gro_flush_timeout:none=1",
            "scheduler:none=none",
        ] {
            let folder = tempfile::tempdir()?;
            let output = experiment(folder.path(), setting)?.output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.code() == Some(1), "{setting}: {}: {said}", output.status);
            ensure!(!folder.path().join("out").exists(), "{setting}: a window began: {said}");
        }
        let folder = tempfile::tempdir()?;
        let dry = experiment(folder.path(), HARMLESS)?.arg("--dry-run").output()?;
        let said = String::from_utf8_lossy(&dry.stdout);
        ensure!(
            dry.status.success() && said.contains("4194304") && said.contains(&before),
            "{said}"
        );
        ensure!(rmem()? == before && !folder.path().join("state").exists());
        // Another namespace, by a process in it: this one's value stays.
        let mut other = Command::new("unshare").args(["--net", "sleep", "30"]).spawn()?;
        let pid = other.id().to_string();
        let own = fs::read_link("/proc/thread-self/ns/net")?;
        let theirs = || fs::read_link(format!("/proc/{pid}/ns/net"));
        wait_until("a namespace of its own", || Ok(theirs().is_ok_and(|link| link != own)))?;
        let mut running =
            Running::start(experiment(folder.path(), HARMLESS)?.args(["--netns", &pid]))?;
        running.wait_for("window 2")?;
        let inside = tool::run(&format!("nsenter --net=/proc/{pid}/ns/net cat {RMEM}"))?;
        let outside = rmem()?;
        running.wait_for("put back")?;
        running.child.wait()?;
        other.kill()?;
        other.wait()?;
        ensure!(inside.split_whitespace().eq(["4096", "131072", "4194304"]), "{inside}");
        ensure!(outside == before, "{outside}");
        Ok(())
    })
}
