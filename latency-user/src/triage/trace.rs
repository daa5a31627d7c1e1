//! The short trace that triage adds when it may: stalls by stage.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::{
    analysis::culprits::culprits,
    collect::{config::Config, tracer::Tracer},
    kernel::{privileges, single_instance::Instance},
    model::{
        distribution::Distribution,
        series::{Owner, Series},
    },
};

/// A short trace, or why there was none.
pub(super) type TraceResult = Result<Traced, String>;

/// What a short trace saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Traced {
    /// Each stage that had anything to time.
    pub(super) stages: Vec<StageStalls>,
    /// Functions in which samples found the CPU during stalls, and percent of the samples.
    pub(super) culprits: Vec<(String, u32)>,
}

/// What one stage showed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StageStalls {
    /// Name of the stage.
    pub(super) stage: String,
    /// Intervals timed.
    pub(super) count: u64,
    /// Those at or above the threshold.
    pub(super) stalls: u64,
    /// The longest, ns.
    pub(super) max_ns: u64,
    /// Where the longest was.
    pub(super) place: String,
}

/// A trace under way.
pub(super) struct ShortTrace {
    tracer: Tracer,
    _instance: Instance,
}

impl ShortTrace {
    /// Attaches the programs.
    ///
    /// # Errors
    ///
    /// Why there can be no trace.
    pub(super) fn start() -> Result<Self, String> {
        let text = |error: anyhow::Error| format!("{error:#}");
        privileges::check().map_err(|failure| failure.message)?;
        let instance = Instance::claim().map_err(|failure| failure.message)?;
        let config = Config::new();
        let tracer = Tracer::start(&config).map_err(text)?;
        Ok(Self { tracer, _instance: instance })
    }

    /// Reads the records that are there, so that their buffer does not fill.
    pub(super) fn drain(&mut self) {
        self.tracer.drain_records();
    }

    /// Detaches the programs and sums up.
    ///
    /// # Errors
    ///
    /// Why the trace cannot be believed.
    pub(super) fn finish(mut self) -> TraceResult {
        let ledger = self.tracer.finish();
        if !ledger.balanced {
            return Err("the trace's ledger does not balance".into());
        }
        self.tracer.interval().map_err(|error| format!("{error:#}"))?;
        let culprits = culprits(&self.tracer.learned().stacks);
        Ok(Traced {
            stages: by_stage(&self.tracer.total()),
            culprits: culprits
                .into_iter()
                .map(|one| (one.function, (one.share * 100.0).round() as u32))
                .collect(),
        })
    }
}

fn by_stage(series: &[(Series, Distribution)]) -> Vec<StageStalls> {
    let mut stages: Vec<StageStalls> = Vec::new();
    for (series, distribution) in series {
        let name = series.stage.name();
        let at = stages.iter().position(|one| one.stage == name).unwrap_or_else(|| {
            stages.push(StageStalls { stage: name.into(), ..StageStalls::default() });
            stages.len() - 1
        });
        let stage = &mut stages[at];
        stage.count += distribution.count();
        stage.stalls += distribution.over_threshold;
        if distribution.max_ns > stage.max_ns {
            stage.max_ns = distribution.max_ns;
            stage.place = place(&series.owner);
        }
    }
    stages
}

fn place(owner: &Owner) -> String {
    match owner {
        Owner::Cpu(cpu) | Owner::Vector { cpu, .. } => format!("CPU {cpu}"),
        Owner::Irq { number: Some(number), cpu, .. } => format!("IRQ {number} on CPU {cpu}"),
        Owner::Irq { number: None, cpu, .. } => format!("an IRQ on CPU {cpu}"),
        Owner::OnHost { owner, .. } => place(owner),
        Owner::Queue(queue) => queue.iface().map_or_else(|| "a backlog".into(), str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use latency_common::stage::Stage;

    use super::*;
    use crate::model::run::DEFAULT_THRESHOLD_NS;

    #[test]
    fn stages_sum_up_and_name_the_place_of_the_longest() {
        let of = |values: &[u64]| {
            let mut distribution = Distribution::default();
            for value in values {
                distribution.record(*value, DEFAULT_THRESHOLD_NS, 0);
            }
            distribution
        };
        let series = |cpu| Series { stage: Stage::NetRx, owner: Owner::Cpu(cpu) };
        let stages =
            by_stage(&[(series(0), of(&[5, 2_000_000])), (series(3), of(&[7_000_000, 1_000_000]))]);
        let expected = StageStalls {
            stage: "net_rx".into(),
            count: 4,
            stalls: 3,
            max_ns: 7_000_000,
            place: "CPU 3".into(),
        };
        assert_eq!(stages, [expected]);
    }
}
