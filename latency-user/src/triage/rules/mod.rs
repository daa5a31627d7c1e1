//! The rules, one file per rule or small family of rules, and their list.

mod cpu;
mod disk;
mod drops;
mod irq;
mod irq_placement;
mod kernel_version;
mod napi;
mod offloads;
mod power;
mod qdisc;
mod queues;
mod settings;
mod softnet;
mod steering;
mod tcp;
mod tcp_buffers;
mod trace;
mod waiting;

use super::{rule_answer::Answers, snapshot::HostSnapshot};
use crate::model::finding::TriageStep;

/// A rule: its name, its step and its check.
pub(super) struct Rule {
    pub(super) name: &'static str,
    pub(super) step: TriageStep,
    /// Judges the host and those of its interfaces that are named.
    pub(super) check: fn(&HostSnapshot, &[String]) -> Answers,
}

const fn rule(
    name: &'static str,
    step: TriageStep,
    check: fn(&HostSnapshot, &[String]) -> Answers,
) -> Rule {
    Rule { name, step, check }
}

/// All rules, in the order of the flow.
pub(super) const RULES: &[Rule] = &[
    rule("iowait", TriageStep::Io, waiting::iowait),
    rule("io_pressure", TriageStep::Io, waiting::io_pressure),
    rule("disk_latency", TriageStep::Io, disk::latency),
    rule("disk_busy", TriageStep::Io, disk::busy),
    rule("io_scheduler", TriageStep::Io, disk::scheduler),
    rule("cpu_softirq", TriageStep::Cpu, cpu::softirq),
    rule("cpu_saturated", TriageStep::Cpu, cpu::saturated),
    rule("cpu_steal", TriageStep::Cpu, cpu::steal),
    rule("cpu_pressure", TriageStep::Cpu, waiting::cpu_pressure),
    rule("ksoftirqd", TriageStep::Cpu, cpu::ksoftirqd),
    rule("cpu_governor", TriageStep::Cpu, power::governor),
    rule("cpu_idle_states", TriageStep::Cpu, power::idle_states),
    rule("kernel_version", TriageStep::Cpu, kernel_version::check),
    rule("hot_irq", TriageStep::Irq, irq::hot),
    rule("irqs_on_one_cpu", TriageStep::Irq, irq::one_cpu),
    rule("net_rx_on_one_cpu", TriageStep::Irq, irq_placement::net_rx_on_one_cpu),
    rule("irq_numa_node", TriageStep::Irq, irq_placement::numa_node),
    rule("irq_affinity_moved", TriageStep::Irq, irq_placement::moved),
    rule("softnet_drops", TriageStep::Irq, softnet::drops),
    rule("time_squeeze", TriageStep::Irq, softnet::time_squeeze),
    rule("flow_limit", TriageStep::Irq, softnet::flow_limit),
    rule("softirq_budget", TriageStep::Irq, settings::softirq_budget),
    rule("busy_poll", TriageStep::Irq, settings::busy_poll),
    rule("nic_queues", TriageStep::Nic, queues::count),
    rule("queue_imbalance", TriageStep::Nic, queues::imbalance),
    rule("nic_drops", TriageStep::Nic, drops::nic),
    rule("nic_tx_drops", TriageStep::Nic, drops::sent),
    rule("cloud_limits", TriageStep::Nic, drops::cloud_limits),
    rule("nic_coalescing", TriageStep::Nic, offloads::coalescing),
    rule("gro_off", TriageStep::Nic, offloads::gro),
    rule("tso_off", TriageStep::Nic, offloads::tso),
    rule("checksum_off", TriageStep::Nic, offloads::checksums),
    rule("lro_forwarding", TriageStep::Nic, offloads::lro),
    rule("rps", TriageStep::Nic, steering::rps),
    rule("rfs", TriageStep::Nic, steering::rfs),
    rule("xps", TriageStep::Nic, steering::xps),
    rule("link", TriageStep::Nic, queues::link),
    rule("qdisc", TriageStep::Nic, qdisc::check),
    rule("gro_flush_timeout", TriageStep::Nic, napi::flush_timeout),
    rule("threaded_napi", TriageStep::Nic, napi::threaded),
    rule("tcp_collapse", TriageStep::Tcp, tcp_buffers::collapse),
    rule("tcp_buffers", TriageStep::Tcp, tcp_buffers::settings),
    rule("tcp_backlog_drops", TriageStep::Tcp, tcp::backlog_drops),
    rule("listen_overflows", TriageStep::Tcp, tcp::listen_overflows),
    rule("tcp_retransmits", TriageStep::Tcp, tcp::retransmits),
    rule("udp_buffer_errors", TriageStep::Tcp, tcp::udp_buffer_errors),
    rule("trace_stalls", TriageStep::Trace, trace::stalls),
];
