//! The last minutes in memory, for the page: totals and a timeline.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use crate::{
    analysis::totals::{RunEnd, Totals},
    measure::sink::SoFar,
    model::{
        interval::Interval,
        run::Run,
        series::{Series, SeriesId},
        summary::Summary,
        tcp_pressure,
        timeline::{Cell, Timeline},
    },
};

/// What the page shows.
pub const LENGTH: Duration = Duration::from_secs(15 * 60);

/// Length of a column of the timeline.
const COLUMN: Duration = Duration::from_secs(5);

/// The last minutes, one by one.
#[derive(Clone, Debug, Default)]
pub struct Window {
    minutes: VecDeque<Arc<Minute>>,
}

/// A part of the time that was measured: that of one segment of the ring.
#[derive(Clone, Debug, Default)]
pub struct Minute {
    totals: Totals,
    columns: Vec<(Duration, BTreeMap<SeriesId, Cell>)>,
    length: Duration,
    /// What happened in it before the tracer was started anew.
    earlier: Option<RunEnd>,
    /// What had happened before it.
    before: SoFar,
    /// And at its end, so far.
    after: SoFar,
}

impl Minute {
    /// Starts after `before`.
    pub fn new(before: SoFar) -> Self {
        Self { after: before.clone(), before, ..Self::default() }
    }

    /// Adds an interval, after which `after` had happened.
    pub fn add(&mut self, interval: &Interval, after: Option<&SoFar>) {
        self.totals.add(interval);
        if let Some(after) = after {
            self.after = after.clone();
        }
        self.length += interval.duration;
        if self.columns.last().is_none_or(|(length, _)| *length >= COLUMN) {
            self.columns.push(Default::default());
        }
        let Some((length, cells)) = self.columns.last_mut() else { return };
        *length += interval.duration;
        for series in &interval.series {
            let cell = Cell::of(&series.distribution);
            match cells.get_mut(&series.id) {
                Some(known) => known.add(cell),
                None => drop(cells.insert(series.id.clone(), cell)),
            }
        }
    }

    /// The tracer is started anew: nothing has happened to it.
    pub fn restart(&mut self) {
        self.earlier = Some(self.end());
        (self.before, self.after) = Default::default();
    }

    /// How much of the time it holds.
    pub fn length(&self) -> Duration {
        self.length
    }

    /// What had happened at its end.
    pub fn after(&self) -> &SoFar {
        &self.after
    }

    /// The one that follows.
    pub fn next(&self) -> Self {
        Self::new(self.after.clone())
    }

    /// Ends it.
    #[must_use]
    pub fn ended(mut self) -> Arc<Self> {
        self.totals.end = Some(self.end());
        Arc::new(self)
    }

    /// The summary of one that has ended: that of a run of this length.
    pub fn summary(&self, run: &Run, length: Duration) -> Summary {
        let run = Run { duration_s: length.as_secs_f64(), ..run.clone() };
        self.totals.summary(run, &self.totals.series())
    }

    fn end(&self) -> RunEnd {
        let last = RunEnd {
            ledger: self.after.ledger.since(&self.before.ledger),
            self_cost: self.after.self_cost.clone(),
            tcp: tcp_pressure::since(&self.after.tcp, &self.before.tcp),
        };
        match &self.earlier {
            Some(earlier) => {
                let mut end = earlier.clone();
                end.continue_with(last);
                end
            }
            None => last,
        }
    }
}

/// What a page is made of.
pub struct Recent {
    /// Its numbers.
    pub summary: Summary,
    /// Its distributions.
    pub series: Vec<Series>,
    /// Its course.
    pub timeline: Timeline,
    /// Its sums.
    pub totals: Totals,
}

impl Window {
    /// Adds a minute that is over.
    pub fn add(&mut self, minute: Arc<Minute>) {
        self.minutes.push_back(minute);
        let mut length: Duration = self.minutes.iter().map(|minute| minute.length).sum();
        while let Some(oldest) = self.minutes.front()
            && length - oldest.length >= LENGTH
        {
            length -= oldest.length;
            self.minutes.pop_front();
        }
    }

    /// The minutes that are over, and the `current` one, as one run.
    pub fn recent(&self, current: &Minute, run: &Run) -> Recent {
        let mut totals = Totals::default();
        let mut timeline = Timeline::default();
        let mut end: Option<RunEnd> = None;
        let mut length = Duration::ZERO;
        for minute in self.minutes.iter().map(Arc::as_ref).chain([current]) {
            totals.join(Totals { end: None, ..minute.totals.clone() });
            for (seconds, cells) in &minute.columns {
                timeline.add_cells(*seconds, cells.iter().map(|(id, cell)| (id, *cell)));
            }
            length += minute.length;
            let part = minute.end();
            match &mut end {
                Some(end) => end.continue_with(part),
                None => end = Some(part),
            }
        }
        totals.end = end;
        let series = totals.series();
        let run = Run { duration_s: length.as_secs_f64(), ..run.clone() };
        Recent { summary: totals.summary(run, &series), series, timeline, totals }
    }
}
