//! Culprits: the functions that stalls were spent in, told from sampled stacks.
//!
//! A sample counts for its deepest frame that means something to a reader: helpers that half the
//! kernel calls (copying, allocating, locking, reading the clock) are passed over, so the time
//! goes to who called them. Nothing here knows which functions are worth blaming.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::stall::Stack;

/// Helpers that say nothing about their caller, by the beginning of their names.
const HELPERS: [&str; 64] = [
    // Entry code, and what may stand below an interrupted context.
    "asm_",
    "sysvec_",
    "__sysvec_",
    "common_interrupt",
    "entry_",
    "ret_from_",
    "irqentry_",
    // Copying and clearing memory.
    "mem",
    "__mem",
    "rep_",
    "copy_",
    "_copy_",
    "__copy",
    "raw_copy_",
    "clear_page",
    "skb_copy_",
    "__skb_datagram",
    "csum_",
    "__csum_",
    // Allocating and freeing.
    "kmalloc",
    "__kmalloc",
    "kmem_",
    "kfree",
    "__kfree",
    "slab_",
    "__slab_",
    "___slab_",
    "alloc_pages",
    "__alloc_pages",
    "get_page_from",
    "rmqueue",
    "free_unref_",
    "free_pages",
    "free_frozen_",
    "__free_",
    "put_page",
    "__put_",
    "page_frag_",
    "put_cpu_partial",
    "skb_release_",
    "skb_free_",
    "consume_skb",
    "kfree_skb",
    "sk_skb_",
    "__alloc_skb",
    "alloc_skb",
    "skb_set_owner",
    "napi_alloc_",
    // Locking, counting references and sections.
    "_raw_",
    "__raw_",
    "native_",
    "pv_",
    "__pv_",
    "queued_",
    "rcu_",
    "__rcu_",
    "refcount_",
    "preempt_",
    "__local_bh",
    "local_bh_",
    // Reading the clock.
    "ktime_",
    "bpf_ktime_",
    "read_tsc",
    "sched_clock",
];

/// Shares of stalled time below this are summed up as others.
const LEAST_SHARE: f64 = 0.01;

/// A function and its part of the samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Culprit {
    /// Name of the function.
    pub function: String,
    /// Samples of which it is the culprit.
    pub samples: u64,
    /// Its part of all samples of stalls, 0 to 1.
    pub share: f64,
}

/// The culprit of one stack: its deepest frame that is no helper, or its deepest frame if it has
/// only helpers. `None` for a stack without frames.
pub fn culprit(frames: &[String]) -> Option<&str> {
    let is_helper = |frame: &String| HELPERS.iter().any(|helper| frame.starts_with(helper));
    frames.iter().find(|frame| !is_helper(frame)).or(frames.first()).map(String::as_str)
}

/// The culprits of many stacks, worst first. Those below a hundredth of the samples are left out.
pub fn culprits<'a>(stacks: impl IntoIterator<Item = &'a Stack>) -> Vec<Culprit> {
    let mut samples: BTreeMap<&str, u64> = BTreeMap::new();
    let mut whole = 0;
    for stack in stacks {
        whole += stack.count;
        if let Some(function) = culprit(&stack.frames) {
            *samples.entry(function).or_default() += stack.count;
        }
    }
    let mut culprits: Vec<Culprit> = samples
        .into_iter()
        .map(|(function, samples)| Culprit {
            function: function.to_owned(),
            samples,
            share: samples as f64 / whole as f64,
        })
        .filter(|culprit| culprit.share >= LEAST_SHARE)
        .collect();
    culprits.sort_by(|a, b| b.samples.cmp(&a.samples).then_with(|| a.function.cmp(&b.function)));
    culprits
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
        let frames = stack(&["read_tsc", "ktime_get"], 1);
        assert_eq!(culprit(&frames.frames), Some("read_tsc"));
        assert_eq!(culprit(&[]), None);
    }

    #[test]
    fn shares_are_of_all_samples_and_worst_comes_first() {
        let stacks = [
            stack(&["kfree_skb_list", "a", "root"], 21),
            stack(&["b", "root"], 62),
            stack(&["b", "a", "root"], 17),
            stack(&["rare"], 0),
        ];
        let found = culprits(&stacks);
        let names: Vec<_> = found.iter().map(|c| (c.function.as_str(), c.samples)).collect();
        assert_eq!(names, [("b", 79), ("a", 21)]);
        assert!((found[0].share - 0.79).abs() < 1e-9);
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
