//! Culprits: the functions that stalls were spent in, derived from sampled stacks.
//!
//! A sample counts for its deepest frame that is not a helper. Helpers are functions that half the
//! kernel calls (copying, allocating, locking, reading the clock): their time goes to the caller,
//! and the wait for a lock goes to the waiter. A function of an eBPF program counts for the
//! program. Nothing here knows which functions are worth blaming.
//!
//! Shares are of the time of the stalls, not of the samples: where samples are missing, the time is
//! nobody's.

use std::collections::BTreeMap;

use super::helper_functions::{LOCK_WAITS, calls_back_bpf, is_bpf, is_helper, is_own_program};
use crate::model::stall::{
    batch::Stack,
    culprit::{Culprit, MIN_SHARE},
    time::StallTime,
};

/// A caller is blamed for a callee that has at most this many times the caller's own samples.
const CALLER_PART: u64 = 4;

/// The culprit of one stack: its deepest frame that is not a helper, or its deepest frame if it
/// has only helpers. `None` for a stack without frames.
pub fn culprit(frames: &[String]) -> Option<&str> {
    culprit_at(frames).map(|at| frames[at].as_str())
}

/// Index of the culprit of one stack.
fn culprit_at(frames: &[String]) -> Option<usize> {
    let mut at = 0;
    while let Some(frame) = frames.get(at) {
        if is_bpf(frame) {
            let program = program_at(frames, at);
            if !is_own_program(&frames[program]) {
                return Some(program);
            }
            at = program;
        } else if !is_helper(frame) {
            return Some(at);
        }
        at += 1;
    }
    (!frames.is_empty()).then_some(0)
}

/// Index of the program whose function is the frame `at`: the outermost of adjoining frames of
/// eBPF, with the kernel's helpers that call functions of a program back.
fn program_at(frames: &[String], at: usize) -> usize {
    let rest = frames[at..].iter().take_while(|frame| is_bpf(frame) || calls_back_bpf(frame));
    at + rest.enumerate().filter(|(_, frame)| is_bpf(frame)).last().map_or(0, |(last, _)| last)
}

/// Share of `time` that `samples` of `all` samples stand for, 0 to 1. If the time is unknown, their
/// share of the samples.
pub fn share_of(samples: u64, all: u64, time: &StallTime) -> f64 {
    let of_samples = samples as f64 / all.max(1) as f64;
    if time.stalled_ns == 0 { of_samples } else { of_samples * time.sampled() }
}

/// The culprits of the stacks of stalls that took `time`, worst first. Those with less than 1 % of
/// it are left out.
///
/// A function that is reached only through another culprit counts for that culprit, unless the
/// culprit has hardly any samples itself: what a loop calls is part of the loop, what an entry
/// point calls is not part of the entry point.
pub fn culprits<'a>(stacks: impl IntoIterator<Item = &'a Stack>, time: &StallTime) -> Vec<Culprit> {
    let mut blamed: Vec<Blamed> = stacks.into_iter().filter_map(Blamed::new).collect();
    let all: u64 = blamed.iter().map(|sample| sample.count).sum();
    let mut ascending: Vec<(u64, &str)> =
        samples_of(&blamed).into_iter().map(|(function, samples)| (samples, function)).collect();
    ascending.sort_unstable();
    for (_, function) in ascending {
        blame_caller(&mut blamed, function);
    }
    let mut waiting: BTreeMap<&str, u64> = BTreeMap::new();
    for sample in blamed.iter().filter(|sample| sample.waits_for_lock) {
        *waiting.entry(sample.function()).or_default() += sample.count;
    }
    let mut culprits: Vec<Culprit> = samples_of(&blamed)
        .into_iter()
        .map(|(function, samples)| Culprit {
            function: function.to_owned(),
            samples,
            waiting_for_lock: waiting.get(function).copied().unwrap_or(0),
            share: share_of(samples, all, time),
        })
        .filter(|culprit| culprit.share >= MIN_SHARE)
        .collect();
    culprits.sort_by(|a, b| b.samples.cmp(&a.samples).then_with(|| a.function.cmp(&b.function)));
    culprits
}

/// A stack and the frame blamed for it.
struct Blamed<'a> {
    frames: &'a [String],
    at: usize,
    count: u64,
    /// Whether a frame below the blamed one waits for a lock.
    waits_for_lock: bool,
    /// Whether it was found in a program of this tracer, called by the blamed function.
    in_tracer: bool,
}

impl<'a> Blamed<'a> {
    fn new(stack: &'a Stack) -> Option<Self> {
        let at = culprit_at(&stack.frames)?;
        let waits_for_lock =
            stack.frames[..at].iter().any(|frame| LOCK_WAITS.contains(&frame.as_str()));
        let in_tracer = stack.frames[..at].iter().any(|frame| is_own_program(frame));
        Some(Self { frames: &stack.frames, at, count: stack.count, waits_for_lock, in_tracer })
    }

