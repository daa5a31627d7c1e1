//! Where the time of stalls went, in words: functions, and what no function explains.

use super::{
    format::{counted, duration, lock_wait},
    text::printable,
};
use crate::model::stall::{
    culprit::{Culprit, MIN_SHARE},
    time::{CpuSteal, StallTime},
};

/// CPUs that the sentence about steal names.
const CPUS: usize = 3;

/// A share of the time, and what took it.
pub(super) struct TimeShare {
    /// A function, or the reason why there is none.
    pub(super) name: String,
    /// 0 to 1.
    pub(super) share: f64,
    /// Samples of the function.
    pub(super) samples: Option<u64>,
}

/// The shares of the time, largest first, at most `most` functions; the unexplained time last.
pub(super) fn shares(culprits: &[Culprit], time: &StallTime, most: usize) -> Vec<TimeShare> {
    let functions = culprits.iter().take(most).map(|culprit| TimeShare {
        name: printable(&culprit.function),
        share: culprit.share,
        samples: Some(culprit.samples),
    });
    let mut shares: Vec<TimeShare> = functions.collect();
    if time.stalled_ns > 0 && time.not_running() >= MIN_SHARE {
        let irqs = match time.in_irqs() {
            share if share >= MIN_SHARE => format!(" (hard-IRQ handlers {})", percent(share)),
            _ => String::new(),
        };
        let name = format!("not running or interrupts off{irqs}");
        shares.push(TimeShare { name, share: time.not_running(), samples: None });
    }
    shares.sort_by(|a, b| b.share.total_cmp(&a.share));
    if time.stalled_ns > 0 && time.unexplained() >= MIN_SHARE {
        let share = time.unexplained();
        shares.push(TimeShare { name: "unexplained".into(), share, samples: None });
    }
    shares
}

/// `tcp_collapse 61 %, not running or interrupts off 27 %, unexplained 12 %`
pub(super) fn text(culprits: &[Culprit], time: &StallTime, most: usize) -> String {
    let named =
        shares(culprits, time, most).into_iter().map(|TimeShare { name, share, samples }| {
            let culprit =
                samples.and_then(|_| culprits.iter().find(|of| printable(&of.function) == name));
            format!("{name} {}{}", percent(share), culprit.map(lock_wait).unwrap_or_default())
        });
    named.collect::<Vec<_>>().join(", ")
}

/// What the hypervisor took of the CPUs in a run of `seconds`, and how many stalls ended meanwhile.
/// `None`: it is not known, or nothing was taken and the time of the stalls needs no explanation.
pub(super) fn steal(steal: Option<&[CpuSteal]>, time: &StallTime, seconds: f64) -> Option<String> {
    let steal = steal?;
    let taken: Vec<&CpuSteal> = steal.iter().filter(|cpu| cpu.steal_ns > 0).collect();
    if taken.is_empty() {
        let open = time.not_running() - time.in_irqs();
        return (time.stalled_ns > 0 && open >= 0.1).then(|| {
            "The hypervisor reported no steal: either interrupts were off, the firmware ran \
             (SMI), or the hypervisor does not report what it takes."
                .to_owned()
        });
    }
    let mut named: Vec<String> = taken
        .iter()
        .take(CPUS)
        .map(|cpu| {
            let host = cpu.host.as_ref().map(|host| format!(" of {}", printable(host)));
            let share = cpu.steal_ns as f64 / 1e9 / seconds.max(1e-9);
            let (took, host) = (duration(cpu.steal_ns), host.unwrap_or_default());
            format!("{took} of CPU {}{host} ({})", cpu.cpu, percent(share.min(1.0)))
        })
        .collect();
    if taken.len() > CPUS {
        named.push(format!("time of {}", counted((taken.len() - CPUS) as u64, "other CPU")));
    }
    let last = named.pop().unwrap_or_default();
    let named = match named.is_empty() {
        true => last,
        false => format!("{} and {last}", named.join(", ")),
    };
    let sum = |of: fn(&CpuSteal) -> u64| steal.iter().map(of).sum::<u64>();
    let (all, then) = (sum(|cpu| cpu.stalls), sum(|cpu| cpu.stalls_then));
    let stalls = match all {
        0 => String::new(),
        all => format!("; {then} of {} ended in intervals with steal", counted(all, "stall")),
    };
    Some(format!("The hypervisor took {named}{stalls}."))
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn culprit(function: &str, share: f64) -> Culprit {
        Culprit { function: function.into(), samples: 1, waiting_for_lock: 0, share }
    }

    #[test]
    fn time_that_no_function_took_is_in_the_list() {
        let time = StallTime {
            stalls: 1,
            stalled_ns: 100,
            unsampled_ns: 85,
            sampled_ns: 11,
            irq_ns: 3,
            unclocked_ns: 0,
        };
        assert_eq!(
            text(&[culprit("tcp_ack", 0.11)], &time, 3),
            "not running or interrupts off (hard-IRQ handlers 3 %) 85 %, tcp_ack 11 %, \
             unexplained 4 %"
        );
        // Of older recordings without times, only samples are known.
        assert_eq!(text(&[culprit("tcp_ack", 1.0)], &StallTime::default(), 3), "tcp_ack 100 %");
    }

    #[test]
    fn steal_is_told_with_the_stalls_that_ended_meanwhile() {
        let cpu = |cpu, steal_ns, stalls, stalls_then| CpuSteal {
            host: None,
            cpu,
            steal_ns,
            stalls,
            stalls_then,
        };
        let time = StallTime { stalled_ns: 10, unsampled_ns: 5, ..StallTime::default() };
        let told = steal(Some(&[cpu(0, 1_100_000_000, 20, 17), cpu(1, 0, 11, 0)]), &time, 9.0);
        assert_eq!(
            told.as_deref(),
            Some(
                "The hypervisor took 1.10s of CPU 0 (12 %); 17 of 31 stalls ended in intervals \
                 with steal."
            )
        );
        assert!(steal(Some(&[cpu(0, 0, 3, 0)]), &time, 9.0).unwrap().contains("no steal"));
        assert_eq!(steal(Some(&[cpu(0, 0, 3, 0)]), &StallTime::default(), 9.0), None);
        assert_eq!(steal(None, &time, 9.0), None);
    }
}
