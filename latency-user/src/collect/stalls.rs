//! Stalls from records: gives them names, their parts, their stacks and their sockets' owners.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::{Duration, SystemTime},
};

use latency_common::{
    record::{
        COLLAPSE_BOOKS, CollapseRecord, NO_ROW, RECORD_BOOKS, SAMPLE_BOOKS, SocketBefore,
        StallRecord,
    },
    stage::Stage,
    state::{Cycle, POLLS},
};

use super::{
    interference::{Found, holders, task},
    naming::Naming,
    samples::Samples,
};
use crate::{
    analysis::culprits::{add_stack, culprits},
    host::process::{cgroups, socket_owners},
    kernel::{
        maps::stall_decode::{self, Record},
        types::addresses::Addresses,
    },
    model::{
        filter::Filter,
        place::Place,
        stall::{
            CollapsePart, NetRxParts, PollPart, Stack, Stall,
            collapse::{Collapse, CollapsedQueue, Socket, SocketOwner, SocketState},
        },
    },
};

/// Different stacks of one stall that are told.
const STACKS: usize = 8;

/// Sockets whose owners are remembered.
const OWNERS: usize = 8192;

/// Address family of IPv6.
const INET6: u32 = 10;

/// Collects records and makes stalls of them.
#[derive(Default)]
pub struct StallCollector {
    stalls: Vec<StallRecord>,
    collapses: Vec<CollapseRecord>,
    samples: Samples,
    addresses: Addresses,
    owners: BTreeMap<u64, Option<SocketOwner>>,
    /// Records received, by the index of their books.
    pub received: [u64; RECORD_BOOKS],
    /// Records that could not be understood.
    pub malformed: u64,
}

/// What was learned of stalls since the last time.
#[derive(Debug, Default)]
pub struct Learned {
    /// Stalls that ended.
    pub stalls: Vec<Stall>,
    /// Slow calls of `tcp_collapse` that ended.
    pub collapses: Vec<Collapse>,
    /// Where those stalls were, each sample once.
    pub stacks: Vec<Stack>,
}

/// What must be known to tell a record's story.
pub struct Context<'a> {
    /// Names of rows.
    pub naming: &'a Naming,
    /// Stages that are timed.
    pub stages: &'a [Stage],
}

impl StallCollector {
    /// Takes the bytes of one record.
    pub fn add(&mut self, bytes: &[u8]) {
        match stall_decode::parse(bytes) {
            Some(Record::Stall(stall)) => match Stage::try_from(stall.stage) {
                Ok(stage) => {
                    self.received[stage as usize] += 1;
                    self.stalls.push(*stall);
                }
                Err(_) => self.malformed += 1,
            },
            Some(Record::Collapse(collapse)) => {
                self.received[COLLAPSE_BOOKS] += 1;
                self.collapses.push(*collapse);
            }
            Some(Record::Sample(sample)) => {
                self.received[SAMPLE_BOOKS] += 1;
                self.samples.add(sample);
            }
            None => self.malformed += 1,
        }
    }

    /// Makes stalls of the records that came since the last call, all of them, but with the stacks
    /// of those alone that `filter` keeps; behind them, the stacks of the others.
    pub fn take(&mut self, context: &Context, filter: &Filter) -> (Learned, Vec<Stack>) {
        let mut learned = Learned::default();
        let clock = WallClock::now();
        let mut records = std::mem::take(&mut self.stalls);
        // Before those around them: each CPU sends in the order of ends.
        records.sort_by_key(|record| record.end_ns);
        let keeps = |record: &StallRecord| {
            let stage = Stage::try_from(record.stage);
            stage.is_ok_and(|stage| filter.keeps_place(stage, &place(record.row, context)))
        };
        let others;
        (learned.stacks, others) = self.stacks(&records, keeps);
        for record in &records {
            let Ok(stage) = Stage::try_from(record.stage) else { continue };
            learned.stalls.push(self.stall(stage, record, context, &clock));
        }
        self.samples.drop_old();
        let collapses = std::mem::take(&mut self.collapses);
        self.find_owners(&collapses);
        for record in &collapses {
            learned.collapses.push(self.collapse(record, context, &clock));
        }
        (learned, others)
    }

    /// The stacks of the stalls that `keeps` wants, then those of the others. Each sample counts
    /// once, although a poll's stall lies inside a run's.
    fn stacks(
        &mut self,
        records: &[StallRecord],
        keeps: impl Fn(&StallRecord) -> bool,
    ) -> (Vec<Stack>, Vec<Stack>) {
        let (kept, others): (Vec<&StallRecord>, Vec<&StallRecord>) =
            records.iter().partition(|record| keeps(record));
        let mut stacks_of = |records: Vec<&StallRecord>| {
            let mut stacks = Vec::new();
            for record in records {
                let (begin, end) = (record.begin_ns, record.end_ns);
                self.samples.between(record.cpu, begin, end, |sample| {
                    add_stack(&mut stacks, &self.addresses.frames(&sample.frames), 1);
                });
            }
            stacks
        };
        (stacks_of(kept), stacks_of(others))
    }

