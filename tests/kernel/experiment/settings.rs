//! Settings that experiments change: as other tools read them, their bounds, other namespaces.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use latency_tests::{namespace, tool, veth};

use super::{HARMLESS, RMEM, Running, experiment, journals, rmem};
use crate::tracing::wait_until;

pub(super) fn tunings() -> Result<()> {
    namespace::run(|| {
        veth::make(2)?;
        let directory = tempfile::tempdir()?;
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
        let mut command = experiment(directory.path(), HARMLESS)?;
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
        // Masks are hexadecimal. Decimal values are parsed as hexadecimal too: 20000 is 0x20000.
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

/// Settings that the kernel moves with the one that is set are put back too, also by the watchdog.
pub(super) fn followers() -> Result<()> {
    namespace::run(|| {
        veth::make(1)?;
        let conf = |name: &str| format!("/proc/sys/net/ipv4/conf/{name}");
        fs::write("/proc/sys/net/ipv4/ip_forward", "0")?;
        fs::write(conf("lo/forwarding"), "1")?;
        fs::write(conf("all/accept_redirects"), "0")?;
        fs::write(conf("va/rp_filter"), "2")?;
        let files = [
            "all/forwarding",
            "default/forwarding",
            "lo/forwarding",
            "va/forwarding",
            "all/accept_redirects",
            "va/rp_filter",
            "vb/rp_filter",
        ];
        let read = || files.map(|file| fs::read_to_string(conf(file)).unwrap_or_default());
        let before = read();
        for (setting, signal) in [
            ("sysctl:net.ipv4.ip_forward=1", None),
            ("sysctl:net.ipv4.ip_forward=1", Some(libc::SIGKILL)),
            ("sysctl:net.ipv4.conf.default.forwarding=1", None),
            ("sysctl:net/ipv4/conf/default/rp_filter=1", Some(libc::SIGTERM)),
        ] {
            let directory = tempfile::tempdir()?;
            let mut running = Running::start(&mut experiment(directory.path(), setting)?)?;
            running.wait_for("window 2")?;
            ensure!(read() != before, "{setting}: nothing was changed");
            match signal {
                None => running.end()?,
                Some(signal) => {
                    running.signal(signal)?;
                    running.child.wait()?;
                }
            }
            wait_until(setting, || Ok(journals(directory.path()).is_empty()))?;
            ensure!(read() == before, "{setting}: {:?}, {before:?} before", read());
        }
        Ok(())
    })
}

/// An unused loop device, so that changing its scheduler affects no I/O.
fn free_loop_device() -> Result<String> {
    let disks = Path::new("/sys/block").read_dir()?.filter_map(Result::ok);
    let mut names = disks.map(|disk| disk.file_name().to_string_lossy().into_owned());
    let is_free = |name: &String| {
        let directory = Path::new("/sys/block").join(name);
        let scheduler = fs::read_to_string(directory.join("queue/scheduler")).unwrap_or_default();
        name.starts_with("loop")
            && !directory.join("loop").exists()
            && scheduler.contains("mq-deadline")
            && !scheduler.contains("[mq-deadline]")
    };
    names.find(is_free).context("no loop device is free")
}

pub(super) fn bounds() -> Result<()> {
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
            let directory = tempfile::tempdir()?;
            let output = experiment(directory.path(), setting)?.output()?;
            let message = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.code() == Some(1), "{setting}: {}: {message}", output.status);
            ensure!(
                !directory.path().join("out").exists(),
                "{setting}: a window started: {message}"
            );
        }
        let directory = tempfile::tempdir()?;
        let dry = experiment(directory.path(), HARMLESS)?.arg("--dry-run").output()?;
        let message = String::from_utf8_lossy(&dry.stdout);
        ensure!(
            dry.status.success() && message.contains("4194304") && message.contains(&before),
            "{message}"
        );
        ensure!(rmem()? == before && !directory.path().join("state").exists());
        Ok(())
    })
}

/// Changes the setting of another namespace, given by PID and by `ip netns` name; the setting of
/// this namespace stays.
pub(super) fn elsewhere() -> Result<()> {
    namespace::run(|| {
        // Keeps the namespace's name out of the machine's /run.
        tool::run("mount -t tmpfs none /run")?;
        tool::run("ip netns add quiet")?;
        let mut other =
            Command::new("ip").args(["netns", "exec", "quiet", "sleep", "30"]).spawn()?;
        let pid = other.id().to_string();
        let own = fs::read_link("/proc/thread-self/ns/net")?;
        let theirs = || fs::read_link(format!("/proc/{pid}/ns/net"));
        wait_until("the process to enter its namespace", || {
            Ok(theirs().is_ok_and(|link| link != own))
        })?;
        let inside = || tool::run(&format!("ip netns exec quiet cat {RMEM}"));
        let (before, outside) = (inside()?, rmem()?);
        for name in [&pid, "quiet"] {
            let directory = tempfile::tempdir()?;
            let mut command = experiment(directory.path(), HARMLESS)?;
            let mut running = Running::start(command.args(["--netns", name]))?;
            running.wait_for("window 2")?;
            let changed = inside()?;
            ensure!(changed.split_whitespace().eq(["4096", "131072", "4194304"]), "{changed}");
            ensure!(rmem()? == outside, "{name}: {}", rmem()?);
            running.wait_for("put back")?;
            running.child.wait()?;
            ensure!(inside()? == before, "{name}: {}", inside()?);
        }
        other.kill()?;
        other.wait()?;
        Ok(())
    })
}