    fn function(&self) -> &'a str {
        &self.frames[self.at]
    }

    /// Index of the nearest `function` among the callers of the blamed frame.
    fn caller(&self, function: &str) -> Option<usize> {
        let callers = &self.frames[self.at + 1..];
        callers.iter().position(|frame| frame == function).map(|index| self.at + 1 + index)
    }
}

fn samples_of<'a>(blamed: &[Blamed<'a>]) -> BTreeMap<&'a str, u64> {
    let mut samples = BTreeMap::new();
    for sample in blamed {
        *samples.entry(sample.function()).or_default() += sample.count;
    }
    samples
}

/// Moves the blame from `function` to the nearest caller that is in all of its stacks and itself
/// has at least 1/[`CALLER_PART`] as many samples, if there is one.
fn blame_caller(blamed: &mut [Blamed], function: &str) {
    // What the tracer adds to a function makes it no loop.
    let mut without_tracer: BTreeMap<&str, u64> = BTreeMap::new();
    for sample in blamed.iter().filter(|sample| !sample.in_tracer) {
        *without_tracer.entry(sample.function()).or_default() += sample.count;
    }
    let samples = samples_of(blamed);
    let own = samples.get(function).copied().unwrap_or(0);
    let mut of_function = blamed.iter().filter(|sample| sample.function() == function);
    let Some(first) = of_function.next() else { return };
    let shared = |caller: &&String| {
        let is_culprit =
            without_tracer.get(caller.as_str()).is_some_and(|of| of * CALLER_PART >= own);
        is_culprit
            && caller.as_str() != function
            && blamed
                .iter()
                .filter(|sample| sample.function() == function)
                .all(|sample| sample.caller(caller).is_some())
    };
    let Some(caller) = first.frames[first.at + 1..].iter().find(shared).cloned() else { return };
    for sample in blamed.iter_mut().filter(|sample| sample.function() == function) {
        if let Some(at) = sample.caller(&caller) {
            sample.at = at;
        }
    }
}

