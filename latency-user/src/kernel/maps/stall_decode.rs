//! Decodes stall records from the bytes that the kernel side sends.

use bytes::Buf;
use latency_common::{
    collapse_call::SocketBefore,
    cpu_state::{INTERFERENCE_SOURCES, NetRxRun, POLLS, PollSpan, TasksInRun, TimeWithin},
    stall_record::{CollapseRecord, FRAMES, RecordKind, SampleRecord, StallRecord},
    task_record::{COMM_LENGTH, TaskRecord},
};

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// An event at or above the threshold.
    Stall(Box<StallRecord>),
    /// A slow call of `tcp_collapse`.
    Collapse(Box<CollapseRecord>),
    /// What a CPU was doing during a stall.
    Sample(Sample),
}

/// A sample, without its unused frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The CPU.
    pub cpu: u32,
    /// Time of the sample, `CLOCK_MONOTONIC`, ns.
    pub at_ns: u64,
    /// Start of the longest span in progress, ns.
    pub since_ns: u64,
    /// The tick before this one on this CPU, ns; 0: none.
    pub previous_tick_ns: u64,
    /// The current task of the CPU.
    pub task: TaskRecord,
    /// Kernel addresses, innermost first.
    pub frames: Vec<u64>,
}

/// Parses the bytes of one record. `None`: unknown kind, or wrong size for the kind.
pub fn parse(mut bytes: &[u8]) -> Option<Record> {
    let kind = RecordKind::try_from(bytes.get(..4)?.get_u32_ne()).ok()?;
    let size = match kind {
        RecordKind::Stall => size_of::<StallRecord>(),
        RecordKind::Collapse => size_of::<CollapseRecord>(),
        RecordKind::Sample => size_of::<SampleRecord>(),
    };
    if bytes.len() != size {
        return None;
    }
    Some(match kind {
        RecordKind::Stall => Record::Stall(Box::new(stall(&mut bytes))),
        RecordKind::Collapse => Record::Collapse(Box::new(collapse(&mut bytes))),
        RecordKind::Sample => Record::Sample(sample(&mut bytes)),
    })
}

fn stall(bytes: &mut &[u8]) -> StallRecord {
    StallRecord {
        kind: bytes.get_u32_ne(),
        stage: bytes.get_u32_ne(),
        cpu: bytes.get_u32_ne(),
        row: bytes.get_u32_ne(),
        start_ns: bytes.get_u64_ne(),
        end_ns: bytes.get_u64_ne(),
        task: task(bytes),
        net_rx_run: net_rx_run(bytes),
        interference: [(); INTERFERENCE_SOURCES].map(|()| time_within(bytes)),
        irqs_in_run: time_within(bytes),
        tasks_in_run: TasksInRun {
            time: time_within(bytes),
            longest_ns: bytes.get_u64_ne(),
            longest: task(bytes),
        },
        last_tick_ns: bytes.get_u64_ne(),
    }
}

fn time_within(bytes: &mut &[u8]) -> TimeWithin {
    TimeWithin {
        span_start_ns: bytes.get_u64_ne(),
        ns: bytes.get_u64_ne(),
        runs: bytes.get_u64_ne(),
    }
}

fn task(bytes: &mut &[u8]) -> TaskRecord {
    TaskRecord { pid: bytes.get_u32_ne(), reserved: bytes.get_u32_ne(), comm: array(bytes) }
}

fn net_rx_run(bytes: &mut &[u8]) -> NetRxRun {
    NetRxRun {
        wait_ns: bytes.get_u64_ne(),
        more_polls_ns: bytes.get_u64_ne(),
        collapse_ns: bytes.get_u64_ne(),
        collapse_calls: bytes.get_u32_ne(),
        polls: bytes.get_u32_ne(),
        poll: [(); POLLS].map(|()| PollSpan {
            ns: bytes.get_u64_ne(),
            row: bytes.get_u32_ne(),
            work: bytes.get_u32_ne(),
        }),
    }
}

fn collapse(bytes: &mut &[u8]) -> CollapseRecord {
    CollapseRecord {
        kind: bytes.get_u32_ne(),
        cpu: bytes.get_u32_ne(),
        end_ns: bytes.get_u64_ne(),
        duration_ns: bytes.get_u64_ne(),
        inode: bytes.get_u64_ne(),
        netns: bytes.get_u32_ne(),
        family: bytes.get_u32_ne(),
        local_port: bytes.get_u32_ne(),
        remote_port: bytes.get_u32_ne(),
        local: array(bytes),
        remote: array(bytes),
        before: SocketBefore {
            rmem_alloc: bytes.get_u32_ne(),
            rcvbuf: bytes.get_u32_ne(),
            rcv_ssthresh: bytes.get_u32_ne(),
            window_clamp: bytes.get_u32_ne(),
            queue_len: bytes.get_u32_ne(),
            payload_bytes: bytes.get_u32_ne(),
        },
        rmem_alloc_after: bytes.get_u32_ne(),
        out_of_order: bytes.get_u32_ne(),
        poll_row: bytes.get_u32_ne(),
        reserved: bytes.get_u32_ne(),
    }
}

