//! The cost of a measurement: in sentences, and per program.

use super::format::{bytes, count, counted, duration};
use crate::model::{
    cost::KernelCost,
    ledger::{Ledger, ProgramCounts},
    summary::Summary,
};

/// The cost of the measurement itself: one paragraph for this process, one for the kernel.
pub(super) fn sentences(summary: &Summary) -> Vec<String> {
    let (cost, run, slots) = (&summary.self_cost, &summary.run, summary.ledger.slots);
    let share = if run.duration_s > 0.0 {
        format!(" ({} of one CPU)", percent(cost.user_cpu_s / run.duration_s))
    } else {
        String::new()
    };
    let mut sentences = vec![format!(
        "Overhead: {}, {} of histogram rows in the kernel ({} of {} for queues and IRQs used); \
         this process {} CPU time{share}, {} memory.",
        counted(cost.programs as u64, "program"),
        bytes(cost.row_bytes),
        count(slots.used),
        count(slots.capacity),
        duration(ns(cost.user_cpu_s)),
        bytes(cost.resident_bytes),
    )];
    sentences.extend(in_kernel(&cost.kernel));
    sentences
}

/// Which stages were disabled during the run; `None`: none was.
pub(super) fn disabled_stages(cost: &KernelCost) -> Option<String> {
    let stages: Vec<String> = cost
        .disabled
        .iter()
        .map(|disabled| {
            format!("{} after {}", disabled.stage.name(), duration(ns(disabled.after_s)))
        })
        .collect();
    (!stages.is_empty()).then(|| {
        format!(
            "Stages disabled because of their overhead (--max-overhead): {}. Later events are \
             missing.",
            stages.join(", ")
        )
    })
}

fn in_kernel(cost: &KernelCost) -> Option<String> {
    if let Some(refused) = &cost.refused {
        return Some(format!("In the kernel: {refused}."));
    }
    if cost.measured_s <= 0.0 {
        return None;
    }
    let Some(busiest) = cost.busiest_cpu else {
        return Some("In the kernel nothing ran while it was measured.".into());
    };
    Some(format!(
        "In the kernel: {} of CPU {busiest}, the busiest, and {} of all CPUs; measured for {}, \
         the cost of measuring included.",
        percent(cost.busiest_share),
        percent(cost.share),
        duration(ns(cost.measured_s)),
    ))
}

/// The programs that ran while they were measured, most expensive first, as lines of a table; empty
/// where none did.
pub(super) fn programs(cost: &KernelCost, ledger: &Ledger) -> Vec<String> {
    let mut programs: Vec<_> = cost.programs.iter().collect();
    if programs.is_empty() {
        return Vec::new();
    }
    programs.sort_by_key(|program| std::cmp::Reverse(program.ns));
    let titles = format!(
        "  {:<26} {:>11} {:>8} {:>11} {:>9}",
        "program", "runs/s", "a run", "of one CPU", "skipped"
    );
    let rows = programs.into_iter().map(|program| {
        let per_second = program.runs as f64 / cost.measured_s;
        format!(
            "  {:<26} {:>11} {:>8} {:>11} {:>9}",
            super::printable(&program.program),
            count(per_second.round() as u64),
            duration(program.ns_per_run().round() as u64),
            percent(program.ns as f64 / 1e9 / cost.measured_s),
            skipped(ledger, &program.program).map_or("-".into(), count),
        )
    });
    std::iter::once(titles).chain(rows).collect()
}

/// Invocations of a program that the kernel skipped, as far as it reports them.
fn skipped(ledger: &Ledger, program: &str) -> Option<u64> {
    let counts: &ProgramCounts = ledger.programs.iter().find(|counts| counts.program == program)?;
    Some(counts.recursion_misses? + counts.missed.unwrap_or(0))
}

/// `12%`, `1.3%`, `0.04%`
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        10.0.. => format!("{percent:.0}%"),
        1.0..10.0 => format!("{percent:.1}%"),
        _ => format!("{percent:.2}%"),
    }
}

/// A time in ns. Negative and infinite times saturate.
fn ns(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

#[cfg(test)]
mod tests {
    use latency_common::stage::Stage;

    use super::*;
    use crate::{
        model::{
            cost::{DisabledStage, ProgramCost},
            note::Note,
        },
        views::fixtures,
    };

    fn measured() -> KernelCost {
        KernelCost {
            measured_s: 0.4,
            programs: vec![
                ProgramCost { program: "softirq_exit".into(), runs: 40_000, ns: 2_800_000 },
                ProgramCost { program: "softirq_entry".into(), runs: 40_000, ns: 5_000_000 },
            ],
            share: 0.0098,
            busiest_share: 0.0171,
            busiest_cpu: Some(3),
            ..KernelCost::default()
        }
    }

    #[test]
    fn the_most_expensive_program_comes_first() {
        let lines = programs(&measured(), &fixtures::summary(&fixtures::stalled()).ledger);
        assert!(lines[1].contains("softirq_entry") && lines[1].contains("125ns"), "{lines:?}");
        assert!(lines[1].contains("100000") && lines[1].contains("1.2%"), "{lines:?}");
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{lines:?}");
        assert!(programs(&KernelCost::default(), &Ledger::default()).is_empty());
    }

    #[test]
    fn what_is_not_known_is_shown() {
        let refused = KernelCost {
            refused: Some(Note::RunTimeUnknown { error: None }),
            ..KernelCost::default()
        };
        assert_eq!(
            in_kernel(&refused).as_deref(),
            Some(
                "In the kernel: run-time statistics need CAP_SYS_ADMIN: the programs' time is not known."
            )
        );
        assert_eq!(in_kernel(&KernelCost::default()), None);
        let idle = KernelCost { measured_s: 0.2, ..KernelCost::default() };
        assert!(in_kernel(&idle).unwrap().contains("nothing ran"));
    }

    #[test]
    fn shares_and_disabled_stages_are_shown() {
        let disabled =
            vec![DisabledStage { stage: Stage::Irq, after_s: 2.4, share: 0.031, limit: 0.01 }];
        let mut summary = fixtures::summary(&fixtures::stalled());
        summary.self_cost.kernel = KernelCost { disabled, ..measured() };
        let text = sentences(&summary).join("\n");
        assert!(text.contains("1.7% of CPU 3, the busiest, and 0.98% of all CPUs"), "{text}");
        assert!(disabled_stages(&summary.self_cost.kernel).unwrap().contains("irq after 2.40s"));
        assert_eq!(disabled_stages(&measured()), None);
    }
}
