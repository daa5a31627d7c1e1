//! Guards: drops, retransmits and throughput of each window, tested as stalls are, with windows as
//! units. A change that shortens stalls but loses packets is no improvement.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};

use super::netns;
use crate::{
    compare::units::{self, Unit},
    host::net::protocol_counters::ProtocolCounters,
    model::experiment::{Guard, Rates, WindowSummary},
};

/// Significance level of all guards together. Lower than that of stalls: a guard is a second chance
/// for a false verdict.
const LEVEL: f64 = 0.02;

/// An increase of harm below this many events per second is ignored.
const LEAST_HARM: f64 = 1.0;

/// Throughput above this part of that without the change is no loss.
const ENOUGH_THROUGHPUT: f64 = 0.9;

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

/// Compares the windows with the change to those without it. `units` are the same windows, in the
/// same order.
pub fn judge(windows: &[WindowSummary], units: &[Unit]) -> Vec<Guard> {
    let guard = |name: &'static str, rate: fn(&Rates) -> f64, is_harm: bool| {
        let mean = |changed: bool| {
            let side = windows.iter().filter(|window| window.changed == changed);
            let (sum, n) = side.fold((0.0, 0_u32), |(sum, n), w| (sum + rate(&w.rates), n + 1));
            sum / f64::from(n.max(1))
        };
        let (before, after) = (mean(false), mean(true));
        // Half an event keeps the logarithms of empty windows finite.
        let logs = windows.iter().map(|w| (rate(&w.rates) + 0.5 / w.duration_s.max(1e-3)).ln());
        let found = units::regression(units, &logs.collect::<Vec<f64>>()).0;
        let is_enough = match is_harm {
            true => after - before > LEAST_HARM,
            false => after < ENOUGH_THROUGHPUT * before,
        };
        let is_worse = found.ratio.is_some_and(|ratio| (ratio > 1.0) == is_harm);
        let p = found.p.filter(|_| units::are_enough(units));
        Guard { name, before, after, p, worse: is_enough && is_worse }
    };
    let mut guards = vec![
        guard("drops", |rates| rates.drops, true),
        guard("retransmits", |rates| rates.retransmits, true),
        guard("bytes received", |rates| rates.bytes, false),
    ];
    let tests = guards.len() as f64;
    for guard in &mut guards {
        guard.worse &= guard.p.is_some_and(|p| p * tests < LEVEL);
    }
    guards
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

    /// Windows in turn, without the change and with it, with these rates of drops and bytes.
    fn judged(without: [(f64, f64); 4], with: [(f64, f64); 4]) -> Vec<bool> {
        let (mut windows, mut units) = (Vec::new(), Vec::new());
        for (at, (a, b)) in without.into_iter().zip(with).enumerate() {
            for (changed, (drops, bytes)) in [(false, a), (true, b)] {
                windows.push(WindowSummary {
                    changed,
                    duration_s: 10.0,
                    rates: Rates { drops, retransmits: 0.0, bytes, packets: 1e3 },
                    ..WindowSummary::default()
                });
                let at_s = 24.0 * at as f64 + 12.0 * f64::from(u8::from(changed));
                units.push(Unit { changed, at_s, seconds: 10.0, ..Unit::default() });
            }
        }
        judge(&windows, &units).into_iter().map(|guard| guard.worse).collect()
    }

    #[test]
    fn harm_and_lost_throughput_are_detected() {
        let usual = [(3.0, 1e6), (5.0, 1.1e6), (4.0, 0.9e6), (3.5, 1.05e6)];
        let with = |drops: f64, bytes: f64| usual.map(|(d, b)| (drops * d, bytes * b));
        assert_eq!(judged(usual, with(1.1, 1.0)), [false, false, false]);
        assert_eq!(judged(usual, with(11.0, 0.97)), [true, false, false]);
        assert_eq!(judged(usual, with(0.0, 0.5)), [false, false, true]);
        // One bad window of four is chance.
        let mut one = usual;
        one[2].0 = 400.0;
        assert_eq!(judged(usual, one), [false, false, false]);
    }
}