fn sample(bytes: &mut &[u8]) -> Sample {
    let _kind = bytes.get_u32_ne();
    let cpu = bytes.get_u32_ne();
    let at_ns = bytes.get_u64_ne();
    let since_ns = bytes.get_u64_ne();
    let previous_tick_ns = bytes.get_u64_ne();
    let task = task(bytes);
    let depth = bytes.get_u64_ne().min(FRAMES as u64);
    let frames = (0..depth).map(|_| bytes.get_u64_ne()).collect();
    Sample { cpu, at_ns, since_ns, previous_tick_ns, task, frames }
}

fn array<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
    let mut array = [0; N];
    bytes.copy_to_slice(&mut array);
    array
}

/// A task's name.
pub fn comm(task: &TaskRecord) -> String {
    let length = task.comm.iter().position(|byte| *byte == 0).unwrap_or(COMM_LENGTH);
    String::from_utf8_lossy(&task.comm[..length]).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A record with this kind and size, in which each word is its own index.
    fn counted(kind: u32, size: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> =
            (0..size as u32 / 4).flat_map(|word: u32| word.to_ne_bytes()).collect();
        bytes[..4].copy_from_slice(&kind.to_ne_bytes());
        bytes
    }

    #[test]
    fn fields_are_where_the_kernel_side_puts_them() {
        use core::mem::offset_of;
        let at = |word: usize| word as u32 / 4;
        let bytes = counted(RecordKind::Stall as u32, size_of::<StallRecord>());
        let Some(Record::Stall(stall)) = parse(&bytes) else { panic!("no stall") };
        assert_eq!(stall.row, at(offset_of!(StallRecord, row)));
        assert_eq!(stall.task.pid, at(offset_of!(StallRecord, task)));
        let net_rx_run = offset_of!(StallRecord, net_rx_run);
        assert_eq!(stall.net_rx_run.polls, at(net_rx_run + offset_of!(NetRxRun, polls)));
        assert_eq!(
            stall.net_rx_run.poll[1].row,
            at(net_rx_run + offset_of!(NetRxRun, poll) + 16 + 8)
        );
        let interference =
            offset_of!(StallRecord, interference) + 24 * (INTERFERENCE_SOURCES - 1) + 16;
        assert_eq!(stall.interference[INTERFERENCE_SOURCES - 1].runs as u32, at(interference));
        assert_eq!(stall.last_tick_ns as u32, at(offset_of!(StallRecord, last_tick_ns)));

        let bytes = counted(RecordKind::Collapse as u32, size_of::<CollapseRecord>());
        let Some(Record::Collapse(collapse)) = parse(&bytes) else { panic!("no collapse") };
        assert_eq!(collapse.inode as u32, at(offset_of!(CollapseRecord, inode)));
        assert_eq!(collapse.before.payload_bytes, at(offset_of!(CollapseRecord, before) + 20));
        assert_eq!(collapse.poll_row, at(offset_of!(CollapseRecord, poll_row)));

        let mut bytes = counted(RecordKind::Sample as u32, size_of::<SampleRecord>());
        let depth = offset_of!(SampleRecord, depth);
        bytes[depth..depth + 8].copy_from_slice(&3_u64.to_ne_bytes());
        let Some(Record::Sample(sample)) = parse(&bytes) else { panic!("no sample") };
        assert_eq!(sample.frames.len(), 3);
        assert_eq!(sample.frames[2] as u32, at(offset_of!(SampleRecord, frames) + 16));
    }

    #[test]
    fn other_sizes_and_kinds_are_rejected() {
        for kind in [RecordKind::Stall, RecordKind::Collapse, RecordKind::Sample] {
            for size in [0, 3, 4, 8, 119, 121, 1024] {
                let mut bytes = vec![0; size];
                if size >= 4 {
                    bytes[..4].copy_from_slice(&(kind as u32).to_ne_bytes());
                }
                assert_eq!(parse(&bytes), None);
            }
        }
        assert_eq!(parse(&counted(0, 120)), None);
        assert_eq!(parse(&counted(4, 120)), None);
    }

    proptest! {
        #[test]
        fn it_never_panics(kind in 0..5_u32, mut bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            if bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&kind.to_ne_bytes());
            }
            let _ = parse(&bytes);
        }

        #[test]
        fn a_depth_out_of_range_is_clamped(depth in any::<u64>()) {
            let mut bytes = counted(RecordKind::Sample as u32, size_of::<SampleRecord>());
            let at = core::mem::offset_of!(SampleRecord, depth);
            bytes[at..at + 8].copy_from_slice(&depth.to_ne_bytes());
            let parsed = parse(&bytes);
            prop_assert!(matches!(parsed, Some(Record::Sample(s)) if s.frames.len() <= FRAMES));
        }
    }
}
