//! The rules, one file a rule or a small family of them, and their list.

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

use super::{rule_answer::Answers, snapshot::Host};
use crate::model::finding::Step;

/// A rule: what it is called, where it belongs, and how it is checked.
pub(super) struct Rule {
    pub(super) name: &'static str,
    pub(super) step: Step,
    /// Judges the host, and of its interfaces those that are named.
    pub(super) check: fn(&Host, &[String]) -> Answers,
}

const fn rule(name: &'static str, step: Step, check: fn(&Host, &[String]) -> Answers) -> Rule {
    Rule { name, step, check }
}

/// All rules, in the order of the flow.
pub(super) const RULES: &[Rule] = &[
    rule("iowait", Step::Io, waiting::iowait),
    rule("io_pressure", Step::Io, waiting::io_pressure),
    rule("disk_latency", Step::Io, disk::latency),
    rule("disk_busy", Step::Io, disk::busy),
    rule("io_scheduler", Step::Io, disk::scheduler),
    rule("cpu_softirq", Step::Cpu, cpu::softirq),
    rule("cpu_saturated", Step::Cpu, cpu::saturated),
    rule("cpu_steal", Step::Cpu, cpu::steal),
    rule("cpu_pressure", Step::Cpu, waiting::cpu_pressure),
    rule("ksoftirqd", Step::Cpu, cpu::ksoftirqd),
    rule("cpu_governor", Step::Cpu, power::governor),
    rule("cpu_idle_states", Step::Cpu, power::idle_states),
    rule("kernel_version", Step::Cpu, kernel_version::check),
    rule("hot_irq", Step::Irq, irq::hot),
    rule("irqs_on_one_cpu", Step::Irq, irq::one_cpu),
    rule("net_rx_on_one_cpu", Step::Irq, irq_placement::net_rx_on_one_cpu),
    rule("irq_numa_node", Step::Irq, irq_placement::numa_node),
    rule("irq_affinity_moved", Step::Irq, irq_placement::moved),
    rule("softnet_drops", Step::Irq, softnet::drops),
    rule("time_squeeze", Step::Irq, softnet::time_squeeze),
    rule("flow_limit", Step::Irq, softnet::flow_limit),
    rule("softirq_budget", Step::Irq, settings::softirq_budget),
    rule("busy_poll", Step::Irq, settings::busy_poll),
    rule("nic_queues", Step::Nic, queues::count),
    rule("queue_imbalance", Step::Nic, queues::imbalance),
    rule("nic_drops", Step::Nic, drops::nic),
    rule("cloud_limits", Step::Nic, drops::cloud_limits),
    rule("nic_coalescing", Step::Nic, offloads::coalescing),
    rule("gro_off", Step::Nic, offloads::gro),
    rule("tso_off", Step::Nic, offloads::tso),
    rule("checksum_off", Step::Nic, offloads::checksums),
    rule("lro_forwarding", Step::Nic, offloads::lro),
    rule("rps", Step::Nic, steering::rps),
    rule("rfs", Step::Nic, steering::rfs),
    rule("xps", Step::Nic, steering::xps),
    rule("link", Step::Nic, queues::link),
    rule("qdisc", Step::Nic, qdisc::check),
    rule("gro_flush_timeout", Step::Nic, napi::flush_timeout),
    rule("threaded_napi", Step::Nic, napi::threaded),
    rule("tcp_collapse", Step::Tcp, tcp_buffers::collapse),
    rule("tcp_buffers", Step::Tcp, tcp_buffers::settings),
    rule("tcp_backlog_drops", Step::Tcp, tcp::backlog_drops),
    rule("listen_overflows", Step::Tcp, tcp::listen_overflows),
    rule("tcp_retransmits", Step::Tcp, tcp::retransmits),
    rule("udp_buffer_errors", Step::Tcp, tcp::udp_buffer_errors),
    rule("trace_stalls", Step::Trace, trace::stalls),
];
