//! Culprits: the functions that stalls were spent in, told from sampled stacks.
//!
//! A sample counts for its deepest frame that means something to a reader: helpers that half the
//! kernel calls (copying, allocating, locking, reading the clock) are passed over, so the time
//! goes to who called them, and a wait for a lock is told of who waits. Nothing here knows which
//! functions are worth blaming.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::stall::Stack;

/// Beginnings of names that only helpers have: no function that starts so is an answer itself.
const HELPER_PREFIXES: [&str; 42] = [
    // Entry code, and what may stand below an interrupted context.
    "asm_",
    "sysvec_",
    "__sysvec_",
    "common_interrupt",
    "entry_SYSCALL",
    "ret_from_",
    "irqentry_",
    // Copying, clearing and summing memory.
    "memcpy",
    "memmove",
    "memset",
    "__memcpy",
    "__memmove",
    "__memset",
    "rep_movs",
    "rep_stos",
    "copy_user_",
    "_copy_to_",
    "_copy_from_",
    "__copy_user_",
    "raw_copy_",
    "clear_page",
    "csum_",
    "__csum_partial",
    // Allocating and freeing.
    "kmalloc",
    "__kmalloc",
    "kmem_cache_alloc",
    "kmem_cache_free",
    "kfree_skb",
    "__alloc_pages_noprof",
    "get_page_from_",
    "rmqueue",
    "__rmqueue",
    "free_unref_",
    "free_frozen_",
    "page_frag_",
    // Locking and counting references.
    "_raw_spin_",
    "_raw_read_",
    "_raw_write_",
    "__raw_callee_save_",
    "refcount_",
    // Reading the clock.
    "ktime_get",
    "bpf_ktime_get",
];

/// Helpers by their whole names, where others that begin alike are answers.
const HELPERS: [&str; 82] = [
    "memcmp",
    "copy_page",
    "copy_page_to_iter",
    "copy_page_from_iter",
    "skb_copy_bits",
    "skb_copy_datagram_iter",
    "skb_copy_and_csum_bits",
    "__skb_datagram_iter",
    "__copy_skb_header",
    "kfree",
    "__kfree_skb",
    "__slab_alloc",
    "___slab_alloc",
    "__slab_free",
    "slab_update_freelist",
    "put_cpu_partial",
    "alloc_pages",
    "alloc_pages_mpol",
    "alloc_pages_noprof",
    "__alloc_pages",
    "__alloc_frozen_pages_noprof",
    "free_pages",
    "__free_pages",
    "__free_pages_ok",
    "__free_one_page",
    "__free_slab",
    "put_page",
    "__put_page",
    "__folio_put",
    "skb_release_data",
    "skb_release_head_state",
    "skb_release_all",
    "skb_free_head",
    "skb_free_frag",
    "consume_skb",
    "sk_skb_reason_drop",
    "alloc_skb_with_frags",
    "__alloc_skb",
    "napi_alloc_skb",
    "__napi_alloc_skb",
    "napi_build_skb",
    "skb_set_owner_w",
    "__pv_queued_spin_unlock",
    "queued_spin_unlock",
    "native_queued_spin_unlock",
    "preempt_count_add",
    "preempt_count_sub",
    "local_bh_enable",
    "local_bh_disable",
    "__local_bh_enable_ip",
    "__local_bh_disable_ip",
    "rcu_read_lock",
    "rcu_read_unlock",
    "__rcu_read_lock",
    "__rcu_read_unlock",
    "rcu_read_unlock_strict",
    "rcu_is_watching",
    "rcu_segcblist_enqueue",
    "call_rcu",
    "__call_rcu_common",
    "native_sched_clock",
    "native_read_msr",
    "native_write_msr",
    "native_apic_msr_write",
    "native_apic_msr_eoi",
    "native_apic_mem_eoi",
    "native_save_fl",
    "native_irq_return_iret",
    "pv_native_save_fl",
    "read_tsc",
    "read_hpet",
    "acpi_pm_read",
    "kvm_clock_get_cycles",
    "kvm_clock_read",
    "pvclock_clocksource_read",
    "pvclock_clocksource_read_nowd",
    "xen_clocksource_get_cycles",
    "read_hv_clock_tsc_cs",
    "arch_counter_get_cntvct",
    "sched_clock",
    "sched_clock_cpu",
    "local_clock",
];

