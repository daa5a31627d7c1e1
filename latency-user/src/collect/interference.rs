//! Who held a CPU while NET_RX waited for it: tasks, softirqs, hard IRQs.

use latency_common::{
    record::{HARD_IRQS, StallRecord, TaskRecord},
    stage::{Stage, VECTOR_NAMES},
    state::Held,
};

use super::stalls::Context;
use crate::{
    kernel::maps::stall_decode,
    model::stall::{Holders, IrqPart, Task, TaskShare, VectorPart},
};

/// Functions that run softirqs, by the names that kernels have for them. Where `__do_softirq` opens
/// its section it has a second name, which the kernel lists first.
const SOFTIRQ_FRAMES: [&str; 4] =
    ["handle_softirqs", "__do_softirq", "__softirqentry_text_start", "net_rx_action"];

/// Whom samples found on the CPU.
#[derive(Default)]
pub(super) struct Found {
    tasks: Vec<TaskShare>,
    in_softirq: u64,
}

impl Found {
    /// A task that a softirq interrupted does not hold the CPU: such a sample is the softirq's.
    pub(super) fn add(&mut self, frames: &[String], task: Task) {
        if frames.iter().any(|frame| SOFTIRQ_FRAMES.contains(&frame.as_str())) {
            self.in_softirq += 1;
            return;
        }
        match self.tasks.iter_mut().find(|share| share.task == task) {
            Some(share) => share.samples += 1,
            None => self.tasks.push(TaskShare { task, samples: 1 }),
        }
    }
}

/// Whom the record of a wait and its samples tell of.
pub(super) fn holders(record: &StallRecord, found: Found, context: &Context) -> Holders {
    let Found { mut tasks, in_softirq } = found;
    tasks.sort_by_key(|share| std::cmp::Reverse(share.samples));
    let of_this_wait = |held: &&Held| held.wait == record.begin_ns;
    let mut vectors: Vec<VectorPart> = record
        .held
        .iter()
        .zip(VECTOR_NAMES)
        .filter(|(held, _)| of_this_wait(held))
        .map(|(held, vector)| VectorPart { vector: vector.into(), runs: held.runs, ns: held.ns })
        .collect();
    vectors.sort_by_key(|part| std::cmp::Reverse(part.ns));
    let irqs = Some(&record.held[HARD_IRQS]).filter(of_this_wait);
    Holders {
        task: task(&record.task),
        tasks,
        in_softirq,
        vectors,
        irqs: context.stages.contains(&Stage::Irq).then(|| {
            irqs.map_or_else(IrqPart::default, |held| IrqPart { runs: held.runs, ns: held.ns })
        }),
    }
}

/// The task of a record.
pub(super) fn task(record: &TaskRecord) -> Task {
    Task { pid: record.pid, comm: stall_decode::comm(record) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_a_softirq_interrupted_holds_nothing() {
        let task = |comm: &str| Task { pid: 7, comm: comm.into() };
        let frames =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut found = Found::default();
        for run in ["handle_softirqs", "__do_softirq", "__softirqentry_text_start"] {
            found.add(&frames(&["tcp_collapse", run, "do_softirq", "ksys_write"]), task("writer"));
        }
        found.add(&frames(&["crc32", "ksys_write"]), task("holder"));
        found.add(&frames(&["ksys_write"]), task("holder"));
        assert_eq!(found.in_softirq, 3);
        assert_eq!(found.tasks, [TaskShare { task: task("holder"), samples: 2 }]);
    }
}
