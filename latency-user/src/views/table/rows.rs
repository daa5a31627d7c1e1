//! Rows of the table: one CPU, queue, IRQ or vector each; what is quiet is folded.

use std::cmp::Reverse;

use latency_common::stage::{Stage, VECTOR_NAMES};

use crate::{
    model::{
        distribution::Distribution,
        series::{Owner, Queue, Series},
        summary::SeriesSummary,
    },
    views::{
        format,
        text::{printable, shorten},
    },
};

/// A name is shortened down to this many characters before what stands behind it is.
const MIN_NAME: usize = 8;

/// One line of the table.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) label: Label,
    pub(super) distribution: Distribution,
    series: Series,
}

/// The name of a row, in parts that can be shortened differently.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Label {
    before: String,
    name: String,
    after: String,
    extra: String,
}

/// What a table does not show one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Folded {
    pub(super) rows: usize,
    pub(super) events: u64,
    pub(super) stalls: u64,
    pub(super) max_ns: u64,
}

/// How many rows of a stage are shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fold {
    /// With more rows than this, rows are folded.
    pub(super) above: usize,
    /// When rows are folded, so many stay even if they are quiet, and up to `above` that stalled.
    pub(super) keep: usize,
}

impl Fold {
    /// For the table at the end of a run.
    pub(super) const FINAL: Self = Self { above: 16, keep: 8 };
    /// For the table of an interval, of which there are many.
    pub(super) const LIVE: Self = Self { above: 8, keep: 4 };
}

/// The rows of each stage that recorded something, in the order in which a packet meets them.
pub(super) fn by_stage(series: &[(Series, Distribution)]) -> Vec<(Stage, Vec<Row>)> {
    Stage::ALL
        .into_iter()
        .map(|stage| (stage, of_stage(stage, series)))
        .filter(|(_, rows)| !rows.is_empty())
        .collect()
}

/// The rows of one stage. Series with one label make one row: an IRQ on several CPUs, a queue
/// whose NAPI instance was replaced.
fn of_stage(stage: Stage, series: &[(Series, Distribution)]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let wanted = series.iter().filter(|(s, d)| s.stage == stage && !d.buckets.is_empty());
    for (series, distribution) in wanted {
        let label = Label::new(&series.owner);
        match rows.iter_mut().find(|row| row.label == label) {
            Some(row) => row.distribution.add(distribution),
            None => {
                rows.push(Row { label, distribution: distribution.clone(), series: series.clone() })
            }
        }
    }
    rows
}

/// Keeps the noisiest rows in front and folds the rest, when there are too many.
pub(super) fn fold(mut rows: Vec<Row>, fold: Fold) -> (Vec<Row>, Folded) {
    let mut folded = Folded::default();
    if rows.len() > fold.above {
        rows.sort_by_cached_key(|row| {
            let d = &row.distribution;
            Reverse((d.over_threshold, d.max_ns, d.count()))
        });
        let stalled = rows.iter().filter(|row| row.distribution.over_threshold > 0).count();
        for row in rows.split_off(stalled.clamp(fold.keep, fold.above)) {
            folded.rows += 1;
            folded.events += row.distribution.count();
            folded.stalls += row.distribution.over_threshold;
            folded.max_ns = folded.max_ns.max(row.distribution.max_ns);
        }
    }
    (rows, folded)
}

impl Folded {
    /// What is said in place of the rows: `+ 60 quiet CPUs: 1234 events, longest 12us`.
    pub(super) fn sentence(&self, stage: Stage) -> String {
        let noun = match stage {
            Stage::NapiPoll => "queue",
            Stage::Irq => "IRQ",
            Stage::Softirq => "row",
            Stage::RxWait | Stage::NetRx | Stage::TcpCollapse => "CPU",
        };
        let plural = if self.rows == 1 { "" } else { "s" };
        let (kind, stalls) = match self.stalls {
            0 => ("quiet", String::new()),
            stalls => ("more", format!("{}, ", format::counted(stalls, "stall"))),
        };
        format!(
            "+ {} {kind} {noun}{plural}: {}, {stalls}longest {}",
            self.rows,
            format::counted(self.events, "event"),
            format::duration(self.max_ns),
        )
    }
}

impl Row {
    /// The row in numbers.
    pub(super) fn numbers(&self) -> SeriesSummary {
        SeriesSummary::new(&self.series, &self.distribution)
    }

    /// Where it was, in a sentence: `CPU 1`, `eth0 q2 irq31`, `TIMER, CPU 0`.
    pub(super) fn place(&self) -> String {
        match self.series.owner {
            Owner::Cpu(cpu) => format!("CPU {cpu}"),
            _ => self.label.full(),
        }
    }
}