/// Functions in which a CPU waits until another one gives a lock free. They are passed over like
/// helpers, because the caller says which lock it is, and are told beside it.
const LOCK_WAITS: [&str; 12] = [
    "native_queued_spin_lock_slowpath",
    "__pv_queued_spin_lock_slowpath",
    "queued_spin_lock_slowpath",
    "resilient_queued_spin_lock_slowpath",
    "queued_read_lock_slowpath",
    "queued_write_lock_slowpath",
    "pv_wait_head_or_lock",
    "kvm_wait",
    "osq_lock",
    "mutex_spin_on_owner",
    "rwsem_spin_on_owner",
    "rtlock_slowlock_locked",
];

/// Shares of stalled time below this are summed up as others.
const LEAST_SHARE: f64 = 0.01;

/// A caller takes over a callee that has at most so many times its own samples.
const CALLER_PART: u64 = 4;

/// A function and its part of the samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Culprit {
    /// Name of the function.
    pub function: String,
    /// Samples of which it is the culprit.
    pub samples: u64,
    /// Those of them in which it waited for a lock.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub waiting_for_lock: u64,
    /// Its part of all samples of stalls, 0 to 1.
    pub share: f64,
}

impl Culprit {
    /// Its part of all samples in which it waited for a lock, 0 to 1; `None`: it hardly did.
    pub fn lock_share(&self) -> Option<f64> {
        let share = self.share * self.waiting_for_lock as f64 / self.samples.max(1) as f64;
        (share >= LEAST_SHARE).then_some(share)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_helper(frame: &str) -> bool {
    HELPERS.contains(&frame)
        || LOCK_WAITS.contains(&frame)
        || HELPER_PREFIXES.iter().any(|prefix| frame.starts_with(prefix))
}

/// The culprit of one stack: its deepest frame that is no helper, or its deepest frame if it has
/// only helpers. `None` for a stack without frames.
pub fn culprit(frames: &[String]) -> Option<&str> {
    frames.iter().find(|frame| !is_helper(frame)).or(frames.first()).map(String::as_str)
}

/// The culprits of many stacks, worst first. Those below a hundredth of the samples are left out.
///
/// A function that is reached through another culprit alone counts for that one, unless that
/// hardly has samples itself: what a loop calls is part of it, what an entry point calls is not.
pub fn culprits<'a>(stacks: impl IntoIterator<Item = &'a Stack>) -> Vec<Culprit> {
    let mut blamed: Vec<Blamed> = stacks.into_iter().filter_map(Blamed::new).collect();
    let whole: u64 = blamed.iter().map(|one| one.count).sum();
    let mut rising: Vec<(u64, &str)> =
        samples_of(&blamed).into_iter().map(|(function, samples)| (samples, function)).collect();
    rising.sort_unstable();
    for (_, function) in rising {
        hand_up(&mut blamed, function);
    }
    let mut waiting: BTreeMap<&str, u64> = BTreeMap::new();
    for one in blamed.iter().filter(|one| one.waits_for_lock) {
        *waiting.entry(one.function()).or_default() += one.count;
    }
    let mut culprits: Vec<Culprit> = samples_of(&blamed)
        .into_iter()
        .map(|(function, samples)| Culprit {
            function: function.to_owned(),
            samples,
            waiting_for_lock: waiting.get(function).copied().unwrap_or(0),
            share: samples as f64 / whole as f64,
        })
        .filter(|culprit| culprit.share >= LEAST_SHARE)
        .collect();
    culprits.sort_by(|a, b| b.samples.cmp(&a.samples).then_with(|| a.function.cmp(&b.function)));
    culprits
}

/// A stack and the frame that is blamed for it.
struct Blamed<'a> {
    frames: &'a [String],
    at: usize,
    count: u64,
    /// Whether a frame below the one that is blamed waits for a lock.
    waits_for_lock: bool,
}

impl<'a> Blamed<'a> {
    fn new(stack: &'a Stack) -> Option<Self> {
        let function = culprit(&stack.frames)?;
        let at = stack.frames.iter().position(|frame| frame == function)?;
        let waits_for_lock =
            stack.frames[..at].iter().any(|frame| LOCK_WAITS.contains(&frame.as_str()));
        Some(Self { frames: &stack.frames, at, count: stack.count, waits_for_lock })
    }

