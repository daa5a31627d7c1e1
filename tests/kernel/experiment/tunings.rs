//! Experiments on settings of NICs and their IRQs, checked with `ethtool` and `/proc/irq`: veth and
//! tap devices on the host, virtio-net and vmxnet3 in virtual machines.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use latency_tests::{namespace, tool, veth};
use libtest_mimic::Trial;

use super::{CHANGED_FIRST, Running, experiment, journals, kill, result};
use crate::{
    confined::value,
    suite::{Where, in_vm, trial, trial_since},
    tracing::latency_user,
};

/// A tap device. Its driver accepts at most 64 frames for coalescing.
const TAP: &str = "t0";

/// Drivers of the virtual machine's NICs with two RX queues. Ring sizes of vmxnet3 are multiples
/// of 32.
const VMXNET3: &str = "vmxnet3";
const VIRTIO: &str = "virtio_net";

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    let host = |name, body| trial(name, Where::Host, &["ip", "ethtool"], body);
    // Before 6.0 virtio_net sets neither rings nor coalescing.
    let vm =
        |name, body| with_nics(trial_since((6, 0), name, Where::Vm, &["ip", "ethtool"], body)?);
    [
        host("experiment::nic_settings_match_ethtool", nics),
        host("experiment::values_rounded_by_the_driver_are_reported", rounded),
        host("experiment::undo_handles_values_rounded_by_the_driver", undo_rounded),
        host("experiment::nic_settings_out_of_bounds_are_refused", bounds),
        vm("experiment::irqs_and_rings_of_real_drivers", irqs_and_rings),
        vm("experiment::channels_and_coalescing_of_virtio_net", channels),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Marks a test as skipped in a virtual machine that lacks the NICs.
#[expect(clippy::print_stderr, reason = "a skip says why, before the harness counts it")]
fn with_nics(trial: Trial) -> Option<Trial> {
    let missing = [VMXNET3, VIRTIO].into_iter().find_map(|driver| nic(driver).err());
    if let (true, Some(missing)) = (in_vm(), missing) {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        eprintln!("skipped on Linux {}: {}: {missing}", kernel.trim(), trial.name());
        return Some(trial.with_ignored_flag(true));
    }
    Some(trial)
}

/// The NIC of a driver that has a second RX queue.
fn nic(driver: &str) -> Result<String> {
    let directory = Path::new("/sys/class/net");
    let names = directory.read_dir()?.filter_map(Result::ok).map(|entry| entry.file_name());
    let is_it = |name: &String| {
        let nic = directory.join(name);
        let link = fs::read_link(nic.join("device/driver"));
        link.is_ok_and(|link| link.ends_with(driver)) && nic.join("queues/rx-1").exists()
    };
    let found = names.map(|name| name.to_string_lossy().into_owned()).find(is_it);
    found.with_context(|| format!("no NIC of {driver} with two queues"))
}

/// The value after the last `NAME:` of `ethtool OPTION NIC`. Maxima come before current values.
pub(crate) fn shown(option: &str, nic: &str, name: &str) -> Result<String> {
    let text = tool::run(&format!("ethtool {option} {nic}"))?;
    let mut lines = text.lines().filter_map(|line| line.trim().split_once(':'));
    let found = lines.rfind(|(key, _)| *key == name);
    let (_, value) = found.with_context(|| format!("ethtool {option} {nic}: no {name}: {text}"))?;
    Ok(value.trim().to_owned())
}

fn make() -> Result<()> {
    veth::make(4)?;
    tool::run(&format!("ip tuntap add dev {TAP} mode tap"))?;
    Ok(())
}

/// Checks each setting before, during and after the change.
fn nics() -> Result<()> {
    namespace::run(|| {
        make()?;
        let directory = tempfile::tempdir()?;
        let settings = [
            ("offload:va/gro=off", "-k", "va", "generic-receive-offload", "off"),
            ("offload:va/tx-checksumming=off", "-k", "va", "tx-checksumming", "off"),
            ("channels:va/rx=2", "-l", "va", "RX", "2"),
            ("channels:va/tx=3", "-l", "va", "TX", "3"),
            ("coalesce:t0/rx-frames=17", "-c", TAP, "rx-frames", "17"),
        ];
        // TSO is off without checksum offload and must come back with it.
        let tso = || shown("-k", "va", "tx-tcp-segmentation");
        let read = || -> Result<Vec<String>> {
            settings.iter().map(|(_, option, nic, name, _)| shown(option, nic, name)).collect()
        };
        let before = (read()?, tso()?);
        let mut command = experiment(directory.path(), settings[0].0)?;
        settings[1..].iter().for_each(|(setting, ..)| {
            command.args(["--set", setting]);
        });
        let mut running = Running::start(&mut command)?;
        running.wait_for("window 2")?;
        let changed = (read()?, tso()?);
        running.wait_for("put back")?;
        let after = (read()?, tso()?);
        running.end()?;
        ensure!(settings.iter().map(|(.., value)| *value).eq(&changed.0), "{changed:?}");
        ensure!(changed.1 == "off [requested on]" && before.1 == "on", "{before:?}, {changed:?}");
        ensure!(after == before, "{before:?}, {after:?}");
        Ok(())
    })
}

fn rounded() -> Result<()> {
    namespace::run(|| {
        make()?;
        let directory = tempfile::tempdir()?;
        let mut command = experiment(directory.path(), "coalesce:t0/rx-frames=100")?;
        command.args(["--window", "1s", "--settle", "100ms", "--rounds", "1"]).args(CHANGED_FIRST);
        let (status, found) = result(&mut command)?;
        ensure!(status.success(), "{status}: {found}");
        let changed = &found["changed"][0];
        ensure!(changed["requested"] == "100" && changed["effective"] == "64", "{changed}");
        ensure!(changed["old"] == "0" && found["setting"] == "original", "{found}");
        let page = fs::read_to_string(directory.path().join("out/report.html"))?;
        ensure!(page.contains("asked for") && page.contains("the driver made it"), "{page}");
        ensure!(shown("-c", TAP, "rx-frames")? == "0");

        // A value that rounds to the current one changes nothing.
        tool::run(&format!("ethtool -C {TAP} rx-frames 64"))?;
        let directory = tempfile::tempdir()?;
        let mut command = experiment(directory.path(), "coalesce:t0/rx-frames=100")?;
        command.args(["--window", "1s", "--settle", "100ms", "--rounds", "1"]).args(CHANGED_FIRST);
        let output = command.output()?;
        let message = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(1) && message.contains("the kernel kept"),
            "{message}"
        );
        ensure!(shown("-c", TAP, "rx-frames")? == "64" && journals(directory.path()).is_empty());
        Ok(())
    })
}

