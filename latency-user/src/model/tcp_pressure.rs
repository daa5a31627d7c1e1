//! What TCP did to stay inside its receive buffers, by the kernel's own counters.

use serde::{Deserialize, Serialize};

/// Counters of one network namespace: since boot, or over a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpPressure {
    /// Inode of the network namespace.
    pub netns: u32,
    /// `TcpExt PruneCalled`: a full receive buffer had to be pruned.
    pub prune_called: u64,
    /// `TcpExt TCPRcvCollapsed`: packets that `tcp_collapse` removed.
    pub rcv_collapsed: u64,
    /// `TcpExt RcvPruned`: packets that were dropped, because collapsing was not enough.
    pub rcv_pruned: u64,
    /// `TcpExt OfoPruned`: out-of-order packets that were dropped.
    pub ofo_pruned: u64,
    /// Whether the namespace ended during the run: counts after its last reading are missing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
}

impl TcpPressure {
    /// The increase since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            netns: self.netns,
            prune_called: self.prune_called.saturating_sub(earlier.prune_called),
            rcv_collapsed: self.rcv_collapsed.saturating_sub(earlier.rcv_collapsed),
            rcv_pruned: self.rcv_pruned.saturating_sub(earlier.rcv_pruned),
            ofo_pruned: self.ofo_pruned.saturating_sub(earlier.ofo_pruned),
            ended: self.ended,
        }
    }

    /// The sum of both.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            netns: self.netns,
            prune_called: self.prune_called.saturating_add(other.prune_called),
            rcv_collapsed: self.rcv_collapsed.saturating_add(other.rcv_collapsed),
            rcv_pruned: self.rcv_pruned.saturating_add(other.rcv_pruned),
            ofo_pruned: self.ofo_pruned.saturating_add(other.ofo_pruned),
            ended: self.ended,
        }
    }

    /// Whether a counter is smaller than in `other`. Counters of one namespace only grow.
    pub fn is_below(&self, other: &Self) -> bool {
        self.prune_called < other.prune_called
            || self.rcv_collapsed < other.rcv_collapsed
            || self.rcv_pruned < other.rcv_pruned
            || self.ofo_pruned < other.ofo_pruned
    }

    /// Whether nothing happened.
    pub fn is_none(&self) -> bool {
        Self { netns: 0, ended: false, ..*self } == Self::default()
    }
}

/// What happened since `earlier`, in every namespace in which something did.
pub fn since(now: &[TcpPressure], earlier: &[TcpPressure]) -> Vec<TcpPressure> {
    let since = now.iter().map(|now| {
        let before = earlier.iter().find(|before| before.netns == now.netns);
        before.map_or(*now, |before| now.since(before))
    });
    since.filter(|pressure| !pressure.is_none()).collect()
}

/// The sums by namespace.
pub fn sums(mut sums: Vec<TcpPressure>, others: &[TcpPressure]) -> Vec<TcpPressure> {
    for other in others {
        match sums.iter_mut().find(|sum| sum.netns == other.netns) {
            Some(sum) => *sum = TcpPressure { ended: other.ended, ..sum.plus(other) },
            None => sums.push(*other),
        }
    }
    sums
}
