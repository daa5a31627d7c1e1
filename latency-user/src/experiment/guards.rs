//! Guards: drops, retransmits and throughput of each window. A change that shortens stalls but
//! loses packets is no improvement.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};

use super::netns;
use crate::{
    host::net::protocol_counters::ProtocolCounters,
    model::experiment::{Guard, Rates},
};

/// A guard that counts harm may grow by this factor over the worst window without the change.
const MORE_HARM: f64 = 2.0;

/// An increase of harm below this many events per second is ignored.
const LEAST_HARM: f64 = 1.0;

/// Throughput must stay above this fraction of the lowest window without the change.
const LEAST_THROUGHPUT: f64 = 0.8;

/// Counters of a network namespace at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counters {
    drops: u64,
    retransmits: u64,
    bytes: u64,
    packets: u64,
}

/// Reads the counters of a namespace: of `ifaces`, or of all interfaces.
///
/// # Errors
///
/// When a file cannot be read or parsed, with its path.
pub fn read(netns: u32, ifaces: &[String]) -> Result<Counters> {
    netns::within(Some(netns), false, || {
        let root = Path::new("/proc/thread-self/net");
        let text = |name: &str| {
            let path = root.join(name);
            fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
        };
        let mut counters = devices(&text("dev")?, ifaces)?;
        counters.drops += backlog_drops(&text("softnet_stat")?)?;
        let snmp = ProtocolCounters::parse(&root.join("snmp"), &text("snmp")?)?;
        counters.retransmits = count(&snmp, "Tcp", "RetransSegs");
        Ok(counters)
    })
}

/// The first of `ifaces` whose link is down; an interface that is gone has no link.
///
/// # Errors
///
/// When the namespace cannot be entered.
pub fn lost_link(netns: u32, ifaces: &[String]) -> Result<Option<String>> {
    if ifaces.is_empty() {
        return Ok(None);
    }
    netns::within(Some(netns), true, || {
        // The file of an interface that is down cannot be read.
        let has_link = |iface: &String| {
            fs::read_to_string(format!("/sys/class/net/{iface}/carrier"))
                .is_ok_and(|carrier| carrier.trim() == "1")
        };
        Ok(ifaces.iter().find(|iface| !has_link(iface)).cloned())
    })
}

/// Growth per second between two moments.
pub fn rates(before: &Counters, after: &Counters, seconds: f64) -> Rates {
    let rate = |before: u64, after: u64| after.saturating_sub(before) as f64 / seconds;
    Rates {
        drops: rate(before.drops, after.drops),
        retransmits: rate(before.retransmits, after.retransmits),
        bytes: rate(before.bytes, after.bytes),
        packets: rate(before.packets, after.packets),
    }
}

/// Compares windows without the change and with it.
pub fn judge(without: &[Rates], with: &[Rates]) -> Vec<Guard> {
    let guard = |name: &'static str, rate: fn(&Rates) -> f64, is_harm: bool| {
        let [without, with] = [without, with].map(|w| w.iter().map(rate).collect::<Vec<f64>>());
        let [before, after] = [&without, &with].map(|w| w.iter().sum::<f64>() / w.len() as f64);
        let most = without.iter().copied().fold(0.0, f64::max);
        let least = without.iter().copied().fold(f64::INFINITY, f64::min);
        let worse = match is_harm {
            true => after - most > LEAST_HARM && after > MORE_HARM * most,
            false => after < LEAST_THROUGHPUT * least,
        };
        Guard { name, before, after, worse: worse && !with.is_empty() && !without.is_empty() }
    };
    vec![
        guard("drops", |rates| rates.drops, true),
        guard("retransmits", |rates| rates.retransmits, true),
        guard("bytes received", |rates| rates.bytes, false),
    ]
}

/// Sums over `/proc/net/dev`.
fn devices(text: &str, ifaces: &[String]) -> Result<Counters> {
    let mut sum = Counters::default();
    for (at, line) in text.lines().enumerate() {
        // The two header lines have no colon.
        let Some((name, values)) = line.split_once(':') else { continue };
        if !ifaces.is_empty() && !ifaces.iter().any(|iface| iface == name.trim()) {
            continue;
        }
        let values: Vec<u64> = values
            .split_ascii_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()
            .with_context(|| format!("/proc/net/dev:{}: expected numbers: {line:?}", at + 1))?;
        let found = values.len();
        ensure!(found >= 12, "/proc/net/dev:{}: expected 12 numbers, found {found}", at + 1);
        sum.bytes += values[0];
        sum.packets += values[1];
        sum.drops += values[3] + values[11];
    }
    Ok(sum)
}

/// Packets that found the backlog of a CPU full: the second number of each line, hexadecimal.
fn backlog_drops(text: &str) -> Result<u64> {
    let mut drops = 0;
    for (at, line) in text.lines().enumerate() {
        let field = line.split_ascii_whitespace().nth(1).unwrap_or_default();
        drops += u64::from_str_radix(field, 16).with_context(|| {
            format!("/proc/net/softnet_stat:{}: expected a number, found {field:?}", at + 1)
        })?;
    }
    Ok(drops)
}

fn count(counters: &ProtocolCounters, group: &str, name: &str) -> u64 {
    counters.get(group, name).and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEV: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop
    lo: 100 2 0 3 0 0 0 0 100 2 0 4 0 0 0 0
  eth0: 1000 20 0 30 0 0 0 0 100 2 0 40 0 0 0 0
";

    #[test]
    fn counters_are_those_of_the_interfaces() {
        let all = devices(DEV, &[]).unwrap();
        assert_eq!((all.bytes, all.packets, all.drops), (1100, 22, 77));
        let eth0 = devices(DEV, &["eth0".into()]).unwrap();
        assert_eq!((eth0.bytes, eth0.drops), (1000, 70));
        assert!(devices("eth0: 1 x", &[]).is_err() && devices("eth0: 1 2", &[]).is_err());
        assert_eq!(backlog_drops("0000 0000000a\n0000 00000001\n").unwrap(), 11);
        assert!(backlog_drops("0000 zz\n").is_err());
    }

    #[test]
    fn harm_and_lost_throughput_are_detected() {
        let window = |drops, retransmits, bytes| Rates { drops, retransmits, bytes, packets: 1e3 };
        let without = [window(3.0, 0.0, 1e6), window(5.0, 0.0, 1.1e6)];
        let worse = |with| -> Vec<bool> {
            judge(&without, &[with]).into_iter().map(|guard| guard.worse).collect()
        };
        assert_eq!(worse(window(4.0, 0.5, 1e6)), [false, false, false]);
        assert_eq!(worse(window(11.0, 2.0, 1e6)), [true, true, false]);
        assert_eq!(worse(window(0.0, 0.0, 0.7e6)), [false, false, true]);
    }
}
