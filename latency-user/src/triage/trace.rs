//! The short trace that triage runs if allowed: stalls by stage.

use std::{path::Path, time::Duration};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::{
    kernel::{privileges, single_instance::SingleInstance},
    measure::{
        self, MeasureConfig, Measurement,
        daemon::{self, Request},
        pacing::{Ends, Stop},
    },
    model::{
        note::Note,
        series::labels::Labels,
        stage::StageName,
        summary::{SeriesSummary, Summary},
    },
};

/// A short trace, or why there was none.
pub(super) type TraceResult = Result<Traced, String>;

/// Result of a short trace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Traced {
    /// Each stage that has a series.
    pub(super) stages: Vec<StageStalls>,
    /// Where the time of stalls went, in percent: functions, and what no function explains.
    pub(super) culprits: Vec<(String, u32)>,
}

/// Events and stalls of one stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StageStalls {
    /// Name of the stage.
    pub(super) stage: StageName,
    /// Events timed.
    pub(super) count: u64,
    /// Events at or above the threshold.
    pub(super) stalls: u64,
    /// Longest event, ns.
    pub(super) max_ns: u64,
    /// Where the longest event was.
    pub(super) place: String,
}

/// A trace in progress.
pub(super) struct ShortTrace {
    measurement: Measurement,
    /// `None`: a daemon traces.
    _instance: Option<SingleInstance>,
}

impl ShortTrace {
    /// Attaches the programs.
    ///
    /// # Errors
    ///
    /// Why a trace is impossible.
    pub(super) fn start(max_overhead: Option<f64>, daemon: Option<&Path>) -> Result<Self, String> {
        let mut config = MeasureConfig { max_overhead, ..MeasureConfig::new() };
        let instance = match daemon.filter(|socket| daemon::is_there(socket)) {
            Some(socket) => {
                let answer = daemon::ask(socket, &Request::Status).map_err(text)?.answer;
                let differences = answer.differences(&config.tracer, |_| false);
                if !differences.is_empty() {
                    let differences = differences.join("; ");
                    return Err(format!("a daemon traces here already, with {differences}"));
                }
                config.daemon = Some(socket.to_owned());
                None
            }
            None => {
                privileges::check().map_err(|failure| failure.message)?;
                Some(SingleInstance::claim().map_err(|failure| failure.message)?)
            }
        };
        let measurement = Measurement::start(&config).map_err(text)?;
        Ok(Self { measurement, _instance: instance })
    }

    /// Traces until `duration` has passed.
    ///
    /// # Errors
    ///
    /// Why the trace ended early.
    pub(super) fn follow(&mut self, duration: Duration) -> Result<(), String> {
        let ends = Ends {
            duration: Some(duration),
            signal: std::future::pending::<Result<Stop>>(),
            early: None,
            outlast_stages: true,
        };
        let mut notify = |_, note: &Note| log::info!("the short trace: {note}");
        let followed = self.measurement.follow(ends, &mut [], &mut notify);
        measure::block_on(followed).map(drop).map_err(text)
    }

    /// Detaches the programs and returns the result.
    ///
    /// # Errors
    ///
    /// Why the result cannot be trusted.
    pub(super) fn finish(self) -> TraceResult {
        let outcome = self.measurement.finish(&mut [], &mut |_, _| {}).map_err(text)?;
        if !outcome.summary.ledger.balanced {
            return Err("the trace's ledger does not balance".into());
        }
        Ok(Traced::new(&outcome.summary))
    }
}

impl Traced {
    fn new(summary: &Summary) -> Self {
        let time = summary.stalls.time.unwrap_or_default();
        let functions = summary.stalls.culprits.iter();
        let mut shares: Vec<(String, f64)> =
            functions.map(|culprit| (culprit.function.clone(), culprit.share)).collect();
        if time.stalled_ns > 0 {
            shares.push(("CPU not running or interrupts off".into(), time.not_running()));
        }
        shares.sort_by(|a, b| b.1.total_cmp(&a.1));
        if time.stalled_ns > 0 {
            shares.push(("unexplained".into(), time.unexplained()));
        }
        let percent = |share: f64| (share * 100.0).round() as u32;
        let culprits = shares.into_iter().map(|(name, share)| (name, percent(share)));
        Self {
            stages: by_stage(&summary.series),
            culprits: culprits.filter(|(_, share)| *share > 0).collect(),
        }
    }
}

fn text(error: anyhow::Error) -> String {
    format!("{error:#}")
}

fn by_stage(series: &[SeriesSummary]) -> Vec<StageStalls> {
    let mut stages: Vec<StageStalls> = Vec::new();
    for SeriesSummary { stage, labels, numbers } in series {
        let at = stages.iter().position(|known| known.stage == *stage).unwrap_or_else(|| {
            let (stage, place) = (stage.clone(), String::new());
            stages.push(StageStalls { stage, count: 0, stalls: 0, max_ns: 0, place });
            stages.len() - 1
        });
        let stage = &mut stages[at];
        stage.count += numbers.count;
        stage.stalls += numbers.over_threshold;
        if numbers.max_ns > stage.max_ns {
            stage.max_ns = numbers.max_ns;
            stage.place = place(labels);
        }
    }
    stages
}

fn place(labels: &Labels) -> String {
    let on_cpu = labels.cpu.map(|cpu| format!(" on CPU {cpu}")).unwrap_or_default();
    match (&labels.iface, labels.irq, labels.cpu) {
        (Some(iface), ..) => match labels.queue {
            Some(queue) => format!("{iface} queue {queue}"),
            None => iface.clone(),
        },
        (None, Some(irq), _) => format!("IRQ {irq}{on_cpu}"),
        (None, None, Some(cpu)) => match &labels.queue_kind {
            Some(kind) => format!("the {kind} of CPU {cpu}"),
            None => format!("CPU {cpu}"),
        },
        (None, None, None) => "an unknown place".into(),
    }
}

#[cfg(test)]
mod tests {
    use latency_common::stage::Stage;

    use super::*;
    use crate::model::summary::Numbers;

    #[test]
    fn stages_sum_up_and_name_the_place_of_the_longest() {
        let series = |cpu, count, over_threshold, max_ns| SeriesSummary {
            stage: Stage::NetRx.into(),
            labels: Labels { cpu: Some(cpu), ..Labels::default() },
            numbers: Numbers { count, over_threshold, max_ns, ..Numbers::default() },
        };
        let stages = by_stage(&[series(0, 2, 1, 2_000_000), series(3, 2, 2, 7_000_000)]);
        let expected = StageStalls {
            stage: Stage::NetRx.into(),
            count: 4,
            stalls: 3,
            max_ns: 7_000_000,
            place: "CPU 3".into(),
        };
        assert_eq!(stages, [expected]);
    }
}
