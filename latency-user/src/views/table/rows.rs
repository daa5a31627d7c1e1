//! Rows of the table: one CPU, queue, IRQ or vector each; quiet rows are folded.

use std::{
    borrow::Cow,
    cmp::Ordering,
    collections::{HashMap, hash_map::Entry},
};

use latency_common::stage::{Stage, VECTOR_NAMES};

use crate::{
    model::{
        distribution::Distribution,
        series::{Location, Queue, QueueId, Series, attrs::QueueAttrs},
        summary::Numbers,
    },
    views::{
        format,
        text::{printable, shorten},
    },
};

/// A name is shortened to this many characters before the parts behind it are dropped.
const MIN_NAME: usize = 8;

/// One line of the table.
#[derive(Clone, Debug)]
pub(super) struct TableRow<'a> {
    /// Of several series, their sum.
    pub(super) distribution: Cow<'a, Distribution>,
    /// Location; of several, the first.
    at: &'a Location,
    attrs: &'a QueueAttrs,
}

/// The name of a row, in parts that can be shortened differently.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Label {
    before: String,
    name: String,
    after: String,
    extra: String,
}

/// Rows that a table does not show individually.
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
    /// When rows are folded, this many stay even if quiet, and up to `above` if they stalled.
    pub(super) keep: usize,
}

impl Fold {
    /// For the table at the end of a run.
    pub(super) const FINAL: Self = Self { above: 16, keep: 8 };
    /// For the table of an interval, which is printed repeatedly.
    pub(super) const LIVE: Self = Self { above: 8, keep: 4 };
}

/// The rows of each stage that recorded something, in the order in which a packet meets them.
pub(super) fn by_stage(series: &[Series]) -> Vec<(Stage, Vec<TableRow<'_>>)> {
    Stage::ALL
        .into_iter()
        .map(|stage| (stage, of_stage(stage, series)))
        .filter(|(_, rows)| !rows.is_empty())
        .collect()
}

/// The rows of one stage. Series with one label make one row: an IRQ on several CPUs.
fn of_stage(stage: Stage, series: &[Series]) -> Vec<TableRow<'_>> {
    let with_events = series.iter().filter(|series| !series.distribution.buckets.is_empty());
    let of_stage = with_events.filter(|series| series.id.stage == stage);
    let rows = of_stage.map(|Series { id, attrs, distribution }| TableRow {
        distribution: Cow::Borrowed(distribution),
        at: &id.at,
        attrs,
    });
    match stage {
        Stage::Irq => added_up(rows),
        // Each is of one CPU or queue.
        _ => rows.collect(),
    }
}

/// Adds up rows with the same label.
fn added_up<'a>(rows: impl Iterator<Item = TableRow<'a>>) -> Vec<TableRow<'a>> {
    let mut sums: Vec<TableRow<'a>> = Vec::new();
    let mut by_label: HashMap<Label, usize> = HashMap::new();
    for row in rows {
        match by_label.entry(row.label()) {
            Entry::Occupied(at) => sums[*at.get()].distribution.to_mut().add(&row.distribution),
            Entry::Vacant(entry) => {
                entry.insert(sums.len());
                sums.push(row);
            }
        }
    }
    sums
}

/// Keeps the noisiest rows in front and folds the rest, when there are too many.
pub(super) fn fold(mut rows: Vec<TableRow<'_>>, fold: Fold) -> (Vec<TableRow<'_>>, Folded) {
    let mut folded = Folded::default();
    if rows.len() > fold.above {
        let stalled = rows.iter().filter(|row| row.distribution.over_threshold > 0).count();
        rows.select_nth_unstable_by(fold.above, noisiest_first);
        rows[..fold.above].sort_by(noisiest_first);
        for row in rows.split_off(stalled.clamp(fold.keep, fold.above)) {
            folded.rows += 1;
            folded.events += row.distribution.count();
            folded.stalls += row.distribution.over_threshold;
            folded.max_ns = folded.max_ns.max(row.distribution.max_ns);
        }
    }
    (rows, folded)
}

/// By stalls, the longest duration, and events.
fn noisiest_first(a: &TableRow<'_>, b: &TableRow<'_>) -> Ordering {
    let noise = |row: &TableRow<'_>| (row.distribution.over_threshold, row.distribution.max_ns);
    let noisier = noise(b).cmp(&noise(a));
    noisier
        .then_with(|| b.distribution.count().cmp(&a.distribution.count()))
        .then_with(|| a.at.cmp(b.at))
}

