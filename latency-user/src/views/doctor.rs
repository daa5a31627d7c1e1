//! What `doctor` found, for people.

use std::io;

use super::{
    Style,
    text::{paragraph, printable},
};
use crate::model::diagnosis::{Diagnosis, InterfaceDiagnosis, MethodDiagnosis, StageDiagnosis};

/// Writes for each stage what works, and what prevents the rest.
///
/// # Errors
///
/// What `out` fails with.
pub fn diagnosis(diagnosis: &Diagnosis, style: Style, out: &mut dyn io::Write) -> io::Result<()> {
    let mut text = String::new();
    for sentence in answer(diagnosis) {
        paragraph(&mut text, &sentence, 2, style, Style::bold);
    }
    let about = format!(
        "latency-user {} on Linux {}, {} possible CPUs.",
        diagnosis.version, diagnosis.kernel, diagnosis.cpus
    );
    paragraph(&mut text, &about, 2, style, Style::dim);
    for missing in &diagnosis.missing_privileges {
        paragraph(&mut text, &missing.to_string(), 2, style, Style::alarm);
    }
    let refused = match diagnosis.filters_system_calls {
        true => "; it can then neither write files nor load or start programs",
        false => "; this kernel cannot filter system calls",
    };
    let kept = format!(
        "After attaching, trace keeps {} at most{refused}.",
        diagnosis.kept_privileges.join(", ")
    );
    paragraph(&mut text, &kept, 2, style, Style::dim);
    if diagnosis.fetch_atomics == Some(false) {
        paragraph(&mut text, WITHOUT_FETCH, 2, style, Style::dim);
    }
    text.push('\n');
    for stage in &diagnosis.stages {
        self::stage(&mut text, stage, style);
    }
    for sampling in &diagnosis.sampling {
        text.push_str(&style.bold(&format!("--sample-clock {}", sampling.clock.name())));
        text.push('\n');
        for note in &sampling.notes {
            let how = match sampling.hz {
                0 => "does not work".to_owned(),
                hz => format!("works, {hz} samples a second on each CPU"),
            };
            let line = format!("  {how}: {}", printable(&note.to_string()));
            paragraph(&mut text, &line, 6, style, Style::plain);
        }
    }
    text.push_str("\nInterfaces of this network namespace\n");
    for interface in &diagnosis.interfaces {
        paragraph(&mut text, &queues(interface), 4, style, Style::plain);
    }
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// What is different on kernels without atomic operations that return a value.
const WITHOUT_FETCH: &str = "This kernel's eBPF has no atomic operations that return a value (before \
    5.12), so two CPUs that poll one NAPI instance at once may leave its maximum up to 1 % low; \
    everything else is counted as on newer kernels.";

fn answer(diagnosis: &Diagnosis) -> Vec<String> {
    let names = |wanted: bool| -> Vec<&str> {
        let stages = diagnosis.stages.iter();
        stages
            .filter(|stage| stage.would_use.is_some() == wanted)
            .map(|stage| stage.stage.as_str())
            .collect()
    };
    let (can, cannot) = (names(true), names(false));
    let verb = if diagnosis.tried { "can" } else { "could, as root," };
    let mut sentences = Vec::new();
    if !can.is_empty() {
        sentences.push(format!("This kernel {verb} time {}.", can.join(", ")));
    }
    if !cannot.is_empty() {
        sentences.push(format!("It cannot time {}.", cannot.join(", ")));
    }
    sentences
}

fn stage(text: &mut String, stage: &StageDiagnosis, style: Style) {
    text.push_str(&style.bold(stage.stage.as_str()));
    text.push('\n');
    for note in &stage.notes {
        paragraph(text, &format!("  {}", printable(&note.to_string())), 6, style, Style::plain);
    }
    for method in &stage.methods {
        let used = stage.would_use == Some(method.method);
        let paint: fn(Style, &str) -> String = match (used, method.works) {
            (true, _) => Style::plain,
            (false, Some(false)) => Style::dim,
            (false, _) => Style::plain,
        };
        paragraph(text, &describe(method, used), 6, style, paint);
    }
}

fn describe(method: &MethodDiagnosis, used: bool) -> String {
    let verdict = match (method.works, used) {
        (Some(true), true) => "works, would be used",
        (Some(true), false) => "works",
        (Some(false), _) => "does not work",
        (None, true) => "no known obstacle; would be tried first",
        (None, false) => "no known obstacle",
    };
    let notes = method.notes.iter().map(|note| format!(": {}", printable(&note.to_string())));
    let note: String = notes.collect();
    format!("  {} ({}) {verdict}{note}", method.method, method.at)
}

fn queues(interface: &InterfaceDiagnosis) -> String {
    let source = match (interface.queues_by_netlink, interface.instances) {
        (Some(known), _) if known > 0 => format!("{known} named by the kernel (netdev netlink)"),
        (_, Some(instances)) if instances == interface.rx_queues as usize => {
            "named by the order of their NAPI ids".to_owned()
        }
        (None, None) => {
            "the kernel cannot name them (before 6.8): by the packets they carry".into()
        }
        _ => "named by the packets they carry, if at all".to_owned(),
    };
    let plural = if interface.rx_queues == 1 { "" } else { "s" };
    format!(
        "  {}: {} RX queue{plural}, {source}; IRQ known for {}",
        interface.name, interface.rx_queues, interface.queues_with_irq
    )
}
