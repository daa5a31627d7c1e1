//! Time of stalls: how much of it samples explain, and how much no sample can.

use serde::{Deserialize, Serialize};

use crate::model::{series::labels::Labels, stage::StageName};

/// The time of stalls of the sampled stages (`rx_wait`, `net_rx`, `napi_poll`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StallTime {
    /// Number of stalls, without those inside a longer one.
    pub stalls: u64,
    /// Their time, ns. Each moment of a CPU counts once.
    pub stalled_ns: u64,
    /// Part of it in which the sampling clock was overdue, ns: the CPU did not run, or interrupts
    /// were off.
    pub unsampled_ns: u64,
    /// Part of it that samples stand for, ns: a period of the clock each, and down to half a period
    /// if the clock was overdue.
    pub sampled_ns: u64,
    /// Part of it in hard-IRQ handlers, ns; 0 when they were not timed. May overlap the others.
    #[serde(default)]
    pub irq_ns: u64,
    /// Time of further stalls, during which their CPU had no sampling clock, ns: it is in none of the
    /// others.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unclocked_ns: u64,
}

fn is_zero(ns: &u64) -> bool {
    *ns == 0
}

impl StallTime {
    /// Adds the time of other stalls.
    pub fn add(&mut self, other: &Self) {
        self.stalls = self.stalls.saturating_add(other.stalls);
        self.stalled_ns = self.stalled_ns.saturating_add(other.stalled_ns);
        self.unsampled_ns = self.unsampled_ns.saturating_add(other.unsampled_ns);
        self.sampled_ns = self.sampled_ns.saturating_add(other.sampled_ns);
        self.irq_ns = self.irq_ns.saturating_add(other.irq_ns);
        self.unclocked_ns = self.unclocked_ns.saturating_add(other.unclocked_ns);
    }

    /// Share of the time in which the CPU did not run or interrupts were off, 0 to 1.
    pub fn not_running(&self) -> f64 {
        self.share(self.unsampled_ns)
    }

    /// Share of the time that samples stand for, 0 to 1: the rest of the time at most.
    pub fn sampled(&self) -> f64 {
        self.share(self.sampled_ns).min(1.0 - self.not_running())
    }

    /// Share of the time that is neither, 0 to 1: moments between two ticks of the clock.
    pub fn unexplained(&self) -> f64 {
        (1.0 - self.not_running() - self.sampled()).max(0.0)
    }

    /// Share of the time in hard-IRQ handlers, 0 to 1.
    pub fn in_irqs(&self) -> f64 {
        self.share(self.irq_ns)
    }

    fn share(&self, ns: u64) -> f64 {
        if self.stalled_ns == 0 { 0.0 } else { (ns as f64 / self.stalled_ns as f64).min(1.0) }
    }
}

/// The time of stalls at one place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocatedTime {
    /// Their stage; absent in merged recordings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<StageName>,
    /// The CPU on which they ended; absent in merged recordings.
    #[serde(default, rename = "on_cpu", skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// Their queue.
    #[serde(flatten)]
    pub labels: Labels,
    /// The time.
    #[serde(flatten)]
    pub time: StallTime,
}

/// What the hypervisor took of one CPU while it was traced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuSteal {
    /// The host, in merged recordings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The CPU.
    pub cpu: u32,
    /// Steal of `/proc/stat`, ns, in steps of a clock tick (10 ms).
    pub steal_ns: u64,
    /// Stalls that ended on it, without those inside a longer one.
    pub stalls: u64,
    /// Those that ended in an interval with steal.
    pub stalls_then: u64,
}

impl CpuSteal {
    /// Adds what was taken of the same CPU in another interval.
    pub fn add(&mut self, other: &Self) {
        self.steal_ns = self.steal_ns.saturating_add(other.steal_ns);
        self.stalls = self.stalls.saturating_add(other.stalls);
        self.stalls_then = self.stalls_then.saturating_add(other.stalls_then);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_one() {
        for (unsampled_ns, sampled_ns) in [(0, 0), (89, 11), (40, 90), (100, 3), (7, 13)] {
            let time = StallTime {
                stalls: 1,
                stalled_ns: 100,
                unsampled_ns,
                sampled_ns,
                ..Default::default()
            };
            let sum = time.not_running() + time.sampled() + time.unexplained();
            assert!((sum - 1.0).abs() < 1e-9, "{time:?}");
            assert!(time.sampled() * 100.0 <= sampled_ns as f64 + 1e-9, "{time:?}");
        }
        assert_eq!(StallTime::default().unexplained(), 1.0);
    }
}
