//! The hooks: which programs time a stage by a method, and their attach points.

use latency_common::stage::Stage;

use crate::{
    host::kernel::Preemption,
    model::{method::Method, note::Note},
};

/// Attach point of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A raw tracepoint, as `group:name`.
    Tracepoint(&'static str),
    /// The entry of a function, by trampoline.
    Fentry(&'static str),
    /// The return of a function, by trampoline.
    Fexit(&'static str),
    /// The entry of a function, by breakpoint.
    Kprobe(&'static str),
    /// The return of a function, by breakpoint.
    Kretprobe(&'static str),
}

/// The order of attaching. Programs at ends are attached before those at starts, so that every
/// start has its end. Detaching is in reverse order, so that spans in progress can finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AttachOrder {
    /// At the end of spans.
    End,
    /// At the end of one stage's spans, and the start of another's.
    EndAndStart,
    /// At the start of spans.
    Start,
}

/// One program of the eBPF object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Its name in the object.
    pub program: &'static str,
    /// Its attach point.
    pub target: Target,
    /// When it is attached.
    pub order: AttachOrder,
    /// Whether it is attached only where softirqs can be preempted.
    pub only_preemptible: bool,
}

const fn hook(program: &'static str, target: Target, order: AttachOrder) -> Hook {
    Hook { program, target, order, only_preemptible: false }
}

const SOFTIRQ_RAISE: Hook =
    hook("softirq_raise", Target::Tracepoint("irq:softirq_raise"), AttachOrder::Start);
const SOFTIRQ_ENTRY: Hook =
    hook("softirq_entry", Target::Tracepoint("irq:softirq_entry"), AttachOrder::EndAndStart);
const SOFTIRQ_EXIT: Hook =
    hook("softirq_exit", Target::Tracepoint("irq:softirq_exit"), AttachOrder::End);
const NAPI_POLL: Hook = hook("napi_poll", Target::Tracepoint("napi:napi_poll"), AttachOrder::End);
const SCHED_SWITCH: Hook = Hook {
    only_preemptible: true,
    ..hook("sched_switch", Target::Tracepoint("sched:sched_switch"), AttachOrder::Start)
};
const IRQ_ENTRY: Hook =
    hook("irq_handler_entry", Target::Tracepoint("irq:irq_handler_entry"), AttachOrder::Start);
const IRQ_EXIT: Hook =
    hook("irq_handler_exit", Target::Tracepoint("irq:irq_handler_exit"), AttachOrder::End);

/// The program that samples stacks of stalls.
pub const SAMPLER: &str = "sample_stall";
/// Name of the sampler that counts cycles.
pub const CYCLE_SAMPLER: &str = "sample_cycles";

/// The program of the slow clock, on CPUs that have not stalled.
pub const SLOW_SAMPLER: &str = "look_for_stall";

/// Tracepoints of the packet probe, which finds the RX queue of each NAPI instance.
pub const RX_QUEUE_TRACEPOINTS: [&str; 2] = ["napi_gro_receive_entry", "napi_gro_frags_entry"];
/// Program of the packet probe.
pub const RX_QUEUE_PROGRAM: &str = "napi_gro_receive_entry";

const fn entry_and_return(programs: [&'static str; 2], targets: [Target; 2]) -> [Hook; 2] {
    [
        hook(programs[0], targets[0], AttachOrder::Start),
        hook(programs[1], targets[1], AttachOrder::End),
    ]
}

const NET_RX_FENTRY: [Hook; 3] = {
    let targets = [Target::Fentry("net_rx_action"), Target::Fexit("net_rx_action")];
    let [start, end] = entry_and_return(["net_rx_action_fentry", "net_rx_action_fexit"], targets);
    [start, end, SCHED_SWITCH]
};
const NET_RX_KPROBE: [Hook; 3] = {
    let targets = [Target::Kprobe("net_rx_action"), Target::Kretprobe("net_rx_action")];
    let programs = ["net_rx_action_kprobe", "net_rx_action_kretprobe"];
    let [start, end] = entry_and_return(programs, targets);
    [start, end, SCHED_SWITCH]
};
const NAPI_FENTRY: [Hook; 2] = entry_and_return(
    ["napi_poll_fentry", "napi_poll_fexit"],
    [Target::Fentry("__napi_poll"), Target::Fexit("__napi_poll")],
);
const NAPI_KPROBE: [Hook; 2] = entry_and_return(
    ["napi_poll_kprobe", "napi_poll_kretprobe"],
    [Target::Kprobe("__napi_poll"), Target::Kretprobe("__napi_poll")],
);
const IRQ_KPROBE: [Hook; 2] = entry_and_return(
    ["handle_irq_event_kprobe", "handle_irq_event_kretprobe"],
    [Target::Kprobe("__handle_irq_event_percpu"), Target::Kretprobe("__handle_irq_event_percpu")],
);
const COLLAPSE_FENTRY: [Hook; 2] = entry_and_return(
    ["tcp_collapse_fentry", "tcp_collapse_fexit"],
    [Target::Fentry("tcp_collapse"), Target::Fexit("tcp_collapse")],
);
const COLLAPSE_KPROBE: [Hook; 2] = entry_and_return(
    ["tcp_collapse_kprobe", "tcp_collapse_kretprobe"],
    [Target::Kprobe("tcp_collapse"), Target::Kretprobe("tcp_collapse")],
);

/// The methods of `stage`, best first.
pub const fn methods(stage: Stage) -> &'static [Method] {
    match stage {
        Stage::RxWait | Stage::Softirq => &[Method::Tracepoint],
        Stage::NetRx => &[Method::Tracepoint, Method::Fentry, Method::Kprobe],
        Stage::NapiPoll => &[Method::Fentry, Method::Kprobe, Method::Tracepoint],
        Stage::Irq => &[Method::Tracepoint, Method::Kprobe],
        Stage::TcpCollapse => &[Method::Fentry, Method::Kprobe],
    }
}

/// The programs that time `stage` by `method`; empty if the stage has no such method.
pub const fn hooks(stage: Stage, method: Method) -> &'static [Hook] {
    match (stage, method) {
        // The exits of other vectors measure interference.
        (Stage::RxWait, Method::Tracepoint) => &[SOFTIRQ_RAISE, SOFTIRQ_ENTRY, SOFTIRQ_EXIT],
        (Stage::NetRx, Method::Tracepoint) => &[SOFTIRQ_ENTRY, SOFTIRQ_EXIT, SCHED_SWITCH],
        (Stage::Softirq, Method::Tracepoint) => &[SOFTIRQ_ENTRY, SOFTIRQ_EXIT],
        (Stage::NetRx, Method::Fentry) => &NET_RX_FENTRY,
        (Stage::NetRx, Method::Kprobe) => &NET_RX_KPROBE,
        (Stage::NapiPoll, Method::Tracepoint) => &[SOFTIRQ_ENTRY, SOFTIRQ_EXIT, NAPI_POLL],
        (Stage::NapiPoll, Method::Fentry) => &NAPI_FENTRY,
        (Stage::NapiPoll, Method::Kprobe) => &NAPI_KPROBE,
        (Stage::Irq, Method::Tracepoint) => &[IRQ_ENTRY, IRQ_EXIT],
        (Stage::Irq, Method::Kprobe) => &IRQ_KPROBE,
        (Stage::TcpCollapse, Method::Fentry) => &COLLAPSE_FENTRY,
        (Stage::TcpCollapse, Method::Kprobe) => &COLLAPSE_KPROBE,
        _ => &[],
    }
}

/// Limitation of the numbers that this method measures.
pub const fn caveat(stage: Stage, method: Method) -> Option<Note> {
    match (stage, method) {
        (Stage::NapiPoll, Method::Tracepoint) => Some(Note::ApproximatePolls),
        (Stage::NetRx, Method::Tracepoint) => Some(Note::RunEndsWithLastPoll),
        // `napi_busy_loop` calls the driver's poll function directly.
        (Stage::NapiPoll, Method::Fentry | Method::Kprobe) => Some(Note::BusyPollsUnseen),
        _ => None,
    }
}

/// What the numbers of `stage` mean on a kernel with this preemption, by any method.
pub const fn meaning(stage: Stage, preemption: Preemption) -> Option<Note> {
    match stage {
        Stage::RxWait if preemption.softirqs => Some(Note::WaitsForTask),
        Stage::NetRx if preemption.softirqs => Some(Note::PreemptibleRuns { named: true }),
        Stage::NapiPoll | Stage::Softirq | Stage::TcpCollapse if preemption.softirqs => {
            Some(Note::PreemptibleRuns { named: false })
        }
        Stage::Irq if preemption.irqs => Some(Note::ThreadedIrqs),
        _ => None,
    }
}

/// The name of a tracepoint without its group.
pub fn without_group(tracepoint: &str) -> &str {
    tracepoint.split_once(':').map_or(tracepoint, |(_, name)| name)
}

impl Target {
    /// The function that must exist, for methods that probe one.
    pub const fn function(self) -> Option<&'static str> {
        match self {
            Self::Tracepoint(_) => None,
            Self::Fentry(f) | Self::Fexit(f) | Self::Kprobe(f) | Self::Kretprobe(f) => Some(f),
        }
    }

    /// Whether the program reads the function's arguments, which may differ in a copy of the
    /// function with a suffix.
    pub fn reads_arguments(self) -> bool {
        matches!(self, Self::Kprobe("__napi_poll" | "__handle_irq_event_percpu"))
    }
}

/// Attach points of a stage as text: `irq:softirq_entry/irq:softirq_exit`.
pub fn attach_points(stage: Stage, method: Method) -> String {
    let mut names: Vec<&str> = hooks(stage, method)
        .iter()
        .filter(|hook| !hook.only_preemptible)
        .map(|hook| match hook.target {
            Target::Tracepoint(name) => name,
            Target::Fentry(f) | Target::Fexit(f) | Target::Kprobe(f) | Target::Kretprobe(f) => f,
        })
        .collect();
    names.dedup();
    names.join("/")
}
