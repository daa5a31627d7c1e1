//! Measures the cost of the programs with the kernel's statistics, which are enabled for parts of
//! the run, and finds the most expensive stage.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use latency_common::stage::{STAGES, Stage};

use crate::{
    kernel::{
        attached::Attached,
        probes::{
            bpf_stats::{BpfStats, RunTime},
            hooks,
        },
    },
    model::{
        cost::{KernelCost, ProgramCost},
        method::Method,
        note::Note,
    },
};

/// Events of each stage that started, by CPU.
type Started = Vec<[u64; STAGES]>;

/// Sums the cost of the programs while the statistics were enabled.
#[derive(Default)]
pub struct CostMeter {
    window: Option<Window>,
    measured: Duration,
    refused: Option<Note>,
    programs: BTreeMap<&'static str, RunTime>,
    started: Started,
}

struct Window {
    /// Keeps the statistics enabled.
    statistics: BpfStats,
    started_at: Instant,
    programs: BTreeMap<&'static str, RunTime>,
    started: Started,
}

/// The measurements of one window.
pub struct CostSample {
    length: Duration,
    programs: BTreeMap<&'static str, RunTime>,
    started: Started,
}

impl CostMeter {
    /// Enables the statistics. If the kernel refuses, this is not tried again.
    pub fn start(&mut self, attached: &Attached) {
        if self.refused.is_some() {
            return;
        }
        // Read while they are disabled, and so at rest: a slow start of a window loses no run.
        let programs = attached.run_times();
        match BpfStats::switch_on() {
            Ok(statistics) => {
                self.window = Some(Window {
                    statistics,
                    started_at: Instant::now(),
                    programs,
                    started: started(attached),
                });
            }
            Err(error) => self.refused = Some(error),
        }
    }

    /// Disables them and returns the sample in between; `None`: they were not enabled.
    pub fn end(&mut self, attached: &Attached) -> Option<CostSample> {
        let window = self.window.take()?;
        let length = window.started_at.elapsed();
        // As at the start: at rest.
        drop(window.statistics);
        let mut programs = attached.run_times();
        for (name, now) in &mut programs {
            // A program that was loaded during the window is counted from the next window on.
            let before = window.programs.get(name).copied().unwrap_or(*now);
            *now = RunTime { runs: now.runs - before.runs, ns: now.ns - before.ns };
        }
        let mut started = started(attached);
        for (now, before) in started.iter_mut().zip(&window.started) {
            for (now, before) in now.iter_mut().zip(before) {
                *now -= before;
            }
        }
        let sample = CostSample { length, programs, started };
        self.add(&sample);
        Some(sample)
    }

    fn add(&mut self, sample: &CostSample) {
        self.measured += sample.length;
        for (name, cost) in &sample.programs {
            let sum = self.programs.entry(name).or_default();
            sum.runs += cost.runs;
            sum.ns += cost.ns;
        }
        self.started.resize(sample.started.len(), [0; STAGES]);
        for (sum, started) in self.started.iter_mut().zip(&sample.started) {
            for (sum, started) in sum.iter_mut().zip(started) {
                *sum += started;
            }
        }
    }

    /// The cost measured so far; `cpus` is the number of online CPUs.
    pub fn sum(&self, cpus: usize) -> KernelCost {
        let ns = total(&self.programs);
        let busiest = busiest(&self.started);
        let share_of = |part: f64| match self.measured.as_nanos() {
            0 => 0.0,
            measured => ns as f64 * part / measured as f64,
        };
        KernelCost {
            measured_s: self.measured.as_secs_f64(),
            refused: self.refused.clone(),
            programs: self
                .programs
                .iter()
                .filter(|(_, cost)| cost.runs > 0)
                .map(|(name, cost)| ProgramCost {
                    program: (*name).into(),
                    runs: cost.runs,
                    ns: cost.ns,
                })
                .collect(),
            share: share_of(1.0 / cpus.max(1) as f64),
            busiest_share: share_of(busiest.map_or(0.0, |(_, part)| part)),
            busiest_cpu: busiest.map(|(cpu, _)| cpu as u32),
            disabled: Vec::new(),
        }
    }
}

impl CostSample {
    /// Share that all programs took of the CPU with the most events.
    pub fn busiest_share(&self) -> f64 {
        let part = busiest(&self.started).map_or(0.0, |(_, part)| part);
        total(&self.programs) as f64 * part / self.length.as_nanos().max(1) as f64
    }