    fn stall(
        &mut self,
        stage: Stage,
        record: &StallRecord,
        context: &Context,
        clock: &WallClock,
    ) -> Stall {
        let addresses = &mut self.addresses;
        let mut stacks = Vec::new();
        let mut found = Found::default();
        let samples = self.samples.between(record.cpu, record.begin_ns, record.end_ns, |_| ());
        for sample in &samples {
            let frames = addresses.frames(&sample.frames);
            found.add(&frames, task(&sample.task));
            add_stack(&mut stacks, &frames, 1);
        }
        stacks.sort_by_key(|stack| std::cmp::Reverse(stack.count));
        let culprits = culprits(&stacks);
        stacks.truncate(STACKS);
        Stall {
            at: clock.text(record.end_ns),
            begin_ns: record.begin_ns,
            end_ns: record.end_ns,
            stage,
            cpu: record.cpu,
            place: place(record.row, context),
            duration_ns: record.end_ns.saturating_sub(record.begin_ns),
            net_rx: (stage == Stage::NetRx).then(|| net_rx_parts(record, context)),
            rx_wait: (stage == Stage::RxWait).then(|| holders(record, found, context)),
            samples: samples.len() as u64,
            culprits,
            stacks,
        }
    }

    /// Looks for the processes of sockets that were not looked for yet.
    fn find_owners(&mut self, collapses: &[CollapseRecord]) {
        let unknown: BTreeSet<u64> = collapses
            .iter()
            .map(|record| record.inode)
            .filter(|inode| *inode != 0 && !self.owners.contains_key(inode))
            .collect();
        if unknown.is_empty() {
            return;
        }
        // Sockets come and go: in a long run the old ones are forgotten.
        if self.owners.len() > OWNERS {
            self.owners.clear();
        }
        let root = Path::new("/");
        let found = socket_owners::find(root, &unknown);
        for inode in unknown {
            let owner = found.get(&inode).map(|process| {
                // A process that has just ended leaves its name alone.
                let cgroup = cgroups::of_process(root, process.pid).unwrap_or_default();
                SocketOwner {
                    pid: process.pid,
                    comm: process.comm.clone(),
                    cgroup: cgroup.path,
                    container: cgroup.container,
                    pod: cgroup.pod,
                }
            });
            self.owners.insert(inode, owner);
        }
    }

    fn collapse(&self, record: &CollapseRecord, context: &Context, clock: &WallClock) -> Collapse {
        let before = &record.before;
        let queue = match record.out_of_order {
            0 => CollapsedQueue::InOrder,
            _ => CollapsedQueue::OutOfOrder,
        };
        let polled = (record.poll_row != NO_ROW).then(|| place(record.poll_row, context));
        Collapse {
            at: clock.text(record.end_ns),
            end_ns: record.end_ns,
            duration_ns: record.duration_ns,
            cpu: record.cpu,
            socket: Socket {
                local: address(record.family, &record.local, record.local_port),
                remote: address(record.family, &record.remote, record.remote_port),
                netns: record.netns,
                inode: record.inode,
            },
            owner: self.owners.get(&record.inode).cloned().flatten(),
            queue,
            before: SocketState {
                rmem_alloc: before.rmem_alloc.into(),
                rcvbuf: before.rcvbuf.into(),
                rcv_ssthresh: before.rcv_ssthresh,
                window_clamp: before.window_clamp,
                queue_len: before.queue_len,
                payload_bytes: before.payload_bytes,
                payload_ratio: payload_ratio(queue, before),
            },
            rmem_alloc_after: record.rmem_alloc_after.into(),
            polled,
        }
    }
}

/// Where the row with this index counts, without the CPU.
fn place(row: u32, context: &Context) -> Place {
    context
        .naming
        .series(row)
        .map(|series| Place::from(&series.owner).without_cpu())
        .unwrap_or_default()
}

fn net_rx_parts(record: &StallRecord, context: &Context) -> NetRxParts {
    let is_timed = |stage| context.stages.contains(&stage);
    let cycle = &record.cycle;
    let polls = is_timed(Stage::NapiPoll).then(|| polls(cycle, context));
    let told: u64 = polls.iter().flatten().map(|poll| poll.ns).sum();
    let duration = record.end_ns.saturating_sub(record.begin_ns);
    NetRxParts {
        wait_ns: (is_timed(Stage::RxWait) && cycle.wait_ns != 0).then_some(cycle.wait_ns),
        more_polls: u64::from(cycle.polls).saturating_sub(POLLS as u64),
        more_polls_ns: cycle.more_polls_ns,
        collapse: is_timed(Stage::TcpCollapse)
            .then_some(CollapsePart { calls: cycle.collapse_calls.into(), ns: cycle.collapse_ns }),
        rest_ns: duration.saturating_sub(told + cycle.more_polls_ns),
        polls,
    }
}

