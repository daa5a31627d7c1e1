//! The goals of the benchmark, and whether they are met.

use super::figures::Figure;

/// Whether the limit of a goal is an upper or a lower bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    AtMost,
    AtLeast,
}

/// One goal.
#[derive(Debug)]
pub(crate) struct Goal {
    /// Its name in JSON.
    pub(crate) key: &'static str,
    pub(crate) text: &'static str,
    pub(crate) bound: Bound,
    pub(crate) limit: f64,
    /// Unit of the figure and the limit; may be empty.
    pub(crate) unit: &'static str,
}

const fn goal(
    key: &'static str,
    text: &'static str,
    bound: Bound,
    limit: f64,
    unit: &'static str,
) -> Goal {
    Goal { key, text, bound, limit, unit }
}

pub(crate) static CYCLE_TO_SOFTIRQS: Goal = goal(
    "cycle_to_softirqs",
    "a complete NET_RX cycle costs at most 1.2 times the two programs of softirqs -d",
    Bound::AtMost,
    1.2,
    "",
);
pub(crate) static STAGE_LOSS: Goal = goal(
    "stage_loss_to_softirqs",
    "packet rate lost by one stage is at most that lost with softirqs -d",
    Bound::AtMost,
    1.0,
    "",
);
pub(crate) static CYCLE_LOSS: Goal = goal(
    "cycle_loss_to_softirqs",
    "and by rx_wait, net_rx and napi_poll at most 1.15 times that",
    Bound::AtMost,
    1.15,
    "",
);
pub(crate) static BPFTRACE_LOSS: Goal = goal(
    "bpftrace_loss_to_cycle",
    "bpftrace with the same stamps loses at least 3 times as much",
    Bound::AtLeast,
    3.0,
    "",
);
pub(crate) static TCP_P50: Goal =
    goal("tcp_p50_added", "p50 of TCP ping-pong within 2 %", Bound::AtMost, 2.0, "%");
pub(crate) static TCP_P99: Goal =
    goal("tcp_p99_added", "p99 of TCP ping-pong within 2 %", Bound::AtMost, 2.0, "%");
pub(crate) static TCP_P99_9: Goal =
    goal("tcp_p99_9_added", "p99.9 of TCP ping-pong within 2 %", Bound::AtMost, 2.0, "%");
pub(crate) static UDP_P50: Goal =
    goal("udp_p50_added", "p50 of UDP ping-pong within 2 %", Bound::AtMost, 2.0, "%");
pub(crate) static UDP_P99: Goal =
    goal("udp_p99_added", "p99 of UDP ping-pong within 2 %", Bound::AtMost, 2.0, "%");
pub(crate) static UDP_P99_9: Goal =
    goal("udp_p99_9_added", "p99.9 of UDP ping-pong within 2 %", Bound::AtMost, 2.0, "%");
pub(crate) static USER_CPU: Goal = goal(
    "user_cpu_256x64",
    "user space under 0.3 % of one core at 256 CPUs x 64 queues",
    Bound::AtMost,
    0.3,
    "%",
);
pub(crate) static SERVE_USER: Goal = goal(
    "serve_user",
    "user space of serve under 0.3 % of one core here, at 1 s",
    Bound::AtMost,
    0.3,
    "%",
);
pub(crate) static SERVE_USER_LARGE: Goal =
    goal("serve_user_256x64", "and at 256 CPUs x 64 queues, at 10 s", Bound::AtMost, 0.3, "%");
pub(crate) static SERVE_PEAK: Goal = goal(
    "serve_peak",
    "peak memory of serve under 64 MB beside the rows",
    Bound::AtMost,
    64.0,
    "MB",
);
pub(crate) static MEMORY: Goal =
    goal("memory_beside_rows", "under 20 MB besides the rows", Bound::AtMost, 20.0, "MB");
pub(crate) static MEMORY_PEAK: Goal =
    goal("memory_peak", "and never more than 64 MB", Bound::AtMost, 64.0, "MB");
pub(crate) static STARTUP: Goal =
    goal("startup", "attached within 150 ms", Bound::AtMost, 150.0, "ms");
pub(crate) static NOTHING_LOST: Goal = goal(
    "histograms_lose_nothing",
    "histograms lose nothing at any rate the machine can generate",
    Bound::AtMost,
    0.0,
    "events",
);

pub(crate) static GROWTH_CPUS: Goal = goal(
    "growth_cpus",
    "a cycle costs at most a tenth more on 2 CPUs under load than on 1",
    Bound::AtMost,
    1.1,
    "",
);
pub(crate) static GROWTH_QUEUES: Goal = goal(
    "growth_queues",
    "at most a tenth more with 64 queues than with 1",
    Bound::AtMost,
    1.1,
    "",
);
pub(crate) static GROWTH_STALLS: Goal = goal(
    "growth_stalls",
    "and at most a tenth more with 10,000 stalls/s than with none",
    Bound::AtMost,
    1.1,
    "",
);

/// All goals, in the order of the table.
pub(crate) static ALL: [&Goal; 21] = [
    &CYCLE_TO_SOFTIRQS,
    &STAGE_LOSS,
    &CYCLE_LOSS,
    &BPFTRACE_LOSS,
    &TCP_P50,
    &TCP_P99,
    &TCP_P99_9,
    &UDP_P50,
    &UDP_P99,
    &UDP_P99_9,
    &USER_CPU,
    &SERVE_USER,
    &SERVE_USER_LARGE,
    &SERVE_PEAK,
    &MEMORY,
    &MEMORY_PEAK,
    &STARTUP,
    &NOTHING_LOST,
    &GROWTH_CPUS,
    &GROWTH_QUEUES,
    &GROWTH_STALLS,
];

/// Whether a goal was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Met,
    Missed,
    /// The interval includes the limit.
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

/// Judges by the ends of the interval. A limit of 0 is met by an interval that includes 0: no
/// measurement can show more.
pub(crate) fn judge(goal: &Goal, figure: Option<&Figure>) -> Verdict {
    let Some(figure) = figure else { return Verdict::NotMeasured };
    let (best, worst) = match goal.bound {
        Bound::AtMost => (figure.low, figure.high),
        Bound::AtLeast => (-figure.high, -figure.low),
    };
    let limit = if goal.bound == Bound::AtMost { goal.limit } else { -goal.limit };
    let is_zero = goal.limit == 0.0;
    if worst <= limit || (is_zero && best <= limit) {
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
    fn an_interval_that_includes_the_limit_is_undecided() {
        let verdict = |low, high| judge(&CYCLE_TO_SOFTIRQS, Some(&figure(low, high)));
        assert_eq!(verdict(1.0, 1.2), Verdict::Met);
        assert_eq!(verdict(1.21, 1.5), Verdict::Missed);
        assert_eq!(verdict(1.1, 1.4), Verdict::NotDecided);
        assert_eq!(judge(&CYCLE_TO_SOFTIRQS, None), Verdict::NotMeasured);
    }

    #[test]
    fn at_least_is_judged_the_other_way_round() {
        let verdict = |low, high| judge(&BPFTRACE_LOSS, Some(&figure(low, high)));
        assert_eq!(verdict(3.0, 6.0), Verdict::Met);
        assert_eq!(verdict(2.0, 2.9), Verdict::Missed);
        assert_eq!(verdict(2.9, 3.1), Verdict::NotDecided);
    }

    #[test]
    fn a_limit_of_zero_is_met_by_an_interval_that_includes_zero() {
        let verdict = |low, high| judge(&NOTHING_LOST, Some(&figure(low, high)));
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