/// Experiment and watchdog are both killed, and the value in effect is not the requested one.
fn undo_rounded() -> Result<()> {
    namespace::run(|| {
        make()?;
        for (foreign, expected) in [(None, "0"), (Some("7"), "7")] {
            tool::run(&format!("ethtool -C {TAP} rx-frames 0"))?;
            let directory = tempfile::tempdir()?;
            let mut command = experiment(directory.path(), "coalesce:t0/rx-frames=100")?;
            let mut running = Running::start(&mut command)?;
            running.wait_for("window 2")?;
            kill(running.only_child()?, libc::SIGKILL)?;
            running.signal(libc::SIGKILL)?;
            running.child.wait()?;
            ensure!(shown("-c", TAP, "rx-frames")? == "64");
            if let Some(value) = foreign {
                tool::run(&format!("ethtool -C {TAP} rx-frames {value}"))?;
            }
            let state = directory.path().join("state");
            let undo =
                latency_user()?.args(["experiment", "--undo", "--state"]).arg(state).output()?;
            let message = String::from_utf8_lossy(&undo.stderr);
            ensure!(undo.status.success() == foreign.is_none(), "{foreign:?}: {message}");
            ensure!(foreign.is_none() || message.contains("did not set"), "{message}");
            ensure!(shown("-c", TAP, "rx-frames")? == expected, "{foreign:?}: {message}");
            ensure!(journals(directory.path()).is_empty());
        }
        // The device is gone: there is nothing to restore, and the watchdog reports nothing.
        let directory = tempfile::tempdir()?;
        let mut running =
            Running::start(&mut experiment(directory.path(), "coalesce:t0/rx-frames=100")?)?;
        running.wait_for("window 2")?;
        tool::run(&format!("ip link del {TAP}"))?;
        running.wait_for("put back")?;
        running.child.wait()?;
        ensure!(journals(directory.path()).is_empty());
        Ok(())
    })
}