/// The row with the longest duration.
pub(super) fn worst(rows: &[Row]) -> Option<&Row> {
    // The first of equals: `max_by_key` gives the last.
    rows.iter().rev().max_by_key(|row| row.distribution.max_ns)
}

/// Number of stalls in rows.
pub(super) fn stalls(rows: &[Row]) -> u64 {
    rows.iter().map(|row| row.distribution.over_threshold).sum()
}

impl Label {
    pub(super) fn new(owner: &Owner) -> Self {
        match owner {
            Owner::Cpu(cpu) => Self { before: format!("cpu {cpu}"), ..Self::default() },
            Owner::Vector { vector, cpu } => {
                let vector = VECTOR_NAMES.get(*vector as usize).unwrap_or(&"?");
                Self { before: format!("{vector} cpu {cpu}"), ..Self::default() }
            }
            Owner::Irq { number, name, .. } => Self {
                before: number.map_or("irq other".into(), |number| format!("irq {number}")),
                name: name.as_ref().map(|name| format!(" {}", printable(name))).unwrap_or_default(),
                ..Self::default()
            },
            Owner::Queue(queue) => Self::of_queue(queue),
            Owner::OnHost { host, owner } => {
                let mut label = Self::new(owner);
                label.before = format!("{} {}", printable(host), label.before);
                label
            }
        }
    }

    fn of_queue(queue: &Queue) -> Self {
        let name = match (queue.iface(), queue.netns()) {
            (Some(iface), Some(netns)) => format!("{}@{netns}", printable(iface)),
            (Some(iface), None) => printable(iface),
            (None, _) => String::new(),
        };
        match queue {
            Queue::Device { queue, napi_id, irq, .. } => Self {
                name,
                after: match queue {
                    Some(queue) => format!(" q{queue}"),
                    None => format!(" napi-{napi_id}"),
                },
                extra: irq.map(|irq| format!(" irq{irq}")).unwrap_or_default(),
                ..Self::default()
            },
            Queue::WithoutId { cpu, .. } => {
                Self { name, after: format!(" no-id cpu {cpu}"), ..Self::default() }
            }
            Queue::Backlog { cpu } => {
                Self { before: format!("backlog cpu {cpu}"), ..Self::default() }
            }
            Queue::NoSlot { cpu } => Self { before: format!("other cpu {cpu}"), ..Self::default() },
        }
    }

    /// The whole of it.
    pub(super) fn full(&self) -> String {
        [&*self.before, &*self.name, &*self.after, &*self.extra].concat()
    }