impl Folded {
    /// The line that replaces the rows: `+ 60 quiet CPUs: 1234 events, longest 12us`.
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

impl TableRow<'_> {
    /// The name of the row.
    pub(super) fn label(&self) -> Label {
        Label::new(self.at, self.attrs)
    }

    /// The row in numbers.
    pub(super) fn numbers(&self) -> Numbers {
        Numbers::new(&self.distribution)
    }

    /// The location, for a sentence: `CPU 1`, `eth0 q2 irq31`, `TIMER cpu 0`.
    pub(super) fn place(&self) -> String {
        match self.at {
            Location::Cpu(cpu) => format!("CPU {cpu}"),
            _ => self.label().full(),
        }
    }
}

/// The row with the longest duration.
pub(super) fn worst<'a, 'b>(rows: &'b [TableRow<'a>]) -> Option<&'b TableRow<'a>> {
    // Reversed, because `max_by_key` returns the last of equal rows, and the first is wanted.
    rows.iter().rev().max_by_key(|row| row.distribution.max_ns)
}

/// Number of stalls in rows.
pub(super) fn stalls(rows: &[TableRow<'_>]) -> u64 {
    rows.iter().map(|row| row.distribution.over_threshold).sum()
}

impl Label {
    pub(super) fn new(at: &Location, attrs: &QueueAttrs) -> Self {
        match at {
            Location::Cpu(cpu) => Self { before: format!("cpu {cpu}"), ..Self::default() },
            Location::Vector { vector, cpu } => {
                let vector = VECTOR_NAMES.get(*vector as usize).unwrap_or(&"?");
                Self { before: format!("{vector} cpu {cpu}"), ..Self::default() }
            }
            Location::Irq { number, name, .. } => Self {
                before: number.map_or("irq other".into(), |number| format!("irq {number}")),
                name: name.as_ref().map(|name| format!(" {}", printable(name))).unwrap_or_default(),
                ..Self::default()
            },
            Location::Queue(queue) => Self::of_queue(queue, attrs),
            Location::OnHost { host, at } => {
                let mut label = Self::new(at, attrs);
                label.before = format!("{} {}", printable(host), label.before);
                label
            }
        }
    }

    fn of_queue(queue: &Queue, attrs: &QueueAttrs) -> Self {
        let name = match (queue.iface(), queue.netns()) {
            (Some(iface), Some(netns)) => format!("{}@{netns}", printable(iface)),
            (Some(iface), None) => printable(iface),
            (None, _) => String::new(),
        };
        match queue {
            Queue::Device { id, .. } => Self {
                name,
                after: match id {
                    QueueId::Rx(number) => format!(" q{number}"),
                    QueueId::Napi(id) => format!(" napi-{id}"),
                },
                extra: attrs.irq.map(|irq| format!(" irq{irq}")).unwrap_or_default(),
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

    /// The full label.
    pub(super) fn full(&self) -> String {
        [&*self.before, &*self.name, &*self.after, &*self.extra].concat()
    }

    /// At most `width` characters: the name is shortened first, then the IRQ of a queue is dropped.
    pub(super) fn fit(&self, width: usize) -> String {
        let full = self.full();
        if full.len() <= width {
            return full;
        }
        let least = MIN_NAME.min(self.name.len());
        for extra in [&*self.extra, ""] {
            let rest = self.before.len() + self.after.len() + extra.len();
            if let Some(space) = width.checked_sub(rest).filter(|space| *space >= least) {
                return [&*self.before, &*shorten(&self.name, space), &*self.after, extra].concat();
            }
        }
        shorten(&[&*self.before, &*self.name, &*self.after].concat(), width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(iface: &str, queue: Option<u32>, netns: Option<u32>) -> Location {
        let id = queue.map_or(QueueId::Napi(513), QueueId::Rx);
        Location::Queue(Queue::Device { iface: iface.into(), netns, id })
    }

    fn with_irq(irq: Option<u32>) -> QueueAttrs {
        QueueAttrs { napi_id: Some(513), irq, named_by: None }
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
            (Location::Cpu(3), "cpu 3"),
            (device("eth0", Some(2), None), "eth0 q2 irq31"),
            (device("eth0", None, None), "eth0 napi-513 irq31"),
            (device("eth0", Some(0), Some(4_026_532_211)), "eth0@4026532211 q0 irq31"),
            (
                Location::Queue(Queue::WithoutId { iface: "eth0".into(), netns: None, cpu: 1 }),
                "eth0 no-id cpu 1",
            ),
            (Location::Queue(Queue::Backlog { cpu: 0 }), "backlog cpu 0"),
            (Location::Queue(Queue::NoSlot { cpu: 0 }), "other cpu 0"),
            (Location::Vector { vector: 1, cpu: 0 }, "TIMER cpu 0"),
            (Location::Vector { vector: 99, cpu: 0 }, "? cpu 0"),
            (
                Location::Irq { number: Some(24), name: Some("virtio1-input.0".into()), cpu: 0 },
                "irq 24 virtio1-input.0",
            ),
            (Location::Irq { number: None, name: None, cpu: 0 }, "irq other"),
        ];
        for (at, text) in labels {
            assert_eq!(Label::new(&at, &with_irq(Some(31))).full(), text);
        }
    }

    #[test]
    fn the_queue_outlives_its_name_and_irq() {
        let label = Label::new(&device("enp65s0f0np0v12", Some(127), None), &with_irq(Some(1024)));
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
        let irq = |cpu, values: &[u64]| {
            Series::new(Stage::Irq, Location::Irq { number: Some(24), name: None, cpu }, of(values))
        };
        let series = [irq(0, &[100]), irq(1, &[200, 2_000_000])];
        let stages = by_stage(&series);
        assert_eq!(stages.len(), 1);
        let [row] = &stages[0].1[..] else { panic!("one row: {stages:?}") };
        assert_eq!(row.distribution.count(), 3);
        assert_eq!(row.numbers().over_threshold, 1);
    }

    #[test]
    fn stages_come_in_the_order_of_the_packet() {
        let series = |stage| Series::new(stage, Location::Cpu(0), of(&[1]));
        let order: Vec<_> =
            by_stage(&[series(Stage::TcpCollapse), series(Stage::NetRx), series(Stage::RxWait)])
                .into_iter()
                .map(|(stage, _)| stage)
                .collect();
        assert_eq!(order, [Stage::RxWait, Stage::NetRx, Stage::TcpCollapse]);
    }

    fn cpus(durations: impl IntoIterator<Item = u64>) -> Vec<Series> {
        let numbered = (0..).zip(durations);
        let series = |(cpu, ns)| Series::new(Stage::NetRx, Location::Cpu(cpu), of(&[ns]));
        numbered.map(series).collect()
    }

    #[test]
    fn few_rows_keep_their_order() {
        let series = cpus((0..16).map(|n| 100 + n));
        let (rows, folded) = fold(of_stage(Stage::NetRx, &series), Fold::FINAL);
        assert_eq!(rows[0].label().full(), "cpu 0");
        assert_eq!((rows.len(), folded), (16, Folded::default()));
    }

    #[test]
    fn many_rows_show_the_noisiest() {
        let mut durations: Vec<u64> = (0..256).map(|n| 100 + n).collect();
        durations[77] = 5_000_000;
        let series = cpus(durations);
        let (rows, folded) = fold(of_stage(Stage::NetRx, &series), Fold::FINAL);
        assert_eq!(rows[0].label().full(), "cpu 77");
        assert_eq!(rows[1].label().full(), "cpu 255");
        assert_eq!(folded.sentence(Stage::NetRx), "+ 248 quiet CPUs: 248 events, longest 348ns");
    }

    #[test]
    fn folded_stalls_are_shown() {
        let series = cpus((0..20).map(|n| 1_000_000 + n));
        let (rows, folded) = fold(of_stage(Stage::NetRx, &series), Fold::FINAL);
        assert_eq!(rows.len(), 16);
        assert_eq!(
            folded.sentence(Stage::NetRx),
            "+ 4 more CPUs: 4 events, 4 stalls, longest 1.00ms"
        );
    }

    #[test]
    fn the_first_of_equally_bad_rows_is_the_worst() {
        let series = cpus([7, 9, 9]);
        let rows = of_stage(Stage::NetRx, &series);
        assert_eq!(worst(&rows).map(TableRow::place).as_deref(), Some("CPU 1"));
        assert!(worst(&[]).is_none());
    }
}