fn polls(cycle: &Cycle, context: &Context) -> Vec<PollPart> {
    let kept = (cycle.polls as usize).min(POLLS);
    let part = |span: &latency_common::state::PollSpan| PollPart {
        place: place(span.row, context),
        ns: span.ns,
        work: span.work,
        budget: context.naming.budget(span.row),
    };
    cycle.poll[..kept].iter().map(part).collect()
}

/// How much of a socket's memory is data, where it can be told.
fn payload_ratio(queue: CollapsedQueue, before: &SocketBefore) -> Option<f64> {
    let told = queue == CollapsedQueue::InOrder && before.rmem_alloc != 0;
    told.then(|| f64::from(before.payload_bytes) / f64::from(before.rmem_alloc))
}

fn address(family: u32, bytes: &[u8; 16], port: u32) -> SocketAddr {
    let ip = if family == INET6 {
        IpAddr::from(Ipv6Addr::from(*bytes)).to_canonical()
    } else {
        let [a, b, c, d, ..] = *bytes;
        Ipv4Addr::new(a, b, c, d).into()
    };
    SocketAddr::new(ip, port as u16)
}

/// Turns times of the kernel's clock into those of the wall.
struct WallClock {
    monotonic_ns: u64,
    wall: SystemTime,
}

impl WallClock {
    fn now() -> Self {
        // SAFETY: all zero is a valid timespec, which the call overwrites; the clock exists.
        let now = unsafe {
            let mut now: libc::timespec = std::mem::zeroed();
            libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now);
            now
        };
        let monotonic_ns = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
        Self { monotonic_ns, wall: SystemTime::now() }
    }

    /// RFC 3339, UTC.
    fn text(&self, monotonic_ns: u64) -> String {
        let ago = Duration::from_nanos(self.monotonic_ns.saturating_sub(monotonic_ns));
        humantime::format_rfc3339_micros(self.wall - ago).to_string()
    }
}

#[cfg(test)]
mod tests {
    use latency_common::record::TaskRecord;

    use super::*;

    #[test]
    fn addresses_are_those_of_their_family() {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&[127, 0, 0, 1]);
        assert_eq!(address(2, &bytes, 80).to_string(), "127.0.0.1:80");
        assert_eq!(address(INET6, &Ipv6Addr::LOCALHOST.octets(), 443).to_string(), "[::1]:443");
        let mapped = Ipv4Addr::new(10, 1, 2, 3).to_ipv6_mapped().octets();
        assert_eq!(address(INET6, &mapped, 1).to_string(), "10.1.2.3:1");
    }

    #[test]
    fn a_sample_of_a_stall_that_is_kept_is_not_one_of_the_others() {
        let record = |row, begin_ns, end_ns| StallRecord {
            kind: latency_common::record::RecordKind::Stall as u32,
            stage: Stage::NetRx as u32,
            cpu: 0,
            row,
            begin_ns,
            end_ns,
            task: TaskRecord::default(),
            cycle: Cycle::default(),
            held: Default::default(),
        };
        let mut collector = StallCollector::default();
        for (at_ns, address) in [(300, 3), (700, 7), (800, 7)] {
            let task = TaskRecord::default();
            let sample =
                stall_decode::Sample { cpu: 0, at_ns, since_ns: 100, task, frames: vec![address] };
            collector.samples.add(sample);
        }
        // A poll inside a run that is kept, and one elsewhere.
        let records = [record(2, 200, 400), record(1, 100, 500), record(2, 600, 900)];
        let (kept, others) = collector.stacks(&records, |record| record.row == 1);
        let told = |stacks: Vec<Stack>| -> Vec<(String, u64)> {
            stacks.into_iter().map(|stack| (stack.frames.concat(), stack.count)).collect()
        };
        assert_eq!(told(kept), [("0x3".to_owned(), 1)]);
        assert_eq!(told(others), [("0x7".to_owned(), 2)]);
    }

    #[test]
    fn data_behind_a_gap_has_no_ratio() {
        let before =
            SocketBefore { rmem_alloc: 4096, payload_bytes: 1024, ..SocketBefore::default() };
        assert_eq!(payload_ratio(CollapsedQueue::InOrder, &before), Some(0.25));
        assert_eq!(payload_ratio(CollapsedQueue::OutOfOrder, &before), None);
        assert_eq!(payload_ratio(CollapsedQueue::InOrder, &SocketBefore::default()), None);
    }

    #[test]
    fn what_is_no_record_is_counted() {
        let mut collector = StallCollector::default();
        collector.add(&[1, 2, 3]);
        let mut stall = vec![0; size_of::<StallRecord>()];
        stall[..4].copy_from_slice(&1_u32.to_ne_bytes());
        stall[4..8].copy_from_slice(&99_u32.to_ne_bytes());
        collector.add(&stall);
        assert_eq!(collector.malformed, 2);
        stall[4..8].copy_from_slice(&(Stage::Irq as u32).to_ne_bytes());
        collector.add(&stall);
        assert_eq!(collector.received[Stage::Irq as usize], 1);
    }
}
