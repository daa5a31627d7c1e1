//! Totals of the stalls of a run: the longest ones, where their time was spent, and the sockets.
//!
//! The result does not depend on the order of adding, so merged recordings do not either.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, HashMap},
};

use serde::Serialize;

use super::{culprits, stall_time};
use crate::model::stall::{
    Stall,
    batch::{LocatedStack, Stack, StallBatch},
    collapse::{Collapse, Socket, SocketTotal},
    culprit::Culprit,
    time::{LocatedTime, StallTime},
};

/// How many of the longest stalls, and of the slowest collapses, are kept in full.
pub const KEPT: usize = 64;

/// Sockets that a summary lists.
const SOCKETS: usize = 10;

/// Number of distinct stacks kept in a live run; later ones count as [`OTHERS`].
const STACKS: usize = 8192;

/// Replaces the frames of stacks beyond the limit.
const OTHERS: &str = "(other stacks)";

/// Number of sockets kept; above it, those with the least time are dropped.
const KEPT_SOCKETS: usize = 8192;

/// Totals over batches of stalls.
#[derive(Clone, Debug)]
pub struct StallTotals {
    longest: Vec<Stall>,
    slowest: Vec<Collapse>,
    stacks: HashMap<Vec<String>, u64>,
    sockets: BTreeMap<Socket, SocketTotal>,
    time: StallTime,
    max_stacks: usize,
}

/// Uses bounded memory, however long a run lasts.
impl Default for StallTotals {
    fn default() -> Self {
        Self {
            longest: Vec::new(),
            slowest: Vec::new(),
            stacks: HashMap::new(),
            sockets: BTreeMap::new(),
            time: StallTime::default(),
            max_stacks: STACKS,
        }
    }
}

impl StallTotals {
    /// Totals that keep every distinct stack: for recordings, whose file size limits the number.
    pub fn with_all_stacks() -> Self {
        Self { max_stacks: usize::MAX, ..Self::default() }
    }

    /// Adds the batch of an interval.
    pub fn add(&mut self, batch: &StallBatch) {
        for stall in &batch.stalls {
            keep(&mut self.longest, stall, |stall| stall.duration_ns);
        }
        for LocatedStack { stack, .. } in &batch.stacks {
            self.add_stack(&stack.frames, stack.count);
        }
        for located in &batch.times {
            self.time.add(&located.time);
        }
        for collapse in &batch.collapses {
            keep(&mut self.slowest, collapse, |call| call.duration_ns);
            self.add_collapse(collapse);
        }
        self.evict_sockets();
    }

    /// Adds other totals.
    pub fn join(&mut self, other: Self) {
        for stall in &other.longest {
            keep(&mut self.longest, stall, |stall| stall.duration_ns);
        }
        for collapse in &other.slowest {
            keep(&mut self.slowest, collapse, |call| call.duration_ns);
        }
        for (frames, count) in other.stacks {
            self.add_stack(&frames, count);
        }
        self.time.add(&other.time);
        for (socket, total) in other.sockets {
            match self.sockets.get_mut(&socket) {
                Some(known) => known.add(&total),
                None => drop(self.sockets.insert(socket, total)),
            }
        }
        self.evict_sockets();
    }

    /// Clears the totals of sockets: a merged recording keeps only the slowest calls, from which
    /// they could not be computed again.
    pub fn clear_sockets(&mut self) {
        self.sockets.clear();
    }

    /// Sets the host of stalls that have none.
    pub fn set_host(&mut self, host: &str) {
        for stall in &mut self.longest {
            stall.labels.host.get_or_insert_with(|| host.to_owned());
        }
    }

    /// Keeps the half whose collapses took the most time.
    fn evict_sockets(&mut self) {
        if self.sockets.len() > KEPT_SOCKETS {
            let mut sockets: Vec<_> = std::mem::take(&mut self.sockets).into_iter().collect();
            sockets.sort_by_key(|(_, total)| Reverse(total.sum_ns));
            sockets.truncate(KEPT_SOCKETS / 2);
            self.sockets = sockets.into_iter().collect();
        }
    }

    fn add_stack(&mut self, frames: &[String], count: u64) {
        if let Some(sum) = self.stacks.get_mut(frames) {
            *sum = sum.saturating_add(count);
            return;
        }
        let frames = match self.stacks.len() < self.max_stacks {
            true => frames.to_vec(),
            false => vec![OTHERS.to_owned()],
        };
        let sum = self.stacks.entry(frames).or_default();
        *sum = sum.saturating_add(count);
    }

    fn add_collapse(&mut self, collapse: &Collapse) {
        let call = SocketTotal {
            socket: collapse.socket.clone(),
            owner: collapse.owner.clone(),
            calls: 1,
            sum_ns: collapse.duration_ns,
            max_ns: collapse.duration_ns,
            worst_queue: Some(collapse.queue),
            worst: collapse.before,
        };
        match self.sockets.get_mut(&collapse.socket) {
            Some(total) => total.add(&call),
            None => drop(self.sockets.insert(collapse.socket.clone(), call)),
        }
    }

    /// The longest stalls, longest first: at most [`KEPT`].
    pub fn longest(&self) -> &[Stall] {
        &self.longest
    }

    /// The slowest calls of `tcp_collapse`, slowest first: at most [`KEPT`].
    pub fn slowest(&self) -> &[Collapse] {
        &self.slowest
    }