    fn function(&self) -> &'a str {
        &self.frames[self.at]
    }

    /// Place of `function` among the callers of the blamed frame.
    fn caller(&self, function: &str) -> Option<usize> {
        let callers = &self.frames[self.at + 1..];
        callers.iter().position(|frame| frame == function).map(|place| self.at + 1 + place)
    }
}

fn samples_of<'a>(blamed: &[Blamed<'a>]) -> BTreeMap<&'a str, u64> {
    let mut samples = BTreeMap::new();
    for one in blamed {
        *samples.entry(one.function()).or_default() += one.count;
    }
    samples
}

/// Blames the nearest caller that all stacks of `function` share and that is a culprit of a
/// [`CALLER_PART`]th of its samples itself, if there is one.
fn hand_up(blamed: &mut [Blamed], function: &str) {
    let samples = samples_of(blamed);
    let own = samples.get(function).copied().unwrap_or(0);
    let mut of_function = blamed.iter().filter(|one| one.function() == function);
    let Some(first) = of_function.next() else { return };
    let shared = |caller: &&String| {
        let is_culprit =
            samples.get(caller.as_str()).is_some_and(|samples| samples * CALLER_PART >= own);
        is_culprit
            && caller.as_str() != function
            && blamed
                .iter()
                .filter(|one| one.function() == function)
                .all(|one| one.caller(caller).is_some())
    };
    let Some(caller) = first.frames[first.at + 1..].iter().find(shared).cloned() else { return };
    for one in blamed.iter_mut().filter(|one| one.function() == function) {
        if let Some(at) = one.caller(&caller) {
            one.at = at;
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
        // Where the time-stamp counter cannot be used, the clock is something slower.
        let frames = stack(&["read_hpet", "bpf_ktime_get_ns", "bpf:stall_injector"], 1);
        assert_eq!(culprit(&frames.frames), Some("bpf:stall_injector"));
        let frames = stack(&["read_tsc", "ktime_get"], 1);
        assert_eq!(culprit(&frames.frames), Some("read_tsc"));
        assert_eq!(culprit(&[]), None);
    }

    #[test]
    fn what_is_named_like_a_helper_can_be_the_answer() {
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
    fn who_waits_for_a_lock_is_the_culprit_and_the_wait_is_told() {
        let wait = ["native_queued_spin_lock_slowpath", "_raw_spin_lock", "__dev_queue_xmit"];
        let stacks = [stack(&wait, 61), stack(&["__dev_queue_xmit"], 20), stack(&["other"], 19)];
        let found = culprits(&stacks);
        assert_eq!((&*found[0].function, found[0].samples), ("__dev_queue_xmit", 81));
        assert_eq!(found[0].waiting_for_lock, 61);
        assert!((found[0].lock_share().unwrap() - 0.61).abs() < 1e-9);
        assert_eq!(found[1].lock_share(), None);
    }

    #[test]
    fn shares_are_of_all_samples_and_worst_comes_first() {
        let stacks = [
            stack(&["kfree_skb_list", "a", "root"], 21),
            stack(&["b", "root"], 62),
            stack(&["b", "c", "root"], 17),
            stack(&["rare"], 0),
        ];
        let found = culprits(&stacks);
        let names: Vec<_> = found.iter().map(|c| (c.function.as_str(), c.samples)).collect();
        assert_eq!(names, [("b", 79), ("a", 21)]);
        assert!((found[0].share - 0.79).abs() < 1e-9);
    }

    #[test]
    fn what_only_a_culprit_calls_is_part_of_it() {
        let stacks = [
            stack(&["collapse_one", "collapse", "rcv"], 37),
            stack(&["sock_rfree", "collapse_one", "collapse", "rcv"], 3),
            stack(&["collapse", "rcv"], 20),
            stack(&["ack", "rcv"], 36),
            stack(&["rcv"], 4),
        ];
        let found = culprits(&stacks);
        let names: Vec<_> = found.iter().map(|c| (c.function.as_str(), c.samples)).collect();
        assert_eq!(names, [("collapse", 60), ("ack", 36), ("rcv", 4)]);
    }

    #[test]
    fn equal_stacks_are_one() {
        let mut stacks = Vec::new();
        let frames = ["a".to_owned()];
        add_stack(&mut stacks, &frames, 1);
        add_stack(&mut stacks, &frames, 2);
        assert_eq!(stacks, [stack(&["a"], 3)]);
    }
}
