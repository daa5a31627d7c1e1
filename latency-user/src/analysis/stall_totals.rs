//! What the stalls of a run add up to: the worst of them, where they were spent, whose sockets.

use std::collections::{BTreeMap, HashMap};

use super::culprits::{self, Culprit};
use crate::model::{
    interval::Interval,
    stall::{
        Stack, Stall,
        collapse::{Collapse, Socket, SocketTotal},
    },
};

/// Stalls that are kept whole.
const WORST: usize = 20;

/// Sockets that are told.
const SOCKETS: usize = 10;

/// Different stacks that are kept apart; later ones count as [`OTHERS`].
const STACKS: usize = 8192;

/// Stands for the frames of stacks beyond the limit.
const OTHERS: &str = "(other stacks)";

/// Sockets that are kept apart; above it, those that matter least are forgotten.
const KEPT_SOCKETS: usize = 8192;

/// Sums over intervals. Takes bounded memory, however long a run lasts.
#[derive(Clone, Debug, Default)]
pub struct StallTotals {
    worst: Vec<Stall>,
    stacks: HashMap<Vec<String>, u64>,
    sockets: BTreeMap<Socket, SocketTotal>,
    /// Stalls by the name of their stage.
    pub records: BTreeMap<&'static str, u64>,
}

impl StallTotals {
    /// Adds what an interval has.
    pub fn add(&mut self, interval: &Interval) {
        for stall in &interval.stalls {
            *self.records.entry(stall.stage.name()).or_default() += 1;
        }
        self.keep_worst(&interval.stalls);
        for stack in &interval.stacks {
            self.add_stack(stack);
        }
        for collapse in &interval.collapses {
            self.add_collapse(collapse);
        }
        if self.sockets.len() > KEPT_SOCKETS {
            let mut sums: Vec<u64> = self.sockets.values().map(|total| total.sum_ns).collect();
            sums.sort_unstable();
            let median = sums[sums.len() / 2];
            self.sockets.retain(|_, total| total.sum_ns > median);
        }
    }

    /// A storm has thousands of stalls with their stacks: only those that stay are copied.
    fn keep_worst(&mut self, stalls: &[Stall]) {
        for stall in stalls {
            // Of equals, the earlier stays.
            let at = self.worst.partition_point(|one| one.duration_ns >= stall.duration_ns);
            if at < WORST {
                self.worst.truncate(WORST - 1);
                self.worst.insert(at, stall.clone());
            }
        }
    }

    fn add_stack(&mut self, stack: &Stack) {
        if let Some(count) = self.stacks.get_mut(&stack.frames) {
            *count += stack.count;
            return;
        }
        let frames = match self.stacks.len() {
            ..STACKS => stack.frames.clone(),
            _ => vec![OTHERS.to_owned()],
        };
        *self.stacks.entry(frames).or_default() += stack.count;
    }

    fn add_collapse(&mut self, collapse: &Collapse) {
        let total = self.sockets.entry(collapse.socket.clone()).or_insert_with(|| SocketTotal {
            socket: collapse.socket.clone(),
            owner: None,
            calls: 0,
            sum_ns: 0,
            max_ns: 0,
            worst_queue: Some(collapse.queue),
            worst: collapse.before,
        });
        total.calls += 1;
        total.sum_ns += collapse.duration_ns;
        if collapse.owner.is_some() {
            total.owner.clone_from(&collapse.owner);
        }
        if collapse.duration_ns > total.max_ns {
            total.max_ns = collapse.duration_ns;
            total.worst_queue = Some(collapse.queue);
            total.worst = collapse.before;
        }
    }

    /// The longest stalls, longest first.
    pub fn worst(&self) -> &[Stall] {
        &self.worst
    }

    /// Samples of stalls.
    pub fn samples(&self) -> u64 {
        self.stacks.values().sum()
    }

    /// Each different stack, most frequent first.
    pub fn stacks(&self) -> Vec<Stack> {
        let mut stacks: Vec<Stack> = self
            .stacks
            .iter()
            .map(|(frames, count)| Stack { frames: frames.clone(), count: *count })
            .collect();
        stacks.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.frames.cmp(&b.frames)));
        stacks
    }

    /// The functions that stalls were spent in, worst first.
    pub fn culprits(&self) -> Vec<Culprit> {
        culprits::culprits(&self.stacks())
    }

    /// The sockets whose collapses took the most time, worst first.
    pub fn sockets(&self) -> Vec<SocketTotal> {
        let mut sockets: Vec<SocketTotal> = self.sockets.values().cloned().collect();
        sockets.sort_by_key(|total| std::cmp::Reverse(total.sum_ns));
        sockets.truncate(SOCKETS);
        sockets
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn stall(cpu: u32, duration_ns: u64) -> Stall {
        Stall {
            at: String::new(),
            begin_ns: 0,
            end_ns: duration_ns,
            stage: latency_common::stage::Stage::NetRx,
            cpu,
            place: crate::model::place::Place::default(),
            duration_ns,
            net_rx: None,
            rx_wait: None,
            samples: 0,
            culprits: Vec::new(),
            stacks: Vec::new(),
        }
    }

    #[test]
    fn the_longest_stalls_stay_and_of_equals_the_earlier() {
        let mut totals = StallTotals::default();
        // Each length twice, the second time on another CPU; 7919 is prime to 101.
        let stalls: Vec<Stall> =
            (0..202_u32).map(|n| stall(n / 101, u64::from(n) * 7919 % 101)).collect();
        for part in stalls.chunks(37) {
            totals.add(&Interval { stalls: part.to_vec(), ..interval(Vec::new()) });
        }
        let told: Vec<(u64, u32)> =
            totals.worst().iter().map(|stall| (stall.duration_ns, stall.cpu)).collect();
        let expected: Vec<(u64, u32)> =
            (0..WORST as u64).map(|n| (100 - n / 2, (n % 2) as u32)).collect();
        assert_eq!(told, expected);
    }

    fn interval(stacks: Vec<Stack>) -> Interval {
        Interval {
            began_at: UNIX_EPOCH,
            duration: Duration::from_secs(1),
            series: Vec::new(),
            stalls: Vec::new(),
            collapses: Vec::new(),
            stacks,
        }
    }

    #[test]
    fn no_sample_is_lost_however_many_stacks_there_are() {
        let mut totals = StallTotals::default();
        let different = STACKS as u64 + 97;
        for number in 0..different {
            let stack = Stack { frames: vec![format!("f{number}")], count: 2 };
            totals.add(&interval(vec![stack.clone(), stack]));
        }
        assert_eq!(totals.samples(), 4 * different);
        let stacks = totals.stacks();
        assert_eq!(stacks.len(), STACKS + 1);
        assert_eq!((&*stacks[0].frames[0], stacks[0].count), (OTHERS, 4 * 97));
    }
}