fn bounds() -> Result<()> {
    namespace::run(|| {
        make()?;
        for (setting, reason) in [
            ("channels:va/rx=5", "not a number from 0 to 4"),
            ("channels:va/combined=1", "no such setting"),
            ("channels:va/rx=two", "not a number"),
            ("ring:va/rx=64", "the driver does not report it"),
            ("coalesce:t0/rx-usecs=5", "no such setting"),
            ("coalesce:t0/rx-frames=-1", "not a number"),
            ("coalesce:t0/frames=1", "has no setting"),
            ("offload:va/lro=on", "is fixed"),
            ("offload:va/magic=on", "no offload"),
            ("offload:va/gro=maybe", "on or off"),
            ("offload:none/gro=on", "no interface"),
            ("irq:va=spread", "no IRQ is known"),
            ("irq:va/0=4095", "is not online"),
        ] {
            let directory = tempfile::tempdir()?;
            let output = experiment(directory.path(), setting)?.output()?;
            let message = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.code() == Some(1), "{setting}: {}: {message}", output.status);
            ensure!(message.contains(reason), "{setting}: {message}");
            ensure!(
                !directory.path().join("out").exists(),
                "{setting}: a window started: {message}"
            );
        }
        Ok(())
    })
}

/// The affinity file of the IRQ whose name in `/proc/interrupts` ends with `name`.
fn affinity_file(name: &str) -> Result<String> {
    let table = fs::read_to_string("/proc/interrupts")?;
    let line = table.lines().find(|line| line.trim_end().ends_with(name));
    let line = line.with_context(|| format!("no IRQ {name}: {table}"))?;
    let number = line.trim().split(':').next().unwrap_or_default();
    Ok(format!("/proc/irq/{number}/smp_affinity_list"))
}

/// Its bit in a set of capabilities.
const CAP_NET_ADMIN: u64 = 1 << 12;

fn irqs_and_rings() -> Result<()> {
    let (vmxnet3, virtio) = (nic(VMXNET3)?, nic(VIRTIO)?);
    for nic in [&vmxnet3, &virtio] {
        tool::run(&format!("ip link set {nic} up"))?;
    }
    let device = fs::read_link(format!("/sys/class/net/{virtio}/device"))?;
    let device = device.file_name().context("the device of a NIC")?.to_string_lossy();
    let files = [
        affinity_file(&format!("{device}-input.0"))?,
        affinity_file(&format!("{device}-input.1"))?,
        affinity_file(&format!("{vmxnet3}-rxtx-1"))?,
    ];
    let affinities = || -> Result<Vec<String>> {
        files.iter().map(|file| Ok(fs::read_to_string(file)?.trim().to_owned())).collect()
    };
    files.iter().try_for_each(|file| fs::write(file, "0"))?;
    let rings = || -> Result<Vec<String>> {
        [(&vmxnet3, "RX"), (&vmxnet3, "TX"), (&virtio, "RX")]
            .iter()
            .map(|(nic, name)| shown("-g", nic, name))
            .collect()
    };
    let gro = || shown("-k", &virtio, "generic-receive-offload");
    let before = (affinities()?, rings()?, gro()?);
    let directory = tempfile::tempdir()?;
    let irqs = [format!("irq:{virtio}=spread"), format!("irq:{vmxnet3}/1=0-1")];
    let others = [
        format!("ring:{vmxnet3}/rx=100"),
        format!("ring:{vmxnet3}/tx=128"),
        format!("ring:{virtio}/rx=128"),
        format!("offload:{virtio}/gro=off"),
    ];
    let experiment = |settings: &[String]| -> Result<Running> {
        let mut command = experiment(directory.path(), &settings[0])?;
        settings[1..].iter().for_each(|setting| {
            command.args(["--set", setting]);
        });
        let mut running = Running::start(&mut command)?;
        running.wait_for("window 2")?;
        Ok(running)
    };
    let end = |mut running: Running| -> Result<()> {
        running.wait_for("put back")?;
        running.end()?;
        let after = (affinities()?, rings()?, gro()?);
        ensure!(after == before, "{before:?}, {after:?}");
        Ok(())
    };
    // IRQs need no capability of the network.
    let may_configure = |running: &Running| -> Result<bool> {
        let status = fs::read_to_string(format!("/proc/{}/status", running.child.id()))?;
        Ok(value(&status, "CapEff")? & CAP_NET_ADMIN != 0)
    };
    let running = experiment(&irqs)?;
    let spread = affinities()?;
    ensure!(!may_configure(&running)?, "CAP_NET_ADMIN was kept for IRQs");
    end(running)?;
    ensure!(spread == ["0", "1", "0-1"], "{spread:?}");
    let running = experiment(&others)?;
    let changed = (rings()?, gro()?);
    ensure!(may_configure(&running)?, "CAP_NET_ADMIN was dropped");
    end(running)?;
    ensure!(changed.0 == ["128", "128", "128"] && changed.1 == "off", "{changed:?}");
    for setting in [format!("ring:{vmxnet3}/rx=4097"), format!("irq:{virtio}/2=0")] {
        let refused = super::experiment(directory.path(), &setting)?.output()?;
        ensure!(refused.status.code() == Some(1), "{setting}: {}", refused.status);
    }
    for nic in [&vmxnet3, &virtio] {
        tool::run(&format!("ip link set {nic} down"))?;
    }
    Ok(())
}

