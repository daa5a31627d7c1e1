//! Decides when packets are asked for the RX queue that they came from.
//!
//! The packet probe runs for every packet of the machine, so it is attached only while a queue
//! without a number receives packets, for a few snapshots, and again now and then.

use std::collections::BTreeMap;

/// Snapshots with packets in which the probe is attached at first.
const FIRST: u32 = 10;

/// Snapshots for which it then stays, since packets may pause.
const LINGER: u32 = 10;

/// The queues that have no number yet.
#[derive(Default)]
pub(super) struct PacketWatch {
    rows: BTreeMap<u32, Watched>,
    linger: u32,
}

/// A queue without a number.
#[derive(Default)]
struct Watched {
    /// Packets so far.
    packets: u64,
    /// Snapshots in which there were more.
    snapshots: u32,
}

impl PacketWatch {
    /// Whether to look at packets until the next snapshot: whether one of the rows in `unsettled`,
    /// with `packets` so far, received some in one of the last snapshots and is worth another look.
    pub(super) fn is_due(&mut self, unsettled: &[u32], packets: impl Fn(u32) -> u64) -> bool {
        self.rows.retain(|row, _| unsettled.contains(row));
        let mut due = false;
        for &row in unsettled {
            let watched = self.rows.entry(row).or_default();
            let now = packets(row);
            if now > watched.packets {
                watched.packets = now;
                watched.snapshots = watched.snapshots.saturating_add(1);
                due |= watched.snapshots <= FIRST || watched.snapshots.is_power_of_two();
            }
        }
        self.linger = if due { LINGER } else { self.linger.saturating_sub(1) };
        self.linger > 0 && !unsettled.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_watched_while_it_receives_packets() {
        let mut watch = PacketWatch::default();
        // Quiet for long, as an instance that only sends.
        assert!((0..100).all(|_| !watch.is_due(&[3], |_| 0)));
        assert!(watch.is_due(&[3], |_| 5));
        // And a little longer.
        let due = (0..100).filter(|_| watch.is_due(&[3], |_| 5)).count();
        assert_eq!(due as u32, LINGER - 1);
        assert!(watch.is_due(&[3, 4], |row| if row == 4 { 1 } else { 5 }));
        assert!(!watch.is_due(&[], |_| 9));
    }

    #[test]
    fn a_queue_whose_packets_tell_nothing_is_watched_ever_less() {
        let mut watch = PacketWatch::default();
        let due = (1..=100).filter(|packets| watch.is_due(&[3], |_| *packets)).count() as u32;
        // Of the first ten to the 16th, then from the 32nd and the 64th on.
        assert_eq!(due, 16 + 3 * LINGER - 1);
    }
}