    /// Samples of stalls.
    pub fn samples(&self) -> u64 {
        self.stacks.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Each distinct stack, most frequent first.
    pub fn stacks(&self) -> Vec<Stack> {
        let mut stacks: Vec<Stack> = self
            .stacks
            .iter()
            .map(|(frames, count)| Stack { frames: frames.clone(), count: *count })
            .collect();
        stacks.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.frames.cmp(&b.frames)));
        stacks
    }

    /// Turns overdue time into unexplained time: it was estimated from samples, and samples are
    /// missing.
    pub fn forget_overdue(&mut self) {
        self.time.unsampled_ns = 0;
        self.longest.iter_mut().for_each(stall_time::forget_overdue);
    }

    /// The time of the stalls.
    pub fn time(&self) -> StallTime {
        self.time
    }

    /// The functions that stalls were spent in, worst first.
    pub fn culprits(&self) -> Vec<Culprit> {
        culprits::culprits(&self.stacks(), &self.time)
    }

    /// The sockets whose collapses took the most time, worst first.
    pub fn sockets(&self) -> Vec<SocketTotal> {
        let mut sockets: Vec<SocketTotal> = self.sockets.values().cloned().collect();
        sockets.sort_by_key(|total| Reverse(total.sum_ns));
        sockets.truncate(SOCKETS);
        sockets
    }

    /// Everything in one batch, as a merged recording stores it.
    pub fn into_batch(self) -> StallBatch {
        let mut stacks: Vec<Stack> =
            self.stacks.into_iter().map(|(frames, count)| Stack { frames, count }).collect();
        stacks.sort_by(|a, b| a.frames.cmp(&b.frames));
        let located = |stack| LocatedStack { stack, ..LocatedStack::default() };
        StallBatch {
            stalls: self.longest,
            collapses: self.slowest,
            stacks: stacks.into_iter().map(located).collect(),
            times: vec![LocatedTime { time: self.time, ..LocatedTime::default() }],
        }
    }
}

/// Keeps the [`KEPT`] largest, largest first. A storm has thousands of stalls with their stacks:
/// only those that are kept are cloned.
fn keep<T: Clone + Serialize>(kept: &mut Vec<T>, new: &T, size: impl Fn(&T) -> u64) {
    if kept.len() == KEPT && kept.last().is_some_and(|last| size(last) > size(new)) {
        return;
    }
    let order = |known: &T| match size(new).cmp(&size(known)) {
        // Ties are broken by content, so that the order of adding does not matter.
        Ordering::Equal => content(known).cmp(&content(new)),
        other => other,
    };
    let at = kept.partition_point(|known| order(known) != Ordering::Greater);
    if at < KEPT {
        kept.truncate(KEPT - 1);
        kept.insert(at, new.clone());
    }
}

fn content(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use latency_common::stage::Stage;

    use super::*;
    use crate::model::series::labels::Labels;

    fn stall(cpu: u32, duration_ns: u64) -> Stall {
        Stall {
            at: String::new(),
            start_ns: 0,
            end_ns: duration_ns,
            stage: Stage::NetRx,
            cpu,
            labels: Labels::default(),
            duration_ns,
            unsampled_ns: None,
            sampled_ns: None,
            steal_ns: None,
            net_rx: None,
            interference: None,
            samples: 0,
            culprits: Vec::new(),
            stacks: Vec::new(),
        }
    }

    #[test]
    fn the_longest_stalls_are_kept_in_any_order_of_adding() {
        // Each duration twice, the second time on another CPU; 7919 is coprime to 101.
        let mut stalls: Vec<Stall> =
            (0..202_u32).map(|n| stall(n / 101, u64::from(n) * 7919 % 101)).collect();
        let expected: Vec<(u64, u32)> =
            (0..KEPT as u64).map(|n| (100 - n / 2, (n % 2) as u32)).collect();
        for _ in 0..2 {
            let mut totals = StallTotals::default();
            for part in stalls.chunks(37) {
                totals.add(&StallBatch { stalls: part.to_vec(), ..StallBatch::default() });
            }
            let kept: Vec<(u64, u32)> =
                totals.longest().iter().map(|stall| (stall.duration_ns, stall.cpu)).collect();
            assert_eq!(kept, expected);
            stalls.reverse();
        }
    }

    fn stacks(stacks: Vec<Stack>) -> StallBatch {
        let located = |stack| LocatedStack { stack, ..LocatedStack::default() };
        StallBatch { stacks: stacks.into_iter().map(located).collect(), ..StallBatch::default() }
    }

    #[test]
    fn no_sample_is_lost_however_many_stacks_there_are() {
        let mut totals = StallTotals::default();
        let different = STACKS as u64 + 97;
        for number in 0..different {
            let stack = Stack { frames: vec![format!("f{number}")], count: 2 };
            totals.add(&stacks(vec![stack.clone(), stack]));
        }
        assert_eq!(totals.samples(), 4 * different);
        let stacks = totals.stacks();
        assert_eq!(stacks.len(), STACKS + 1);
        assert_eq!((&*stacks[0].frames[0], stacks[0].count), (OTHERS, 4 * 97));
    }

    #[test]
    fn joined_totals_equal_those_of_one_run() {
        let batches: Vec<StallBatch> = (0..5_u64)
            .map(|n| StallBatch {
                stalls: vec![stall(n as u32, 1000 - n)],
                ..stacks(vec![Stack { frames: vec![format!("f{}", n % 2)], count: n }])
            })
            .collect();
        let mut single = StallTotals::default();
        batches.iter().for_each(|batch| single.add(batch));
        let mut joined = StallTotals::default();
        for batch in batches.iter().rev() {
            let mut part = StallTotals::default();
            part.add(batch);
            joined.join(part);
        }
        assert_eq!(joined.into_batch(), single.into_batch());
    }
}
