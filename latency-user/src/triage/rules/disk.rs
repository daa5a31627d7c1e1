//! Disks as `iostat -x` shows them, and their I/O schedulers.

use crate::{
    host::diskstats::{self, Disk, DiskRates},
    model::{
        finding::Detail,
        remedy::{knob::Knob, shell::quoted, value::Value},
    },
    triage::{
        rule_answer::{Answer, Answers, change, crossed, found, look, ok, plain},
        snapshot::{HostSnapshot, Unknown},
    },
};

/// Devices that are not disks: memory, files, or layers over other disks.
const NO_DISKS: [&str; 12] = [
    "loop", "ram", "zram", "dm-", "md", "sr", "fd", "zd", "drbd", "bcache", "mtdblock", "ubiblock",
];
/// Devices whose medium is somewhere else: what they say of rotation says nothing.
const VIRTUAL: [&str; 5] = ["vd", "xvd", "nbd", "rbd", "ubd"];
/// Vendors, in SCSI's eight letters, of disks themselves. Arrays and hypervisors have their own.
const DISK_MAKERS: [&str; 14] = [
    "ATA", "SEAGATE", "WDC", "WD", "HGST", "HITACHI", "TOSHIBA", "SAMSUNG", "FUJITSU", "MAXTOR",
    "KIOXIA", "MICRON", "INTEL", "SanDisk",
];
/// Parts of the models of disks that hypervisors invent; their vendor may be ATA.
const VIRTUAL_MODELS: [&str; 5] = ["VBOX", "QEMU", "VMware", "Virtual", "EBS"];
/// Mean request time, ms, from which an SSD is slow.
const AWAIT_SOLID_MS: f64 = 10.0;
/// The same for a rotating disk.
const AWAIT_ROTATING_MS: f64 = 50.0;
/// Requests per second below which a mean is not meaningful.
const FEWEST_REQUESTS: f64 = 10.0;
/// Share of the time with a request in progress, percent.
const BUSY: f64 = 90.0;
/// Requests in progress or waiting; a rotating disk serves one at a time.
const QUEUE_ROTATING: f64 = 2.0;
/// The same for an SSD, which serves several at a time.
const QUEUE_SOLID: f64 = 16.0;

const SOURCE: &str = "/proc/diskstats";

/// Calls `judge` for each disk.
fn each_disk(host: &HostSnapshot, judge: impl Fn(&str) -> Result<Answer, Unknown>) -> Answers {
    let disks: Vec<&str> = host
        .second
        .children("sys/block")
        .into_iter()
        .filter(|name| !NO_DISKS.iter().any(|prefix| name.starts_with(prefix)))
        // Parts of an eMMC that hold the firmware, and paths of NVMe that stand behind one disk.
        .filter(|name| !name.contains("boot") && !name.ends_with("rpmb"))
        .filter(|name| !is_hidden_path(host, name))
        .collect();
    if disks.is_empty() {
        return Err(Unknown("/sys/block shows no disk".into()));
    }
    Ok(disks
        .into_iter()
        .map(|disk| match judge(disk) {
            Ok(Answer::Ok(text)) => ok(format!("{disk}: {text}")),
            Ok(answer) => answer,
            Err(Unknown(reason)) => Answer::Unknown(format!("{disk}: {reason}")),
        })
        .collect())
}

fn rates(host: &HostSnapshot, disk: &str) -> Result<DiskRates, Unknown> {
    let change = host.change("proc/diskstats", diskstats::parse)?;
    // The slash of `cciss/c0d0` is `!` in the name of a directory.
    let name = disk.replace('!', "/");
    match (change.first.get(&name), change.second.get(&name)) {
        (Some(first), Some(second)) => {
            let known = |disk: &Result<Disk, String>| disk.clone().map_err(Unknown);
            Ok(known(second)?.rates(&known(first)?, host.elapsed))
        }
        _ => Err(Unknown(format!("{SOURCE} does not list it in both samples"))),
    }
}

/// Whether `nvme0c0n1` is one of several paths that the kernel does not count by themselves.
fn is_hidden_path(host: &HostSnapshot, disk: &str) -> bool {
    let is_path = disk
        .strip_prefix("nvme")
        .and_then(|rest| rest.split_once('c'))
        .is_some_and(|(_, rest)| rest.contains('n'));
    is_path
        && host
            .second
            .text("proc/diskstats")
            .is_ok_and(|text| !text.split_whitespace().any(|word| word == disk))
}

/// Whether the medium of a disk is hidden behind a hypervisor or a network.
fn is_virtual(host: &HostSnapshot, disk: &str) -> bool {
    let has_digits_or_letters = |rest: &str| rest.chars().all(|c| c.is_ascii_alphanumeric());
    let by_name =
        VIRTUAL.iter().any(|prefix| disk.strip_prefix(prefix).is_some_and(has_digits_or_letters));
    let of_device = |file: &str| host.setting(&format!("sys/block/{disk}/device/{file}"));
    let is_maker =
        |vendor: &str| DISK_MAKERS.iter().any(|maker| maker.eq_ignore_ascii_case(vendor.trim()));
    // Without a vendor, as with NVMe, what the disk says is all there is.
    let by_vendor = of_device("vendor").is_ok_and(|vendor| !is_maker(vendor));
    let by_model = of_device("model")
        .is_ok_and(|model| VIRTUAL_MODELS.iter().any(|part| model.contains(part)));
    by_name || by_vendor || by_model
}

/// Whether the disk rotates. One whose medium is not known counts as one that does not.
fn rotates(host: &HostSnapshot, disk: &str) -> Result<bool, Unknown> {
    if is_virtual(host, disk) {
        return Ok(false);
    }
    match host.number(&format!("sys/block/{disk}/queue/rotational"))? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Unknown(format!("rotational is {other}"))),
    }
}

