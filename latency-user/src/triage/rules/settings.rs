//! Softirq settings that lengthen the tail by themselves.

use crate::{
    model::{
        finding::Detail,
        remedy::{knob::Knob, value::Value},
    },
    triage::{
        rule_answer::{Answers, all_ok, change, crossed, found, plain},
        snapshot::HostSnapshot,
    },
};

/// Longest run of `net_rx_action` that the setting allows, us; the default is 2,000, or two
/// clock ticks.
pub(super) const BUDGET_USECS: i64 = 10_000;
/// Two clock ticks where the clock ticks 100 times a second (arm64 and s390x of some
/// distributions): the kernel's own default there, us.
///
/// `netdev_budget_usecs` in <https://elixir.bootlin.com/linux/v6.12/source/net/core/hotdata.c>
const TWO_SLOW_TICKS_USECS: i64 = 20_000;
/// Packets in one run; the default is 300.
pub(super) const BUDGET: i64 = 2000;
/// Busy polling per read, us; the kernel's documentation recommends 50.
const BUSY_POLL_USECS: i64 = 100;

/// Budgets that let one softirq run for long.
pub(super) fn softirq_budget(host: &HostSnapshot, _: &[String]) -> Answers {
    let usecs = host.number("proc/sys/net/core/netdev_budget_usecs")?;
    let budget = host.number("proc/sys/net/core/netdev_budget")?;
    let text = match usecs {
        TWO_SLOW_TICKS_USECS => format!(
            "netdev_budget_usecs {usecs} (the default where the clock ticks at 100 Hz), \
             netdev_budget {budget}"
        ),
        _ => format!("netdev_budget_usecs {usecs}, netdev_budget {budget}"),
    };
    let (key, value, threshold, default) = match () {
        () if usecs >= BUDGET_USECS && usecs != TWO_SLOW_TICKS_USECS => {
            ("net.core.netdev_budget_usecs", usecs, BUDGET_USECS, 2000)
        }
        () if budget >= BUDGET => ("net.core.netdev_budget", budget, BUDGET, 300),
        () => return all_ok(text),
    };
    Ok(vec![found(Detail {
        subject: None,
        weight: 32,
        seen: format!("{text}: one softirq may run for long."),
        numbers: vec![crossed(
            key,
            value as f64,
            if key.ends_with("usecs") { "us" } else { "" },
            threshold as f64,
            format!("/proc/sys/{}", key.replace('.', "/")),
        )],
        why: "While one run lasts, nothing else gets its CPU: neither tasks nor other \
                  softirqs.",
        step: change(Knob::Sysctl(key), Value::number(value), Value::number(default)),
        iface: None,
    })])
}

/// Busy polling that keeps CPUs from other work.
pub(super) fn busy_poll(host: &HostSnapshot, _: &[String]) -> Answers {
    let poll = host.number("proc/sys/net/core/busy_poll")?;
    let read = host.number("proc/sys/net/core/busy_read")?;
    let text = format!("busy_poll {poll} us, busy_read {read} us");
    let (key, value) = match poll >= read {
        true => ("net.core.busy_poll", poll),
        false => ("net.core.busy_read", read),
    };
    if value < BUSY_POLL_USECS {
        return all_ok(text);
    }
    Ok(vec![found(Detail {
        subject: None,
        weight: 24,
        seen: format!("{text}: each blocking read spins for up to {value} us."),
        numbers: vec![
            crossed(
                key,
                value as f64,
                "us",
                BUSY_POLL_USECS as f64,
                format!("/proc/sys/{}", key.replace('.', "/")),
            ),
            plain("busy_read", read as f64, "us", "/proc/sys/net/core/busy_read"),
        ],
        why: "Spinning helps the thread that spins and takes its CPU from all others; above \
                  some 50 us it mostly takes.",
        step: change(Knob::Sysctl(key), Value::number(value), Value::number(50)),
        iface: None,
    })])
}
