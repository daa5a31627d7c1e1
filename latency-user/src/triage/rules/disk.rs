//! Disks as `iostat -x` shows them, and their I/O schedulers.

use crate::{
    host::diskstats::{self, DiskRates},
    model::finding::Detail,
    triage::{
        rule_answer::{Answer, Answers, crossed, found, ok, plain, quoted, trace},
        snapshot::{HostSnapshot, Unknown},
    },
};

/// Devices that are no disks of their own: memory, files, or layers over other disks.
const NO_DISKS: [&str; 6] = ["loop", "ram", "zram", "dm-", "md", "sr"];
/// Mean time of a request, ms: what a disk without moving parts needs at most.
const AWAIT_SOLID_MS: f64 = 10.0;
/// The same of a disk that turns.
const AWAIT_ROTATING_MS: f64 = 50.0;
/// Fewer requests a second make no mean.
const FEWEST_REQUESTS: f64 = 10.0;
/// Share of the time with a request under way, percent.
const BUSY: f64 = 90.0;
/// Requests under way or waiting: one disk that turns does one at a time.
const QUEUE_ROTATING: f64 = 2.0;
/// Disks without moving parts do several at a time.
const QUEUE_SOLID: f64 = 16.0;

const SOURCE: &str = "/proc/diskstats";

/// Asks `judge` about each disk.
fn each_disk(host: &HostSnapshot, judge: impl Fn(&str) -> Result<Answer, Unknown>) -> Answers {
    let disks: Vec<&str> = host
        .second
        .children("sys/block")
        .into_iter()
        .filter(|name| !NO_DISKS.iter().any(|prefix| name.starts_with(prefix)))
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
    match (change.first.get(disk), change.second.get(disk)) {
        (Some(first), Some(second)) => Ok(second.rates(first, host.elapsed)),
        _ => Err(Unknown(format!("{SOURCE} did not have it the whole time"))),
    }
}

/// Whether the disk turns.
fn rotates(host: &HostSnapshot, disk: &str) -> Result<bool, Unknown> {
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
        // Beyond both thresholds the kind does not matter.
        let threshold = match longest >= AWAIT_ROTATING_MS || rotates(host, disk)? {
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
            next: format!("iostat -x -d {} 5 3", quoted(disk)),
            undo: None,
            confirm: trace(None),
        }))
    })
}

/// Disks that have no time to spare.
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
            next: "pidstat -d 5 3".into(),
            undo: None,
            confirm: trace(None),
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
        let offers = |name: &str| line.split(' ').any(|one| one == name);
        let rotates = rotates(host, disk)?;
        let (better, why) = match current {
            "none" if rotates && offers("mq-deadline") => (
                "mq-deadline",
                "Without a scheduler a disk that turns serves requests as they come: reads wait \
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
        let set = |to: &str| format!("echo {to} > {}", quoted(&format!("/{path}")));
        Ok(found(Detail {
            subject: Some(disk.to_owned()),
            weight: 22,
            seen: format!(
                "{disk} uses the I/O scheduler {current}, and {}.",
                if rotates { "turns" } else { "does not turn" }
            ),
            numbers: vec![plain(
                "rotational",
                f64::from(u8::from(rotates)),
                "",
                format!("/sys/block/{disk}/queue/rotational"),
            )],
            why,
            next: set(better),
            undo: Some(set(current)),
            confirm: trace(None),
        }))
    })
}

/// `mq-deadline` in `none [mq-deadline] bfq`; a lone `none` stands without brackets.
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