/// The driver of virtio-net accepts this coalescing setting only while the NIC is down.
fn channels() -> Result<()> {
    let virtio = nic(VIRTIO)?;
    let directory = tempfile::tempdir()?;
    let read = || -> Result<[String; 2]> {
        Ok([shown("-l", &virtio, "Combined")?, shown("-c", &virtio, "tx-frames")?])
    };
    // A queue that is removed loses them.
    let queue = format!("/sys/class/net/{virtio}/queues/rx-1");
    let steered = |file: &str| fs::read_to_string(format!("{queue}/{file}")).unwrap_or_default();
    fs::write(format!("{queue}/rps_cpus"), "2")?;
    fs::write(format!("{queue}/rps_flow_cnt"), "256")?;
    let steering = || (steered("rps_cpus"), steered("rps_flow_cnt"));
    let before_steering = steering();
    let before = read()?;
    let mut command = experiment(directory.path(), &format!("channels:{virtio}/combined=1"))?;
    command.args(["--set", &format!("coalesce:{virtio}/tx-frames=0")]);
    let mut running = Running::start(&mut command)?;
    running.wait_for("window 2")?;
    let changed = read()?;
    running.wait_for("put back")?;
    let after = read()?;
    running.end()?;
    ensure!(changed == ["1", "0"] && before == ["2", "1"], "{before:?}, {changed:?}");
    ensure!(after == before, "{before:?}, {after:?}");
    ensure!(steering() == before_steering, "{:?}, {before_steering:?} before", steering());
    fs::write(format!("{queue}/rps_cpus"), "0")?;
    fs::write(format!("{queue}/rps_flow_cnt"), "0")?;

    // While the NIC is up the driver refuses, and all settings are unchanged.
    tool::run(&format!("ip link set {virtio} up"))?;
    let mut command = experiment(directory.path(), &format!("channels:{virtio}/combined=1"))?;
    command.args(["--set", &format!("coalesce:{virtio}/tx-frames=0")]);
    command.args(["--window", "1s", "--settle", "100ms", "--rounds", "1"]).args(CHANGED_FIRST);
    let refused = command.output()?;
    let message = String::from_utf8_lossy(&refused.stderr);
    let after = read()?;
    tool::run(&format!("ip link set {virtio} down"))?;
    ensure!(refused.status.code() == Some(1) && message.contains("coalesce-set"), "{message}");
    ensure!(after == before && journals(directory.path()).is_empty(), "{after:?}: {message}");
    Ok(())
}
