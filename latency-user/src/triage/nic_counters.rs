//! What the counters of `ethtool -S` count, by driver: `nic_counters.tsv`, from kernel sources.

use std::collections::BTreeMap;

/// Driver, name, class and source of each counter that is about losses or about packets of a queue.
const TABLE: &str = include_str!("nic_counters.tsv");

/// Drivers that `ethtool -i` calls otherwise than the table.
const ALIASES: [(&str, &str); 5] = [
    ("st_gmac", "stmmac"),
    ("st_xgmac", "stmmac"),
    ("st_mac100", "stmmac"),
    ("mlx5e_rep", "mlx5_core"),
    ("netvsc", "hv_netvsc"),
];

/// Parts of names that look like a loss, for drivers and names that the table lacks.
const LOSSES: [&str; 19] = [
    "drop",
    "discard",
    "no_buf",
    "nobuf",
    "no_dma",
    "missed",
    "out_of_buf",
    "oob",
    "overrun",
    "overflow",
    "fifo_err",
    "alloc_fail",
    "unav",
    "nodesc",
    "no_desc",
    "lost",
    "macerr",
    "resource_err",
    "no_resource",
];

/// What a counter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// Received packets lost for want of descriptors or buffers in the ring.
    NoBuffer,
    /// Received packets lost because the host was too slow: the bus, a FIFO of the NIC.
    Host,
    /// Received packets lost for want of memory.
    Alloc,
    /// Received packets dropped on purpose: filters, XDP, frames for others.
    Policy,
    /// Damaged frames.
    Error,
    /// About sending.
    Tx,
    /// The packets of a queue, or a part of them.
    QueuePackets,
    /// None of these.
    Other,
}

impl Class {
    fn parse(text: &str) -> Self {
        match text {
            "rx-no-buffer" => Self::NoBuffer,
            "rx-host" => Self::Host,
            "rx-alloc" => Self::Alloc,
            "rx-policy" => Self::Policy,
            "rx-error" => Self::Error,
            "tx" => Self::Tx,
            "rx-packets-queue" | "rx-packets-queue-part" => Self::QueuePackets,
            _ => Self::Other,
        }
    }
}

/// A counter that the table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    class: Class,
    /// The number in its name.
    queue: Option<u32>,
}

/// The counters of a driver; of all drivers, if it is not known or not in the table.
pub(super) struct Counters {
    rows: Vec<(&'static str, Class)>,
    /// Whether the driver is in the table.
    pub(super) is_known: bool,
}

impl Counters {
    /// Those of `driver`, as `ethtool -i` calls it.
    pub(super) fn of(driver: Option<&str>) -> Self {
        let alias = |name: &str| ALIASES.iter().find(|(other, _)| *other == name);
        let driver = driver.map(|name| alias(name).map_or(name, |(_, driver)| driver));
        let rows = || {
            TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
                let mut words = line.split('\t');
                Some((words.next()?, words.next()?, Class::parse(words.next()?)))
            })
        };
        let own: Vec<_> =
            rows().filter(|(of, ..)| Some(*of) == driver).map(|(_, name, c)| (name, c)).collect();
        let is_known = !own.is_empty();
        let rows = if is_known { own } else { rows().map(|(_, name, c)| (name, c)).collect() };
        Self { rows, is_known }
    }

    fn find(&self, name: &str) -> Option<Known> {
        let name = name.trim();
        let mut found: Option<Known> = None;
        for (pattern, class) in &self.rows {
            let Some(queue) = matched(pattern, name) else { continue };
            match found {
                // Drivers differ in what they call so.
                Some(other) if other.class != *class => return None,
                _ => found = Some(Known { class: *class, queue }),
            }
            if self.is_known {
                break;
            }
        }
        found
    }

    /// What `name` counts; `None`: the table does not know.
    pub(super) fn class(&self, name: &str) -> Option<Class> {
        self.find(name).map(|known| known.class)
    }

    /// The packets of each RX queue. Counters of equal names add up. vmxnet3 repeats its names for
    /// each queue, below a line with its number.
    pub(super) fn packets_by_queue(&self, counters: &[(String, u64)]) -> BTreeMap<u32, u64> {
        let mut sums: BTreeMap<u32, u64> = BTreeMap::new();
        let mut section = None;
        for (name, value) in counters {
            match name.trim() {
                "Rx Queue#" => section = u32::try_from(*value).ok(),
                "Tx Queue#" => section = None,
                _ => {}
            }
            let Some(known) = self.find(name) else { continue };
            let Some(queue) = known.queue.or(section) else { continue };
            if known.class == Class::QueuePackets {
                let sum = sums.entry(queue).or_default();
                *sum = sum.saturating_add(*value);
            }
        }
        sums
    }
}

/// Whether a name looks like that of a loss of received packets.
pub(super) fn looks_like_loss(name: &str) -> bool {
    let is_sent = sends(name);
    let name = name.trim().to_ascii_lowercase();
    !is_sent && !name.contains("xdp") && LOSSES.iter().any(|part| name.contains(part))
}