    /// The stage of `stages` that saves most if disabled; `None`: none saves anything. A program
    /// that other stages need stays attached, so its time does not count. `softirq` has no program
    /// of its own, so it gets a share of the shared programs by its number of events.
    pub fn most_expensive(&self, stages: &[(Stage, Method)]) -> Option<Stage> {
        let saved = |&(stage, method): &(Stage, Method)| -> f64 {
            hooks::hooks(stage, method)
                .iter()
                .map(|hook| {
                    let ns = self.programs.get(hook.program).map_or(0, |cost| cost.ns) as f64;
                    let is_shared = stages.iter().any(|&(other, method)| {
                        other != stage && needs(other, method, hook.program)
                    });
                    match (is_shared, stage) {
                        (false, _) => ns,
                        (true, Stage::Softirq) => ns * self.part_of_vectors(),
                        (true, _) => 0.0,
                    }
                })
                .sum()
        };
        let most_expensive = stages.iter().max_by(|a, b| saved(a).total_cmp(&saved(b)));
        most_expensive.filter(|probe| saved(probe) > 0.0).map(|(stage, _)| *stage)
    }

    /// Share of softirqs other than NET_RX.
    fn part_of_vectors(&self) -> f64 {
        let of = |stage: Stage| self.started.iter().map(|cpu| cpu[stage as usize]).sum::<u64>();
        let (others, net_rx) = (of(Stage::Softirq), of(Stage::NetRx));
        if others == 0 { 0.0 } else { others as f64 / (others + net_rx) as f64 }
    }
}

/// Whether `stage` needs `program`.
pub fn needs(stage: Stage, method: Method, program: &str) -> bool {
    hooks::hooks(stage, method).iter().any(|hook| hook.program == program)
}

fn started(attached: &Attached) -> Started {
    (0..attached.cpus.len()).map(|cpu| attached.cpus.copy(cpu).started).collect()
}

fn total(programs: &BTreeMap<&'static str, RunTime>) -> u64 {
    programs.values().map(|cost| cost.ns).sum()
}

/// The CPU on which the most events started, and its share of all events.
fn busiest(started: &Started) -> Option<(usize, f64)> {
    let sums: Vec<u64> = started.iter().map(|cpu| cpu.iter().sum()).collect();
    let all: u64 = sums.iter().sum();
    let (cpu, most) = sums.iter().enumerate().max_by_key(|(_, sum)| **sum)?;
    (*most > 0).then(|| (cpu, *most as f64 / all as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(programs: &[(&'static str, u64)], started: Started) -> CostSample {
        let cost = |&(name, ns)| (name, RunTime { runs: 10, ns });
        CostSample {
            length: Duration::from_micros(1),
            programs: programs.iter().map(cost).collect(),
            started,
        }
    }

    /// `rx_wait`, `net_rx` and `napi_poll` by tracepoints share two of their four programs.
    const NET_RX_PROGRAMS: [(&str, u64); 4] =
        [("softirq_raise", 12), ("softirq_entry", 130), ("napi_poll", 11), ("softirq_exit", 70)];

    fn by_tracepoint<const N: usize>(stages: [Stage; N]) -> [(Stage, Method); N] {
        stages.map(|stage| (stage, Method::Tracepoint))
    }

    #[test]
    fn shared_programs_save_nothing() {
        let sample = sample(&NET_RX_PROGRAMS, Vec::new());
        let all = by_tracepoint([Stage::NetRx, Stage::NapiPoll, Stage::RxWait]);
        assert_eq!(sample.most_expensive(&all), Some(Stage::RxWait));
        let two = by_tracepoint([Stage::NetRx, Stage::NapiPoll]);
        assert_eq!(sample.most_expensive(&two), Some(Stage::NapiPoll));
        assert_eq!(sample.most_expensive(&by_tracepoint([Stage::NetRx])), Some(Stage::NetRx));
        assert_eq!(sample.most_expensive(&[]), None);
        // It did not run, so it costs nothing.
        assert_eq!(sample.most_expensive(&by_tracepoint([Stage::Irq])), None);
    }

    #[test]
    fn vectors_save_their_share_of_the_shared_programs() {
        let stages = by_tracepoint([Stage::NetRx, Stage::Softirq, Stage::RxWait]);
        let with = |vectors: u64| {
            let mut started = [0; STAGES];
            started[Stage::Softirq as usize] = vectors;
            started[Stage::NetRx as usize] = 99;
            sample(&NET_RX_PROGRAMS, vec![started]).most_expensive(&stages)
        };
        assert_eq!(with(1), Some(Stage::RxWait));
        assert_eq!(with(99), Some(Stage::Softirq));
    }

    #[test]
    fn the_busiest_cpu_has_its_share() {
        let started = vec![[1, 0, 0, 0, 0, 0], [2, 1, 0, 0, 0, 0]];
        let sample = sample(&[("napi_poll", 100)], started);
        // Three quarters of 100 ns in 1000 ns.
        assert!((sample.busiest_share() - 0.075).abs() < 1e-12);
        let mut meter = CostMeter::default();
        meter.add(&sample);
        let cost = meter.sum(2);
        assert_eq!((cost.busiest_cpu, cost.programs[0].runs), (Some(1), 10));
        assert!((cost.share - 0.05).abs() < 1e-12 && cost.busiest_share > cost.share);
    }

    #[test]
    fn nothing_measured_is_no_share() {
        let cost = CostMeter::default().sum(2);
        assert_eq!((cost.share, cost.busiest_cpu), (0.0, None));
    }
}
