//! Converts stall records to stalls with names, parts, stacks and socket owners.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::{Duration, SystemTime},
};

use latency_common::{
    collapse_call::SocketBefore,
    cpu_state::{
        COLLAPSE_RECORDS, HARD_IRQ_SOURCE, NetRxRun, POLLS, RECORD_COUNTS, SAMPLE_RECORDS,
    },
    stage::Stage,
    stall_record::{CollapseRecord, NO_ROW, StallRecord},
};

use super::{
    clocks::{Clocks, monotonic_ns},
    context::Context,
    interference::{SampledTasks, interference, task},
    samples::Samples,
};
use crate::{
    analysis::{
        culprits::{add_stack, culprits},
        stall_time::{Claims, Range, TickClock, is_sampled, overlap},
    },
    host::process::{cgroups, socket_owners},
    kernel::{
        maps::stall_decode::{self, Record, Sample},
        types::addresses::Addresses,
    },
    model::{
        series::labels::Labels,
        stall::{
            Stall,
            batch::{LocatedStack, Stack, StallBatch},
            collapse::{Collapse, CollapsedQueue, Socket, SocketOwner, SocketState},
            parts::{CollapsePart, IrqPart, NetRxParts, PollPart, TasksPart},
            time::{LocatedTime, StallTime},
        },
    },
};

/// Maximum number of different stacks listed per stall.
const STACKS: usize = 8;

/// Number of sockets above which the owner cache is cleared.
const OWNERS: usize = 8192;

/// Address family of IPv6.
const INET6: u32 = 10;

/// Collects records and converts them to stalls.
#[derive(Default)]
pub struct StallCollector {
    stalls: Vec<StallRecord>,
    collapses: Vec<CollapseRecord>,
    samples: Samples,
    /// The sampling clock.
    clock: TickClock,
    /// When it ran on each CPU.
    pub clocks: Clocks,
    /// Minimum duration of a stall, ns.
    threshold_ns: u64,
    /// CPUs of stalls that were added since the last call of [`Self::take_stalled_cpus`].
    stalled_cpus: BTreeSet<u32>,
    claims: Claims,
    addresses: Addresses,
    owners: BTreeMap<u64, Option<SocketOwner>>,
    /// Records received, by the index of their counts.
    pub received: [u64; RECORD_COUNTS],
    /// Records that could not be parsed.
    pub malformed: u64,
}

impl StallCollector {
    /// A collector of stalls of at least `threshold_ns` that are sampled by `clock`, while it runs.
    pub fn new(clock: TickClock, clocks: Clocks, threshold_ns: u64) -> Self {
        Self { clock, clocks, threshold_ns, ..Self::default() }
    }

    /// The CPUs that stalled since the last call, or were seen in the middle of a stall, in a stage
    /// that is sampled.
    pub fn take_stalled_cpus(&mut self) -> BTreeSet<u32> {
        std::mem::take(&mut self.stalled_cpus)
    }