fn describe(rates: &DiskRates) -> String {
    let ms = |time: Option<f64>| time.map_or("none".into(), |time| format!("{time:.2} ms"));
    format!(
        "{:.1} requests/s, a read takes {}, a write {}, queue {:.2}, busy {:.2} %",
        rates.requests_per_s,
        ms(rates.read_await_ms),
        ms(rates.write_await_ms),
        rates.queue,
        rates.busy_percent
    )
}

/// Disks whose requests take long.
pub(super) fn latency(host: &HostSnapshot, _: &[String]) -> Answers {
    each_disk(host, |disk| {
        let rates = rates(host, disk)?;
        let longest = f64::max(
            rates.read_await_ms.unwrap_or_default(),
            rates.write_await_ms.unwrap_or_default(),
        );
        let text = describe(&rates);
        if rates.requests_per_s < FEWEST_REQUESTS || longest < AWAIT_SOLID_MS {
            return Ok(ok(text));
        }
        // Above both thresholds the kind of disk need not be known.
        let may_rotate = |disk| Ok::<bool, Unknown>(is_virtual(host, disk) || rotates(host, disk)?);
        let threshold = match longest >= AWAIT_ROTATING_MS || may_rotate(disk)? {
            true => AWAIT_ROTATING_MS,
            false => AWAIT_SOLID_MS,
        };
        if longest < threshold {
            return Ok(ok(text));
        }
        Ok(found(Detail {
            subject: Some(disk.to_owned()),
            weight: 74,
            seen: format!("{disk}: {text}."),
            numbers: vec![
                crossed("mean time of a request", longest, "ms", threshold, SOURCE),
                plain("requests", rates.requests_per_s, "/s", SOURCE),
            ],
            why: "Whoever reads from or syncs to this disk waits that long on average, and much \
                  longer at worst.",
            step: look(format!("iostat -x -d {} 5 3", quoted(disk))),
            iface: None,
        }))
    })
}

/// Saturated disks.
pub(super) fn busy(host: &HostSnapshot, _: &[String]) -> Answers {
    each_disk(host, |disk| {
        let rates = rates(host, disk)?;
        let text = describe(&rates);
        if rates.busy_percent < BUSY || rates.queue < QUEUE_ROTATING {
            return Ok(ok(text));
        }
        let threshold = match rates.queue >= QUEUE_SOLID || !rotates(host, disk)? {
            true => QUEUE_SOLID,
            false => QUEUE_ROTATING,
        };
        if rates.queue < threshold {
            return Ok(ok(text));
        }
        Ok(found(Detail {
            subject: Some(disk.to_owned()),
            weight: 68,
            seen: format!("{disk}: {text}."),
            numbers: vec![
                crossed("busy", rates.busy_percent, "%", BUSY, SOURCE),
                crossed("queue", rates.queue, "requests", threshold, SOURCE),
            ],
            why: "Requests queue up, so each waits for those before it.",
            step: look("pidstat -d 5 3"),
            iface: None,
        }))
    })
}

/// I/O schedulers that do not fit the kind of disk.
pub(super) fn scheduler(host: &HostSnapshot, _: &[String]) -> Answers {
    each_disk(host, |disk| {
        let path = format!("sys/block/{disk}/queue/scheduler");
        let line = host.setting(&path)?;
        let current = chosen(line)
            .ok_or_else(|| Unknown(format!("/{path}:1: expected a choice, found {line:?}")))?;
        let offers = |name: &str| line.split(' ').any(|choice| choice == name);
        if is_virtual(host, disk) {
            return Ok(ok(format!("{current}; its medium is not known")));
        }
        let rotates = rotates(host, disk)?;
        let (better, why) = match current {
            "none" if rotates && offers("mq-deadline") => (
                "mq-deadline",
                "Without a scheduler a rotating disk serves requests as they come: reads wait \
                 behind long writes.",
            ),
            "bfq" if !rotates && offers("none") => (
                "none",
                "bfq takes a lock and a good deal of CPU time for each request, which fast disks \
                 do not need, and idles on purpose.",
            ),
            "kyber" if rotates && offers("mq-deadline") => {
                ("mq-deadline", "kyber throttles by latencies that only fast disks reach.")
            }
            _ => return Ok(ok(format!("{current}, rotational {}", u8::from(rotates)))),
        };
        let knob = Knob::IoScheduler { disk: disk.to_owned() };
        let (Some(now), Some(better)) = (Value::word(current), Value::word(better)) else {
            return Err(Unknown(format!("/{path}:1: expected a choice, found {line:?}")));
        };
        Ok(found(Detail {
            subject: Some(disk.to_owned()),
            weight: 22,
            seen: format!(
                "{disk} uses the I/O scheduler {current}, and {}.",
                if rotates { "rotates" } else { "does not rotate" }
            ),
            numbers: vec![plain(
                "rotational",
                f64::from(u8::from(rotates)),
                "",
                format!("/sys/block/{disk}/queue/rotational"),
            )],
            why,
            step: change(knob, now, better),
            iface: None,
        }))
    })
}

/// `mq-deadline` in `none [mq-deadline] bfq`; a lone `none` has no brackets.
fn chosen(line: &str) -> Option<&str> {
    match line.split_once('[') {
        Some((_, rest)) => rest.split_once(']').map(|(name, _)| name),
        None => (line == "none").then_some("none"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_stands_in_brackets() {
        assert_eq!(chosen("none [mq-deadline] bfq"), Some("mq-deadline"));
        assert_eq!(chosen("none"), Some("none"));
        assert_eq!(chosen("[none"), None);
        assert_eq!(chosen(""), None);
    }
}
