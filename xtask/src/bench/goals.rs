//! The goals, in the words in which they were set, and whether they are met.

use super::figures::Figure;

/// On which side of its limit a goal wants its figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    AtMost,
    AtLeast,
}

/// One goal.
#[derive(Debug)]
pub(crate) struct Goal {
    /// Its name in JSON.
    pub(crate) key: &'static str,
    pub(crate) text: &'static str,
    pub(crate) side: Side,
    pub(crate) limit: f64,
    /// Behind numbers.
    pub(crate) unit: &'static str,
}

const fn goal(
    key: &'static str,
    text: &'static str,
    side: Side,
    limit: f64,
    unit: &'static str,
) -> Goal {
    Goal { key, text, side, limit, unit }
}

pub(crate) static CYCLE_TO_SOFTIRQS: Goal = goal(
    "cycle_to_softirqs",
    "a whole NET_RX cycle costs at most 1.3 of what softirqs -d pays for its two programs",
    Side::AtMost,
    1.3,
    "",
);
pub(crate) static CYCLE_TO_FLOOR: Goal = goal(
    "cycle_to_floor",
    "and at most 1.15 of the floor that reads the clock as often",
    Side::AtMost,
    1.15,
    "",
);
pub(crate) static BPFTRACE_TO_CYCLE: Goal = goal(
    "bpftrace_to_cycle",
    "bpftrace with the same stamps costs at least 4 times ours",
    Side::AtLeast,
    4.0,
    "",
);
pub(crate) static LOSS_TO_SOFTIRQS: Goal = goal(
    "loss_to_softirqs",
    "of the packet rate, at most 0.6 of what softirqs loses is lost",
    Side::AtMost,
    0.6,
    "",
);
pub(crate) static TCP_P99: Goal = goal(
    "tcp_p99_added",
    "no measurable addition to p99 of TCP ping-pong (interval includes 0)",
    Side::AtMost,
    0.0,
    "%",
);
pub(crate) static UDP_P99: Goal = goal(
    "udp_p99_added",
    "no measurable addition to p99 of UDP ping-pong (interval includes 0)",
    Side::AtMost,
    0.0,
    "%",
);
pub(crate) static TCP_P99_9: Goal =
    goal("tcp_p99_9_added", "p99.9 of TCP ping-pong within 2 %", Side::AtMost, 2.0, "%");
pub(crate) static UDP_P99_9: Goal =
    goal("udp_p99_9_added", "p99.9 of UDP ping-pong within 2 %", Side::AtMost, 2.0, "%");
pub(crate) static USER_CPU: Goal = goal(
    "user_cpu_256x64",
    "user space under 0.3 % of one core at 256 CPUs x 64 queues",
    Side::AtMost,
    0.3,
    "%",
);
pub(crate) static MEMORY: Goal =
    goal("memory_beside_rows", "under 20 MB beside the rows", Side::AtMost, 20.0, "MB");
pub(crate) static STARTUP: Goal =
    goal("startup", "attached within 150 ms", Side::AtMost, 150.0, "ms");
pub(crate) static NOTHING_LOST: Goal = goal(
    "histograms_lose_nothing",
    "histograms lose nothing at any rate the machine can make",
    Side::AtMost,
    0.0,
    "events",
);

/// All of them, in the order of the table.
pub(crate) static ALL: [&Goal; 12] = [
    &CYCLE_TO_SOFTIRQS,
    &CYCLE_TO_FLOOR,
    &BPFTRACE_TO_CYCLE,
    &LOSS_TO_SOFTIRQS,
    &TCP_P99,
    &UDP_P99,
    &TCP_P99_9,
    &UDP_P99_9,
    &USER_CPU,
    &MEMORY,
    &STARTUP,
    &NOTHING_LOST,
];

/// What is said of a goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Met,
    Missed,
    /// The interval spans the limit.
    NotDecided,
    NotMeasured,
}

impl Verdict {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "MISSED",
            Self::NotDecided => "not decided",
            Self::NotMeasured => "not measured",
        }
    }
}

/// An addition of nothing is met by an interval that includes 0: no measurement can show more.
pub(crate) fn judge(goal: &Goal, figure: Option<&Figure>) -> Verdict {
    let Some(figure) = figure else { return Verdict::NotMeasured };
    let (best, worst) = match goal.side {
        Side::AtMost => (figure.low, figure.high),
        Side::AtLeast => (-figure.high, -figure.low),
    };
    let limit = if goal.side == Side::AtMost { goal.limit } else { -goal.limit };
    let wants_none = goal.limit == 0.0;
    if worst <= limit || (wants_none && best <= limit) {
        Verdict::Met
    } else if best > limit {
        Verdict::Missed
    } else {
        Verdict::NotDecided
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(low: f64, high: f64) -> Figure {
        Figure { median: f64::midpoint(low, high), low, high, slices: 9 }
    }

    #[test]
    fn an_interval_across_the_limit_decides_nothing() {
        let verdict = |low, high| judge(&CYCLE_TO_SOFTIRQS, Some(&figure(low, high)));
        assert_eq!(verdict(1.0, 1.3), Verdict::Met);
        assert_eq!(verdict(1.31, 1.5), Verdict::Missed);
        assert_eq!(verdict(1.2, 1.4), Verdict::NotDecided);
        assert_eq!(judge(&CYCLE_TO_SOFTIRQS, None), Verdict::NotMeasured);
    }

    #[test]
    fn at_least_is_the_other_way_round() {
        let verdict = |low, high| judge(&BPFTRACE_TO_CYCLE, Some(&figure(low, high)));
        assert_eq!(verdict(4.0, 6.0), Verdict::Met);
        assert_eq!(verdict(3.0, 3.9), Verdict::Missed);
        assert_eq!(verdict(3.9, 4.1), Verdict::NotDecided);
    }

    #[test]
    fn no_addition_is_an_interval_with_zero_in_it() {
        let verdict = |low, high| judge(&TCP_P99, Some(&figure(low, high)));
        assert_eq!(verdict(-1.0, 3.0), Verdict::Met);
        assert_eq!(verdict(0.5, 3.0), Verdict::Missed);
        assert_eq!(verdict(-3.0, -1.0), Verdict::Met);
    }

    #[test]
    fn keys_are_unique() {
        let keys: std::collections::BTreeSet<_> = ALL.iter().map(|goal| goal.key).collect();
        assert_eq!(keys.len(), ALL.len());
    }
}