    /// Adds one record, as bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        match stall_decode::parse(bytes) {
            Some(Record::Stall(stall)) => match Stage::try_from(stall.stage) {
                Ok(stage) => {
                    self.received[stage as usize] += 1;
                    if is_sampled(stage) {
                        self.stalled_cpus.insert(stall.cpu);
                    }
                    self.stalls.push(*stall);
                }
                Err(_) => self.malformed += 1,
            },
            Some(Record::Collapse(collapse)) => {
                self.received[COLLAPSE_RECORDS] += 1;
                self.collapses.push(*collapse);
            }
            Some(Record::Sample(sample)) => {
                self.received[SAMPLE_RECORDS] += 1;
                if sample.at_ns.saturating_sub(sample.since_ns) >= self.threshold_ns {
                    self.stalled_cpus.insert(sample.cpu);
                }
                self.samples.add(sample);
            }
            None => self.malformed += 1,
        }
    }

    /// Converts pending records to stalls with their stacks and sockets.
    pub fn take(&mut self, context: &Context) -> StallBatch {
        let mut batch = StallBatch::default();
        let clock = WallClock::now();
        let mut records = std::mem::take(&mut self.stalls);
        (batch.stacks, batch.times) = self.stacks_and_times(&mut records, context);
        // In order of ends, as each CPU sends them: a poll ends before the run around it.
        records.sort_by_key(|record| record.end_ns);
        for record in &records {
            let Ok(stage) = Stage::try_from(record.stage) else { continue };
            batch.stalls.push(self.stall(stage, record, context, &clock));
        }
        self.samples.discard_old();
        let collapses = std::mem::take(&mut self.collapses);
        self.find_owners(&collapses);
        for record in &collapses {
            batch.collapses.push(self.collapse(record, context, &clock));
        }
        batch
    }

    /// The stacks and the time of all stalls. A stall of a poll is inside that of its run: each
    /// sample and each moment counts once, for the longest stall around it.
    fn stacks_and_times(
        &mut self,
        records: &mut [StallRecord],
        context: &Context,
    ) -> (Vec<LocatedStack>, Vec<LocatedTime>) {
        let mut counts: HashMap<(Stage, Labels, Vec<String>), u64> = HashMap::new();
        let mut times: BTreeMap<(u32, Stage, Labels), StallTime> = BTreeMap::new();
        records.sort_by_key(|record| Reverse(record.end_ns.saturating_sub(record.start_ns)));
        for record in records.iter() {
            let stage = Stage::try_from(record.stage).ok().filter(|stage| is_sampled(*stage));
            let Some(stage) = stage else { continue };
            let labels = context.labels(record.row);
            let range = (record.start_ns, record.end_ns);
            let new = self.claims.claim(record.cpu, range);
            let new_ns = overlap(&new, range);
            let since_ns = self.clocks.since(record.cpu, range);
            let (addresses, clock) = (&mut self.addresses, self.clock);
            let mut sampled_ns = 0;
            let samples = self.samples.between(record.cpu, range.0, range.1, |sample| {
                sampled_ns += weight(sample, since_ns, clock);
                let frames = frames(addresses, stage, record, sample);
                *counts.entry((stage, labels.clone(), frames)).or_default() += 1;
            });
            if since_ns.is_none() && samples.is_empty() {
                let time = StallTime { unclocked_ns: new_ns, ..StallTime::default() };
                times.entry((record.cpu, stage, labels)).or_default().add(&time);
                continue;
            }
            let duration = record.end_ns.saturating_sub(record.start_ns);
            let overdue = self.overdue(record);
            let irqs = irqs(stage, record).unwrap_or_default();
            let part =
                |ns: u64| (u128::from(ns) * u128::from(new_ns)) / u128::from(duration.max(1));
            times.entry((record.cpu, stage, labels)).or_default().add(&StallTime {
                stalls: u64::from(2 * new_ns > duration),
                stalled_ns: new_ns,
                unsampled_ns: overdue.iter().map(|range| overlap(&new, *range)).sum(),
                sampled_ns,
                irq_ns: part(irqs.ns) as u64,
                unclocked_ns: 0,
            });
        }
        times.retain(|_, time| time.stalled_ns > 0 || time.unclocked_ns > 0);
        let times = times.into_iter().map(|((cpu, stage, labels), time)| LocatedTime {
            stage: Some(stage.into()),
            cpu: Some(cpu),
            labels,
            time,
        });
        (located(counts), times.collect())
    }

    /// The parts of a stall in which the sampling clock was overdue.
    fn overdue(&self, record: &StallRecord) -> Vec<Range> {
        if self.clock.is_off() {
            return Vec::new();
        }
        let range = (record.start_ns, record.end_ns);
        let Some(since_ns) = self.clocks.since(record.cpu, range) else { return Vec::new() };
        self.samples.overdue(record.cpu, range, (since_ns, record.last_tick_ns), self.clock)
    }

    fn stall(
        &mut self,
        stage: Stage,
        record: &StallRecord,
        context: &Context,
        clock: &WallClock,
    ) -> Stall {
        let since_ns = self.clocks.since(record.cpu, (record.start_ns, record.end_ns));
        let overdue = self.overdue(record);
        let addresses = &mut self.addresses;
        let mut stacks = Vec::new();
        let mut tasks = SampledTasks::default();
        let samples = self.samples.between(record.cpu, record.start_ns, record.end_ns, |_| ());
        let had_clock = since_ns.is_some() || !samples.is_empty();
        let is_sampled = !self.clock.is_off() && is_sampled(stage) && had_clock;
        for sample in &samples {
            let frames = frames(addresses, stage, record, sample);
            tasks.add(&frames, task(&sample.task));
            add_stack(&mut stacks, &frames, 1);
        }
        stacks.sort_by_key(|stack| std::cmp::Reverse(stack.count));
        let sampled_ns = samples.iter().map(|sample| weight(sample, since_ns, self.clock)).sum();
        let mut stall = Stall {
            at: clock.text(record.end_ns),
            start_ns: record.start_ns,
            end_ns: record.end_ns,
            stage,
            cpu: record.cpu,
            labels: context.labels(record.row),
            duration_ns: record.end_ns.saturating_sub(record.start_ns),
            unsampled_ns: is_sampled.then(|| overlap(&overdue, (record.start_ns, record.end_ns))),
            sampled_ns: is_sampled.then_some(sampled_ns),
            steal_ns: None,
            net_rx: (stage == Stage::NetRx).then(|| net_rx_parts(record, context)),
            interference: (stage == Stage::RxWait).then(|| interference(record, tasks, context)),
            samples: samples.len() as u64,
            culprits: Vec::new(),
            stacks: Vec::new(),
        };
        stall.culprits = culprits(&stacks, &stall.time());
        stacks.truncate(STACKS);
        stall.stacks = stacks;
        stall
    }

    /// Finds the owners of sockets that are not cached yet.
    fn find_owners(&mut self, collapses: &[CollapseRecord]) {
        let unknown: BTreeSet<u64> = collapses
            .iter()
            .map(|record| record.inode)
            .filter(|inode| *inode != 0 && !self.owners.contains_key(inode))
            .collect();
        if unknown.is_empty() {
            return;
        }
        // Bounds the cache in long runs: sockets come and go.
        if self.owners.len() > OWNERS {
            self.owners.clear();
        }
        let root = Path::new("/");
        let found = socket_owners::find(root, &unknown);
        for inode in unknown {
            let owner = found.get(&inode).map(|process| {
                // If the process has just ended, only its name is known.
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
        let polled = (record.poll_row != NO_ROW).then(|| context.labels(record.poll_row));
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

/// The stacks, most frequent first.
fn located(counts: HashMap<(Stage, Labels, Vec<String>), u64>) -> Vec<LocatedStack> {
    let mut stacks: Vec<LocatedStack> = counts
        .into_iter()
        .map(|((stage, labels, frames), count)| LocatedStack {
            stack: Stack { frames, count },
            stage: Some(stage.into()),
            labels,
        })
        .collect();
    stacks.sort_by(|a, b| {
        b.stack.count.cmp(&a.stack.count).then_with(|| a.stack.frames.cmp(&b.stack.frames))
    });
    stacks
}

/// The stack of a sample of a stall. A task that preempted a softirq is one frame: what it did is
/// no part of the stall, only that it ran.
fn frames(
    addresses: &mut Addresses,
    stage: Stage,
    record: &StallRecord,
    sample: &Sample,
) -> Vec<String> {
    if stage == Stage::RxWait || sample.task.pid == record.task.pid {
        return addresses.frames(&sample.frames);
    }
    // Folded stacks separate frames by semicolons.
    vec![format!("task:{}", stall_decode::comm(&sample.task).replace(';', ":"))]
}

/// The time that a sample stands for, ns, of a clock that has run since `clock_since_ns`; `None`: the
/// slow one took it.
fn weight(sample: &Sample, clock_since_ns: Option<u64>, clock: TickClock) -> u64 {
    let previous_tick_ns = sample.previous_tick_ns.max(clock_since_ns.unwrap_or(0));
    clock.weight(previous_tick_ns, sample.since_ns, sample.at_ns)
}

/// The hard IRQs during a stall; `None`: of this stage, they are not known.
fn irqs(stage: Stage, record: &StallRecord) -> Option<IrqPart> {
    let time = match stage {
        Stage::NetRx => record.irqs_in_run,
        Stage::RxWait => record.interference[HARD_IRQ_SOURCE],
        _ => return None,
    };
    // Otherwise it is of an earlier span: there was none in this one.
    let is_current = time.span_start_ns == record.start_ns;
    Some(if is_current { IrqPart { runs: time.runs, ns: time.ns } } else { IrqPart::default() })
}

/// The other tasks during a run of NET_RX; `None`: none ran.
fn tasks_in_run(record: &StallRecord) -> Option<TasksPart> {
    let tasks = &record.tasks_in_run;
    (tasks.time.span_start_ns == record.start_ns && tasks.time.runs > 0).then(|| TasksPart {
        runs: tasks.time.runs,
        ns: tasks.time.ns,
        longest: task(&tasks.longest),
        longest_ns: tasks.longest_ns,
    })
}

fn net_rx_parts(record: &StallRecord, context: &Context) -> NetRxParts {
    let is_timed = |stage| context.is_timed(stage);
    let net_rx_run = &record.net_rx_run;
    let polls = is_timed(Stage::NapiPoll).then(|| polls(net_rx_run, context));
    let listed: u64 = polls.iter().flatten().map(|poll| poll.ns).sum();
    let duration = record.end_ns.saturating_sub(record.start_ns);
    NetRxParts {
        wait_ns: (is_timed(Stage::RxWait) && net_rx_run.wait_ns != 0).then_some(net_rx_run.wait_ns),
        more_polls: u64::from(net_rx_run.polls).saturating_sub(POLLS as u64),
        more_polls_ns: net_rx_run.more_polls_ns,
        collapse: is_timed(Stage::TcpCollapse).then_some(CollapsePart {
            calls: net_rx_run.collapse_calls.into(),
            ns: net_rx_run.collapse_ns,
        }),
        rest_ns: duration.saturating_sub(listed + net_rx_run.more_polls_ns),
        irqs: irqs(Stage::NetRx, record).filter(|_| is_timed(Stage::Irq)),
        tasks: tasks_in_run(record),
        polls,
    }
}

fn polls(net_rx_run: &NetRxRun, context: &Context) -> Vec<PollPart> {
    let kept = (net_rx_run.polls as usize).min(POLLS);
    let part = |span: &latency_common::cpu_state::PollSpan| PollPart {
        labels: context.labels(span.row),
        ns: span.ns,
        work: span.work,
        budget: context.naming.budget(span.row),
    };
    net_rx_run.poll[..kept].iter().map(part).collect()
}

/// Share of payload in a socket's memory, if it is known.
fn payload_ratio(queue: CollapsedQueue, before: &SocketBefore) -> Option<f64> {
    let is_known = queue == CollapsedQueue::InOrder && before.rmem_alloc != 0;
    is_known.then(|| f64::from(before.payload_bytes) / f64::from(before.rmem_alloc))
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

/// Converts monotonic times to wall-clock times.
struct WallClock {
    monotonic_ns: u64,
    wall: SystemTime,
}

impl WallClock {
    fn now() -> Self {
        let monotonic_ns = monotonic_ns();
        Self { monotonic_ns, wall: SystemTime::now() }
    }

    /// `monotonic_ns` as RFC 3339, UTC.
    fn text(&self, monotonic_ns: u64) -> String {
        let ago = Duration::from_nanos(self.monotonic_ns.saturating_sub(monotonic_ns));
        humantime::format_rfc3339_micros(self.wall - ago).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{analysis::helper_functions::is_own_program, kernel::probes::hooks};

    #[test]
    fn addresses_follow_their_family() {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&[127, 0, 0, 1]);
        assert_eq!(address(2, &bytes, 80).to_string(), "127.0.0.1:80");
        assert_eq!(address(INET6, &Ipv6Addr::LOCALHOST.octets(), 443).to_string(), "[::1]:443");
        let mapped = Ipv4Addr::new(10, 1, 2, 3).to_ipv6_mapped().octets();
        assert_eq!(address(INET6, &mapped, 1).to_string(), "10.1.2.3:1");
    }

    #[test]
    fn out_of_order_data_has_no_ratio() {
        let before =
            SocketBefore { rmem_alloc: 4096, payload_bytes: 1024, ..SocketBefore::default() };
        assert_eq!(payload_ratio(CollapsedQueue::InOrder, &before), Some(0.25));
        assert_eq!(payload_ratio(CollapsedQueue::OutOfOrder, &before), None);
        assert_eq!(payload_ratio(CollapsedQueue::InOrder, &SocketBefore::default()), None);
    }

    #[test]
    fn malformed_records_are_counted() {
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

    #[test]
    fn no_program_of_the_tracer_can_be_a_culprit() {
        let hooks = Stage::ALL.into_iter().flat_map(|stage| {
            hooks::methods(stage).iter().flat_map(move |method| hooks::hooks(stage, *method))
        });
        let programs = hooks.map(|hook| hook.program).chain([hooks::RX_QUEUE_PROGRAM]);
        for program in programs {
            assert!(is_own_program(&format!("bpf:{program}")), "{program}");
        }
    }
}
