//! A recording summed up over its intervals: what a report shows and what `merge` adds.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use super::{
    format::Merge,
    reader::{Entry, ReadError, Reader, RecordedInterval},
};
use crate::{
    analysis::stall_totals::StallTotals,
    model::{
        cost::SelfCost,
        distribution::Distribution,
        interval::Interval,
        ledger::Ledger,
        place::Place,
        run::Run,
        series::{Owner, Queue, Series},
        settings::Settings,
        source::Source,
        stall::{Stack, Stall, collapse::Collapse},
        summary::{SeriesSummary, Stalls, Summary},
    },
};

/// So many of the longest stalls, and of the slowest collapses, are kept.
pub const WORST: usize = 64;

/// Everything in a recording but the course of time.
#[derive(Default)]
pub struct Whole {
    /// The header; `None`: another program's log.
    pub run: Option<Run>,
    /// What the machine was set to; `None`: it is not recorded.
    pub settings: Option<Settings>,
    /// What was merged into it.
    pub merge: Option<Merge>,
    /// The end; `None`: the run was killed, or it is another program's log.
    pub end: Option<Summary>,
    /// All durations by source.
    pub totals: BTreeMap<Source, Distribution>,
    /// Number of intervals.
    pub intervals: u64,
    /// End of the last interval, counted from the begin.
    pub length: Duration,
    /// The longest stalls, longest first.
    pub stalls: Vec<Stall>,
    /// The slowest calls of `tcp_collapse`, slowest first.
    pub collapses: Vec<Collapse>,
    /// Samples by stack, deepest frame first.
    pub stacks: BTreeMap<Vec<String>, u64>,
    /// What the stalls add up to, for runs that did not end.
    stall_totals: StallTotals,
    /// What the user must know of the file.
    pub remarks: Vec<String>,
}

/// Series with their distributions, as views take them.
pub type Timed = Vec<(Series, Distribution)>;

impl Whole {
    /// Reads a recording and hands each interval to `watch` as it goes by.
    ///
    /// # Errors
    ///
    /// As [`Reader::next_entry`].
    pub fn read(path: &Path, mut watch: impl FnMut(&RecordedInterval)) -> Result<Self, ReadError> {
        let mut reader = Reader::open(path)?;
        let mut whole = Self::default();
        while let Some(entry) = reader.next_entry()? {
            if let Entry::Interval(interval) = &entry {
                watch(interval);
            }
            whole.add(entry);
        }
        sort_worst(&mut whole.stalls, |stall| stall.duration_ns);
        sort_worst(&mut whole.collapses, |one| one.duration_ns);
        whole.remarks.extend_from_slice(reader.remarks());
        if whole.run.is_some() && whole.end.is_none() {
            whole.remarks.push(format!(
                "{}: the run did not end by itself: its ledger and own cost are not known",
                path.display()
            ));
        }
        Ok(whole)
    }

    fn add(&mut self, entry: Entry) {
        match entry {
            Entry::Run(run) => self.run = Some(run),
            Entry::Settings(settings) => self.settings = Some(settings),
            Entry::Merge(merge) => self.merge = Some(merge),
            Entry::Summary(end) => self.end = Some(*end),
            Entry::Interval(interval) => {
                self.intervals += 1;
                self.length = self.length.max(interval.start.saturating_add(interval.duration));
                for (source, distribution) in &interval.series {
                    match self.totals.get_mut(source) {
                        Some(total) => total.add(distribution),
                        None => drop(self.totals.insert(source.clone(), distribution.clone())),
                    }
                }
                let of_stalls = Interval {
                    began_at: UNIX_EPOCH,
                    duration: interval.duration,
                    series: Vec::new(),
                    stalls: interval.stalls.clone(),
                    collapses: interval.collapses.clone(),
                    stacks: interval.stacks.clone(),
                };
                self.stall_totals.add(&of_stalls);
                keep_worst(&mut self.stalls, interval.stalls, |stall| stall.duration_ns);
                keep_worst(&mut self.collapses, interval.collapses, |one| one.duration_ns);
                for Stack { frames, count } in interval.stacks {
                    let sum = self.stacks.entry(frames).or_default();
                    *sum = sum.saturating_add(count);
                }
            }
        }
    }

