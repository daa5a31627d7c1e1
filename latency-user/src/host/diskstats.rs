//! `/proc/diskstats`: I/O counters of each disk, which `iostat -x` shows as rates.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Result, bail};

/// Counters of a disk or a partition since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// Completed reads.
    pub reads: u64,
    /// Total time of reads, queueing included, ms.
    pub read_ms: u64,
    /// Completed writes.
    pub writes: u64,
    /// Total time of writes, ms.
    pub write_ms: u64,
    /// Time with at least one request in flight, ms.
    pub busy_ms: u64,
    /// Total time of all requests, including those in flight, ms.
    pub weighted_ms: u64,
}

/// Rates of a disk between two samples, as `iostat -x` reports them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DiskRates {
    /// Requests per second.
    pub requests_per_s: f64,
    /// Mean time of a read, ms; `None`: there was none.
    pub read_await_ms: Option<f64>,
    /// Mean time of a write, ms; `None`: there was none.
    pub write_await_ms: Option<f64>,
    /// Mean number of requests queued or in flight.
    pub queue: f64,
    /// Share of the time with a request in flight, percent.
    pub busy_percent: f64,
}

impl Disk {
    /// Rates since `earlier`. Milliseconds wrap at 32 bits in the kernel.
    pub fn rates(&self, earlier: &Self, elapsed: Duration) -> DiskRates {
        let ms = |later: u64, earlier: u64| f64::from((later as u32).wrapping_sub(earlier as u32));
        let reads = self.reads.saturating_sub(earlier.reads) as f64;
        let writes = self.writes.saturating_sub(earlier.writes) as f64;
        let seconds = elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
        let mean = |ms: f64, count: f64| (count > 0.0).then(|| ms / count);
        DiskRates {
            requests_per_s: (reads + writes) / seconds,
            read_await_ms: mean(ms(self.read_ms, earlier.read_ms), reads),
            write_await_ms: mean(ms(self.write_ms, earlier.write_ms), writes),
            queue: ms(self.weighted_ms, earlier.weighted_ms) / seconds / 1e3,
            busy_percent: (ms(self.busy_ms, earlier.busy_ms) / seconds / 10.0).min(100.0),
        }
    }
}

/// Parses the file: counters by name of the device, or why they cannot be read. `path` is named in
/// errors. A device that is odd does not hide the others.
///
/// Columns after the fourteenth (discards came with Linux 4.18, flushes with 5.5) are not read.
/// Lines with four counters, of partitions in Linux 2.6, are left out.
///
/// # Errors
///
/// When a line has no device, with its number.
pub fn parse(path: &Path, text: &str) -> Result<BTreeMap<String, Result<Disk, String>>> {
    let mut disks = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let place = || format!("{}:{}", path.display(), index + 1);
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_major, _minor, name, counters @ ..] = &words[..] else {
            bail!("{}: expected a device and its counters, found {line:?}", place());
        };
        if counters.len() == 4 {
            continue;
        }
        let disk = parse_counters(name, counters).map_err(|what| format!("{}: {what}", place()));
        disks.insert((*name).to_owned(), disk);
    }
    Ok(disks)
}

fn parse_counters(name: &str, counters: &[&str]) -> Result<Disk, String> {
    if counters.len() < 11 {
        return Err(format!("expected at least 11 counters of {name}, found {}", counters.len()));
    }
    let counter = |index: usize| {
        let word = counters[index];
        word.parse().map_err(|_| format!("expected a counter of {name}, found {word:?}"))
    };
    Ok(Disk {
        reads: counter(0)?,
        read_ms: counter(3)?,
        writes: counter(4)?,
        write_ms: counter(7)?,
        busy_ms: counter(9)?,
        weighted_ms: counter(10)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "   8       0 sda 100 5 800 2000 50 6 400 1000 0 900 3000\n";
    const NEW: &str = " 259 0 nvme0n1 10 0 80 20 5 0 40 10 0 9 30 7 0 800 90 3 12\n";

    fn parse(text: &str) -> BTreeMap<String, Result<Disk, String>> {
        super::parse(Path::new("/proc/diskstats"), text).unwrap()
    }

    #[test]
    fn newer_columns_are_ignored() {
        let disks = parse(&format!("{OLD}{NEW}"));
        let disk =
            Disk { reads: 10, read_ms: 20, writes: 5, write_ms: 10, busy_ms: 9, weighted_ms: 30 };
        assert_eq!(disks["nvme0n1"], Ok(disk));
        assert_eq!(disks["sda"].as_ref().unwrap().weighted_ms, 3000);
    }

    #[test]
    fn rates_are_those_of_iostat() {
        let later = Disk {
            reads: 300,
            read_ms: 3000,
            writes: 50,
            write_ms: 1000,
            busy_ms: 2900,
            weighted_ms: 7000,
        };
        let rates = later.rates(parse(OLD)["sda"].as_ref().unwrap(), Duration::from_secs(4));
        let expected = DiskRates {
            requests_per_s: 50.0,
            read_await_ms: Some(5.0),
            write_await_ms: None,
            queue: 1.0,
            busy_percent: 50.0,
        };
        assert_eq!(rates, expected);
    }

    #[test]
    fn milliseconds_wrap() {
        let earlier = Disk { busy_ms: u64::from(u32::MAX) - 9, ..Disk::default() };
        let later = Disk { busy_ms: 490, ..Disk::default() };
        assert_eq!(later.rates(&earlier, Duration::from_secs(1)).busy_percent, 50.0);
    }

    #[test]
    fn a_device_that_is_odd_does_not_hide_the_others() {
        let text = format!("8 1 sda1 1 2 3 4\n8 2 sdb 1 2\n8 3 sdc 1 2 3 4 5 6 7 8 9 10 x\n{OLD}");
        let disks = parse(&text);
        let error = |name: &str| disks[name].as_ref().unwrap_err().clone();
        assert_eq!(
            error("sdb"),
            "/proc/diskstats:2: expected at least 11 counters of sdb, found 2"
        );
        assert!(error("sdc").starts_with("/proc/diskstats:3: expected a counter of sdc"));
        assert!(disks["sda"].is_ok() && !disks.contains_key("sda1"));
        let error = super::parse(Path::new("/proc/diskstats"), "8 0\n").unwrap_err().to_string();
        assert!(error.starts_with("/proc/diskstats:1: expected a device"), "{error}");
    }
}
