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

/// A caller takes over a callee that has at most so many times its own samples.
const CALLER_PART: u64 = 4;

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
    let mut culprits: Vec<Culprit> = samples_of(&blamed)
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

/// A stack and the frame that is blamed for it.
struct Blamed<'a> {
    frames: &'a [String],
    at: usize,
    count: u64,
}

impl<'a> Blamed<'a> {
    fn new(stack: &'a Stack) -> Option<Self> {
        let function = culprit(&stack.frames)?;
        let at = stack.frames.iter().position(|frame| frame == function)?;
        Some(Self { frames: &stack.frames, at, count: stack.count })
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
        let frames = stack(&["read_tsc", "ktime_get"], 1);
        assert_eq!(culprit(&frames.frames), Some("read_tsc"));
        assert_eq!(culprit(&[]), None);
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