    /// The same numbers as the live summary of the run: its series, in its order, without those
    /// that it did not show. `None` for another program's log.
    ///
    /// The ledger of a run that did not end is empty: nothing is known of it.
    pub fn summary(&self) -> Option<(Summary, Timed)> {
        let mut run = self.run.clone()?;
        let mut timed: Timed = Vec::new();
        let shown = self.end.as_ref().map(|end| identities(&end.series));
        let mut order = Vec::new();
        for (source, distribution) in &self.totals {
            let Source::Series(series) = source else { continue };
            let mut series = series.clone();
            if let Some(shown) = &shown {
                let Some((at, place)) = shown.get(&identity_of(&series)) else { continue };
                name_queue(&mut series.owner, place);
                order.push(*at);
            } else {
                order.push(timed.len());
            }
            timed.push((series, distribution.clone()));
        }
        let mut ordered: Vec<_> = order.into_iter().zip(timed).collect();
        ordered.sort_by_key(|(at, _)| *at);
        let timed: Timed = ordered.into_iter().map(|(_, one)| one).collect();
        let series: Vec<_> = timed.iter().map(|(s, d)| SeriesSummary::new(s, d)).collect();
        let stalls = Stalls::new(run.threshold_ns, &series, &self.stall_totals, Vec::new());
        let summary = match &self.end {
            Some(end) => {
                // The run itself saw every stall, and TCP's counters.
                let stalls = Stalls { by_stage: stalls.by_stage, ..end.stalls.clone() };
                Summary { series, stalls, ..end.clone() }
            }
            None => {
                if self.merge.is_none() {
                    run.duration_s = self.length.as_secs_f64();
                }
                Summary {
                    run,
                    series,
                    stalls,
                    ledger: Ledger::default(),
                    self_cost: SelfCost::default(),
                }
            }
        };
        Some((summary, timed))
    }

    /// The plain series. In another program's log, stalls are counted from `threshold_ns` on.
    pub fn plain(&self, threshold_ns: u64) -> Vec<(String, Distribution)> {
        let plain = self.totals.iter().filter_map(|(source, distribution)| match source {
            Source::Plain(tag) => Some((tag.clone(), distribution.clone())),
            Source::Series(_) => None,
        });
        plain
            .map(|(tag, mut distribution)| {
                if self.run.is_none() {
                    distribution.over_threshold = distribution.count_from(threshold_ns);
                }
                (tag, distribution)
            })
            .collect()
    }

    /// Begin of the run, ms since the epoch.
    pub(super) fn began_ms(&self) -> Option<u64> {
        let began = humantime::parse_rfc3339(&self.run.as_ref()?.started_at).ok()?;
        u64::try_from(began.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
    }
}

/// Adds some, and drops the smallest when there are too many. Ties are broken by the whole content, so that the order in which
/// recordings are merged does not matter.
pub(super) fn keep_worst<T: serde::Serialize>(
    worst: &mut Vec<T>,
    more: Vec<T>,
    size: impl Fn(&T) -> u64,
) {
    if more.is_empty() {
        return;
    }
    worst.extend(more);
    if worst.len() > 2 * WORST {
        sort_worst(worst, size);
    }
}

/// Largest first, no more than [`WORST`].
pub(super) fn sort_worst<T: serde::Serialize>(worst: &mut Vec<T>, size: impl Fn(&T) -> u64) {
    worst.sort_by_cached_key(|one| {
        (std::cmp::Reverse(size(one)), serde_json::to_string(one).unwrap_or_default())
    });
    worst.truncate(WORST);
}

/// A stage and a place without what changes during a run: one queue may have several instances.
type Identity = (Cow<'static, str>, Place);

fn identity(stage: Cow<'static, str>, place: &Place) -> Identity {
    let mut place = place.clone();
    if place.queue.is_some() {
        place.napi_id = None;
    }
    if place.irq_name.is_none() && place.iface.is_some() {
        place.irq = None;
    }
    (stage, place)
}

fn identity_of(series: &Series) -> Identity {
    identity(series.stage.name().into(), &Place::from(&series.owner))
}

fn identities(series: &[SeriesSummary]) -> HashMap<Identity, (usize, &Place)> {
    let mut identities = HashMap::new();
    for (at, one) in series.iter().enumerate() {
        identities.entry(identity(one.stage.clone(), &one.place)).or_insert((at, &one.place));
    }
    identities
}

/// Fills in what the tag of a queue does not hold.
fn name_queue(owner: &mut Owner, place: &Place) {
    match owner {
        Owner::Queue(Queue::Device { napi_id, irq, .. }) => {
            *napi_id = place.napi_id.unwrap_or(*napi_id);
            *irq = irq.or(place.irq);
        }
        Owner::OnHost { owner, .. } => name_queue(owner, place),
        _ => {}
    }
}