    /// At most `width` characters of it: the name gives way first, then the IRQ of a queue.
    pub(super) fn fit(&self, width: usize) -> String {
        let full = self.full();
        if full.len() <= width {
            return full;
        }
        let least = MIN_NAME.min(self.name.len());
        for extra in [&*self.extra, ""] {
            let rest = self.before.len() + self.after.len() + extra.len();
            if let Some(room) = width.checked_sub(rest).filter(|room| *room >= least) {
                return [&*self.before, &*shorten(&self.name, room), &*self.after, extra].concat();
            }
        }
        shorten(&[&*self.before, &*self.name, &*self.after].concat(), width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(iface: &str, queue: Option<u32>, netns: Option<u32>, irq: Option<u32>) -> Owner {
        Owner::Queue(Queue::Device { iface: iface.into(), netns, queue, napi_id: 513, irq })
    }

    fn of(values: &[u64]) -> Distribution {
        let mut distribution = Distribution::default();
        for value in values {
            distribution.record(*value, 1_000_000, 0);
        }
        distribution
    }

    #[test]
    fn labels_name_what_is_known() {
        let labels = [
            (Owner::Cpu(3), "cpu 3"),
            (device("eth0", Some(2), None, Some(31)), "eth0 q2 irq31"),
            (device("eth0", None, None, None), "eth0 napi-513"),
            (device("eth0", Some(0), Some(4_026_532_211), None), "eth0@4026532211 q0"),
            (
                Owner::Queue(Queue::WithoutId { iface: "eth0".into(), netns: None, cpu: 1 }),
                "eth0 no-id cpu 1",
            ),
            (Owner::Queue(Queue::Backlog { cpu: 0 }), "backlog cpu 0"),
            (Owner::Queue(Queue::NoSlot { cpu: 0 }), "other cpu 0"),
            (Owner::Vector { vector: 1, cpu: 0 }, "TIMER cpu 0"),
            (Owner::Vector { vector: 99, cpu: 0 }, "? cpu 0"),
            (
                Owner::Irq { number: Some(24), name: Some("virtio1-input.0".into()), cpu: 0 },
                "irq 24 virtio1-input.0",
            ),
            (Owner::Irq { number: None, name: None, cpu: 0 }, "irq other"),
        ];
        for (owner, text) in labels {
            assert_eq!(Label::new(&owner).full(), text);
        }
    }

    #[test]
    fn the_queue_outlives_its_name_and_irq() {
        let label = Label::new(&device("enp65s0f0np0v12", Some(127), None, Some(1024)));
        assert_eq!(label.fit(30), "enp65s0f0np0v12 q127 irq1024");
        assert_eq!(label.fit(23), "enp6..0v12 q127 irq1024");
        assert_eq!(label.fit(20), "enp65s0f0np0v12 q127");
        assert_eq!(label.fit(13), "enp..v12 q127");
        assert_eq!(label.fit(10), "enp6..q127");
        for width in 0..30 {
            assert!(label.fit(width).len() <= width);
        }
    }

    #[test]
    fn an_irq_is_summed_over_its_cpus() {
        let irq = |cpu| Series {
            stage: Stage::Irq,
            owner: Owner::Irq { number: Some(24), name: None, cpu },
        };
        let stages = by_stage(&[(irq(0), of(&[100])), (irq(1), of(&[200, 2_000_000]))]);
        assert_eq!(stages.len(), 1);
        let [row] = &stages[0].1[..] else { panic!("one row: {stages:?}") };
        assert_eq!(row.distribution.count(), 3);
        assert_eq!(row.numbers().over_threshold, 1);
    }

    #[test]
    fn a_queue_is_one_row_whatever_its_instance() {
        let queue = |napi_id| Queue::Device {
            iface: "eth0".into(),
            netns: None,
            queue: Some(2),
            napi_id,
            irq: None,
        };
        let series = |id| Series { stage: Stage::NapiPoll, owner: Owner::Queue(queue(id)) };
        let stages = by_stage(&[(series(513), of(&[100])), (series(517), of(&[200]))]);
        assert_eq!(stages[0].1.len(), 1);
    }

    #[test]
    fn stages_come_in_the_order_of_the_packet() {
        let series = |stage| (Series { stage, owner: Owner::Cpu(0) }, of(&[1]));
        let order: Vec<_> =
            by_stage(&[series(Stage::TcpCollapse), series(Stage::NetRx), series(Stage::RxWait)])
                .into_iter()
                .map(|(stage, _)| stage)
                .collect();
        assert_eq!(order, [Stage::RxWait, Stage::NetRx, Stage::TcpCollapse]);
    }

    fn cpus(durations: impl IntoIterator<Item = u64>) -> Vec<Row> {
        let series: Vec<_> = durations
            .into_iter()
            .enumerate()
            .map(|(cpu, ns)| {
                (Series { stage: Stage::NetRx, owner: Owner::Cpu(cpu as u32) }, of(&[ns]))
            })
            .collect();
        of_stage(Stage::NetRx, &series)
    }

    #[test]
    fn few_rows_keep_their_order() {
        let (rows, folded) = fold(cpus((0..16).map(|n| 100 + n)), Fold::FINAL);
        assert_eq!(rows[0].label.full(), "cpu 0");
        assert_eq!((rows.len(), folded), (16, Folded::default()));
    }

    #[test]
    fn many_rows_show_the_noisiest() {
        let mut durations: Vec<u64> = (0..256).map(|n| 100 + n).collect();
        durations[77] = 5_000_000;
        let (rows, folded) = fold(cpus(durations), Fold::FINAL);
        assert_eq!(rows[0].label.full(), "cpu 77");
        assert_eq!(rows[1].label.full(), "cpu 255");
        assert_eq!(folded.sentence(Stage::NetRx), "+ 248 quiet CPUs: 248 events, longest 348ns");
    }

    #[test]
    fn folded_stalls_are_told() {
        let (rows, folded) = fold(cpus((0..20).map(|n| 1_000_000 + n)), Fold::FINAL);
        assert_eq!(rows.len(), 16);
        assert_eq!(
            folded.sentence(Stage::NetRx),
            "+ 4 more CPUs: 4 events, 4 stalls, longest 1.00ms"
        );
    }

    #[test]
    fn the_first_of_equally_bad_rows_is_the_worst() {
        let rows = cpus([7, 9, 9]);
        assert_eq!(worst(&rows).map(Row::place).as_deref(), Some("CPU 1"));
        assert!(worst(&[]).is_none());
    }
}