/// Whether a name says that it is about sending.
pub(super) fn sends(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let mut words = name.split(|c: char| !c.is_ascii_alphanumeric());
    words.any(|word| word.starts_with("tx") || word == "xmit")
}

/// Whether `name` matches `pattern`, and the number in the place of `{n}`.
fn matched(pattern: &str, name: &str) -> Option<Option<u32>> {
    let Some(at) = pattern.find('{') else { return (pattern == name).then_some(None) };
    let rest = name.strip_prefix(&pattern[..at])?;
    let (kind, tail) = pattern[at..].split_at(3);
    if kind == "{n}" {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let queue: u32 = rest[..digits].parse().ok()?;
        return matched(tail, &rest[digits..]).map(|_| Some(queue));
    }
    // `{*}` stands for one character or more.
    let ends = rest.char_indices().map(|(at, c)| at + c.len_utf8());
    ends.into_iter().find_map(|end| matched(tail, &rest[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_numbers_and_anything() {
        assert_eq!(matched("rx_packets", "rx_packets"), Some(None));
        assert_eq!(matched("[{n}]: rx_ucast_packets", "[12]: rx_ucast_packets"), Some(Some(12)));
        assert_eq!(matched("rx{n}_packets", "rx_packets"), None);
        assert_eq!(matched("TC{*} Queue[{n}] InPackets", "TC1 Queue[3] InPackets"), Some(Some(3)));
        assert_eq!(matched("rx{n}_packets", "rx99999999999_packets"), None);
    }

    #[test]
    fn names_that_drivers_use_differently_are_not_known_without_the_driver() {
        let any = Counters::of(None);
        assert!(!any.is_known);
        assert_eq!(any.class("rx_no_dma_resources"), Some(Class::NoBuffer));
        assert_eq!(any.class("rx_dropped"), None);
        assert_eq!(Counters::of(Some("ixgbe")).class("rx_dropped"), Some(Class::Policy));
        assert_eq!(Counters::of(Some("st_gmac")).class("mmc_rx_fifo_overflow"), Some(Class::Host));
    }

    #[test]
    fn sections_of_vmxnet3_are_its_queues() {
        let counters: Vec<(String, u64)> = [
            ("Tx Queue#", 0),
            ("ucast pkts tx", 7),
            ("Rx Queue#", 0),
            ("  ucast pkts rx", 5),
            ("  mcast pkts rx", 1),
            ("Rx Queue#", 1),
            ("  ucast pkts rx", 9),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let found = Counters::of(Some("vmxnet3")).packets_by_queue(&counters);
        assert_eq!(found, BTreeMap::from([(0, 6), (1, 9)]));
    }

    #[test]
    fn losses_are_recognized_by_their_names() {
        for name in ["rx_drops", "pkts rx OOB", "rx_queue_0_drops", "mmc_rx_fifo_overflow"] {
            assert!(looks_like_loss(name), "{name}");
        }
        for name in ["tx_dropped", "rx_xdp_drops", "[0]: tx_discards", "drv dropped tx total"] {
            assert!(!looks_like_loss(name), "{name}");
        }
    }

    /// Names that drivers' sources print, with two queues.
    #[test]
    fn each_driver_is_understood() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/nic_counters");
        let mut drivers = 0;
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let driver = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let text = std::fs::read_to_string(&path).unwrap();
            let counters = Counters::of(Some(&driver));
            assert!(counters.is_known, "{driver}");
            let unknown: Vec<&str> = text
                .lines()
                .filter(|name| looks_like_loss(name) && counters.class(name).is_none())
                .collect();
            assert_eq!(unknown, [] as [&str; 0], "{driver}");
            let counted: Vec<(String, u64)> = text
                .lines()
                .scan(0, |queue, name| {
                    // The number of a queue is the value of its first line.
                    let is_section = name == "Rx Queue#";
                    *queue += u64::from(is_section);
                    Some((name.to_owned(), if is_section { *queue - 1 } else { 1 }))
                })
                .collect();
            let queues: Vec<u32> = counters.packets_by_queue(&counted).into_keys().collect();
            let without = ["cxgb4", "e1000e", "enic", "r8169", "tg3", "virtio_net"];
            let expected: &[u32] = match without.contains(&driver.as_str()) {
                true if queues.is_empty() => &[],
                _ => &[0, 1],
            };
            assert_eq!(queues, expected, "{driver}");
            drivers += 1;
        }
        assert_eq!(drivers, 31);
    }

    #[test]
    fn every_row_names_a_class_and_a_source() {
        for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<&str> = line.split('\t').collect();
            let [_, name, class, source] = words[..] else { panic!("{line}") };
            assert!(class == "other" || Class::parse(class) != Class::Other, "{line}");
            assert!(!name.is_empty() && source.contains(['.', '/']), "{line}");
        }
    }
}