/// Adds `count` samples of `frames` to `stacks`.
pub fn add_stack(stacks: &mut Vec<Stack>, frames: &[String], count: u64) {
    match stacks.iter_mut().find(|stack| stack.frames == frames) {
        Some(stack) => stack.count += count,
        None => stacks.push(Stack { frames: frames.to_vec(), count }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(frames: &[&str], count: u64) -> Stack {
        Stack { frames: frames.iter().map(|frame| (*frame).to_owned()).collect(), count }
    }

    #[test]
    fn time_in_helpers_goes_to_their_caller() {
        let frames = stack(&["memcpy_orig", "skb_copy_bits", "tcp_collapse", "tcp_data_queue"], 1);
        assert_eq!(culprit(&frames.frames), Some("tcp_collapse"));
        // Without a usable TSC, the kernel reads a slower clock source.
        let frames = stack(&["read_hpet", "bpf_ktime_get_ns", "bpf:stall_injector"], 1);
        assert_eq!(culprit(&frames.frames), Some("bpf:stall_injector"));
        let frames = ["arch_counter_read", "ktime_get_mono_fast_ns", "bpf:spin", "bpf:injector"];
        assert_eq!(culprit(&stack(&frames, 1).frames), Some("bpf:injector"));
        let frames = stack(&["read_tsc", "ktime_get"], 1);
        assert_eq!(culprit(&frames.frames), Some("read_tsc"));
        assert_eq!(culprit(&[]), None);
    }

    #[test]
    fn a_function_of_an_ebpf_program_counts_for_the_program() {
        for frames in [
            &["bpf:spin", "bpf:stall_injector", "cls_bpf_classify"][..],
            &["ktime_get_mono_fast_ns", "bpf:spin", "bpf_loop", "bpf:stall_injector", "x"],
            // A dispatcher is another program: a trampoline is between them.
            &["bpf:stall_injector", "bpf_trampoline_6442", "bpf:dispatcher", "x"],
        ] {
            assert_eq!(culprit(&stack(frames, 1).frames), Some("bpf:stall_injector"));
        }
    }

    #[test]
    fn the_tracer_and_its_plumbing_are_no_culprits() {
        for frames in [
            &["bpf_trampoline_6442466923", "__napi_poll", "net_rx_action"][..],
            &["bpf:napi_poll_fexit", "bpf_trampoline_6442466923", "__napi_poll"],
            // The kernel may cut names of programs to 15 characters.
            &["bpf:net_rx_action_f", "bpf_trampoline_6442466923", "__napi_poll"],
            &["bpf:napi_poll", "bpf_trace_run3", "__traceiter_napi_poll", "__napi_poll"],
            &["__x86_indirect_thunk_rax", "__napi_poll"],
            &["__pi___x86_indirect_thunk_r11", "__napi_poll"],
            &["rt_spin_lock", "__napi_poll"],
            &["rt_mutex_slowlock_block.constprop.0", "rt_spin_lock", "__napi_poll"],
        ] {
            assert_eq!(culprit(&stack(frames, 1).frames), Some("__napi_poll"), "{frames:?}");
        }
    }

    #[test]
    fn missing_samples_are_nobodys_time() {
        let time = StallTime {
            stalls: 1,
            stalled_ns: 9,
            unsampled_ns: 8,
            sampled_ns: 1,
            irq_ns: 0,
            unclocked_ns: 0,
        };
        let found = culprits(&[stack(&["tcp_ack"], 1)], &time);
        assert_eq!((&*found[0].function, found[0].samples), ("tcp_ack", 1));
        assert!((found[0].share - 1.0 / 9.0).abs() < 1e-9);
    }

    #[test]
    fn functions_named_like_helpers_can_be_culprits() {
        for answer in [
            "rcu_do_batch",
            "rcu_core",
            "mem_cgroup_charge_skmem",
            "__mem_cgroup_try_charge",
            "copy_process",
            "kfree_rcu_work",
            "native_flush_tlb_multi",
            "__alloc_pages_slowpath",
        ] {
            let frames = stack(&["memcpy_orig", answer, "handle_softirqs"], 1).frames;
            assert_eq!(culprit(&frames), Some(answer));
        }
    }

    #[test]
    fn the_waiter_for_a_lock_is_the_culprit_and_its_wait_is_reported() {
        let wait = ["native_queued_spin_lock_slowpath", "_raw_spin_lock", "__dev_queue_xmit"];
        let stacks = [stack(&wait, 61), stack(&["__dev_queue_xmit"], 20), stack(&["other"], 19)];
        let found = culprits(&stacks, &StallTime::default());
        assert_eq!((&*found[0].function, found[0].samples), ("__dev_queue_xmit", 81));
        assert_eq!(found[0].waiting_for_lock, 61);
        assert!((found[0].lock_share().unwrap() - 0.61).abs() < 1e-9);
        assert_eq!(found[1].lock_share(), None);
    }

    #[test]
    fn shares_are_of_all_samples_and_the_worst_is_first() {
        let stacks = [
            stack(&["kfree_skb_list", "a", "root"], 21),
            stack(&["b", "root"], 62),
            stack(&["b", "c", "root"], 17),
            stack(&["rare"], 0),
        ];
        let found = culprits(&stacks, &StallTime::default());
        let names: Vec<_> = found.iter().map(|c| (c.function.as_str(), c.samples)).collect();
        assert_eq!(names, [("b", 79), ("a", 21)]);
        assert!((found[0].share - 0.79).abs() < 1e-9);
    }

    #[test]
    fn functions_called_only_by_a_culprit_are_part_of_it() {
        let stacks = [
            stack(&["collapse_one", "collapse", "rcv"], 37),
            stack(&["sock_rfree", "collapse_one", "collapse", "rcv"], 3),
            stack(&["collapse", "rcv"], 20),
            stack(&["ack", "rcv"], 36),
            stack(&["rcv"], 4),
        ];
        let found = culprits(&stacks, &StallTime::default());
        let names: Vec<_> = found.iter().map(|c| (c.function.as_str(), c.samples)).collect();
        assert_eq!(names, [("collapse", 60), ("ack", 36), ("rcv", 4)]);
    }

    #[test]
    fn the_tracer_in_an_entry_point_does_not_make_it_a_loop() {
        let poll = ["veth_poll", "__napi_poll", "bpf_trampoline_1", "__napi_poll", "net_rx_action"];
        let stacks = [
            stack(&[&["bpf:stall_injector"][..], &poll].concat(), 14),
            stack(&["bpf:napi_poll_fexit", "bpf_trampoline_1", "__napi_poll", "net_rx_action"], 5),
        ];
        let found = culprits(&stacks, &StallTime::default());
        let names: Vec<_> = found.iter().map(|c| (c.function.as_str(), c.samples)).collect();
        assert_eq!(names, [("bpf:stall_injector", 14), ("__napi_poll", 5)]);
    }

    #[test]
    fn equal_stacks_are_merged() {
        let mut stacks = Vec::new();
        let frames = ["a".to_owned()];
        add_stack(&mut stacks, &frames, 1);
        add_stack(&mut stacks, &frames, 2);
        assert_eq!(stacks, [stack(&["a"], 3)]);
    }
}
