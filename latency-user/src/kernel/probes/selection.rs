//! Probe selection: which method times each stage on this kernel, and why not a better one.

use std::{cell::OnceCell, collections::HashMap, path::Path};

use aya::programs::ProgramError;
use latency_common::stage::Stage;

use super::hooks::{self, Hook, Target};
use crate::{
    host::kernel::{self, Preemption},
    kernel::types::{
        btf::{self, Btf},
        symbols::Symbols,
    },
    model::{
        failure::Failure,
        method::Method,
        note::{Note, Obstacle},
        run::SelectedProbe,
    },
};

/// Which method to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProbeChoice {
    /// The best method that this kernel supports.
    #[default]
    Auto,
    /// This method, for every stage that has it.
    Forced(Method),
}

/// Properties of the kernel that are known without loading anything.
pub struct KernelFacts {
    /// Its types.
    pub btf: Btf,
    symbols: OnceCell<Option<Symbols>>,
    has_kprobes: bool,
    /// How it runs interrupts.
    pub preemption: Preemption,
    for_aya: OnceCell<aya::Btf>,
}

/// Methods that were tried and failed, with the kernel's error.
pub type Failures = HashMap<(Stage, Method), Obstacle>;

impl KernelFacts {
    /// Reads the properties of the running kernel; needs no privileges.
    ///
    /// # Errors
    ///
    /// When the kernel has no type information: without it structs cannot be read. Exit status 3.
    pub fn gather() -> Result<Self, Failure> {
        Self::gather_from(Path::new(btf::VMLINUX))
    }

    /// As [`Self::gather`], with type information from `vmlinux`.
    ///
    /// # Errors
    ///
    /// As [`Self::gather`].
    pub fn gather_from(vmlinux: &Path) -> Result<Self, Failure> {
        let btf = Btf::read(vmlinux).map_err(|error| {
            Failure::unsupported(format!(
                "the kernel's type information is missing ({error:#}): struct fields cannot be read"
            ))
            .hint("use a kernel built with CONFIG_DEBUG_INFO_BTF=y")
        })?;
        let has_kprobes = Path::new("/sys/bus/event_source/devices/kprobe/type").exists();
        let preemption = kernel::preemption(Path::new("/"));
        let (symbols, for_aya) = (OnceCell::new(), OnceCell::new());
        Ok(Self { btf, symbols, has_kprobes, preemption, for_aya })
    }

    /// Why `stage` cannot be timed by `method`, as far as is known without loading anything.
    pub fn obstacle(&self, stage: Stage, method: Method) -> Option<Obstacle> {
        let hooks = hooks::hooks(stage, method);
        if hooks.is_empty() {
            return Some(Obstacle::NotDefined);
        }
        if method == Method::Kprobe && !self.has_kprobes {
            return Some(Obstacle::NoKprobes);
        }
        let is_needed = |hook: &&Hook| !hook.only_preemptible || self.preemption.softirqs;
        hooks.iter().filter(is_needed).find_map(|hook| match hook.target {
            Target::Tracepoint(name) => (!self.btf.has_tracepoint(hooks::without_group(name)))
                .then(|| Obstacle::NoTracepoint { tracepoint: name.into() }),
            Target::Fentry(function) | Target::Fexit(function) => {
                (!self.btf.has_function(function))
                    .then(|| Obstacle::NoFunctionType { function: function.into() })
            }
            Target::Kprobe(function) | Target::Kretprobe(function) => {
                match self.kprobe_name(hook.target) {
                    Some(_) => None,
                    None => Some(Obstacle::NoFunction { function: function.into() }),
                }
            }
        })
    }

    /// The symbols of all functions that are probed; read when the first kprobe is considered.
    fn symbols(&self) -> Option<&Symbols> {
        let find = || {
            let functions: Vec<&str> = Stage::ALL
                .into_iter()
                .flat_map(|stage| hooks::hooks(stage, Method::Kprobe))
                .filter_map(|hook| hook.target.function())
                .collect();
            Symbols::find(&functions).ok()
        };
        self.symbols.get_or_init(find).as_ref()
    }

    /// The kernel's types in aya's form, for trampolines; parsed at the first call.
    pub(in crate::kernel) fn aya_btf(&self) -> Result<&aya::Btf, ProgramError> {
        if let Some(btf) = self.for_aya.get() {
            return Ok(btf);
        }
        let btf = aya::Btf::from_sys_fs()?;
        Ok(self.for_aya.get_or_init(|| btf))
    }

    /// The symbol that a kprobe on `target` is attached to.
    pub fn kprobe_name(&self, target: Target) -> Option<&str> {
        let function = target.function()?;
        // Without kallsyms, try the function's own name; attaching fails if it does not exist.
        let Some(symbols) = self.symbols() else { return Some(function) };
        let name = symbols.probe_name(function)?;
        (name == function || !target.reads_arguments()).then_some(name)
    }
}

/// Selects a method for each of `stages`.
///
/// A stage without the forced method is timed by tracepoints, or not at all.
///
/// # Errors
///
/// A forced method does not work, or no method works for a stage that was requested by name
/// (`by_name`).
pub fn select(
    stages: &[Stage],
    by_name: bool,
    choice: ProbeChoice,
    facts: &KernelFacts,
    failures: &Failures,
) -> Result<Vec<SelectedProbe>, Failure> {
    stages.iter().map(|&stage| select_one(stage, by_name, choice, facts, failures)).collect()
}

fn select_one(
    stage: Stage,
    by_name: bool,
    choice: ProbeChoice,
    facts: &KernelFacts,
    failures: &Failures,
) -> Result<SelectedProbe, Failure> {
    let obstacle =
        |method| facts.obstacle(stage, method).or_else(|| failures.get(&(stage, method)).cloned());
    let candidates = match choice {
        ProbeChoice::Auto => hooks::methods(stage),
        ProbeChoice::Forced(method) => forced_candidates(stage, method),
    };
    let mut passed_over = Vec::new();
    for &method in candidates {
        match obstacle(method) {
            None => {
                log::info!("{}: {method} {}", stage.name(), hooks::attach_points(stage, method));
                passed_over.extend(hooks::meaning(stage, facts.preemption));
                return Ok(in_use(stage, method, choice, passed_over));
            }
            Some(obstacle) => {
                log::info!("{}: no {method}: {obstacle}", stage.name());
                passed_over.push(Note::ProbeFallback { method, obstacle });
            }
        }
    }
    if passed_over.is_empty() {
        passed_over.push(Note::NoSuchMethod { method: forced(choice) });
    }
    let is_forced = forced(choice).is_some_and(|method| candidates.contains(&method));
    if by_name || is_forced {
        let reasons: Vec<String> = passed_over.iter().map(Note::to_string).collect();
        let what = format!("{} cannot be timed: {}", stage.name(), reasons.join("; "));
        return Err(Failure::unsupported(what)
            .hint("latency-user doctor shows what this kernel can do for each stage"));
    }
    Ok(SelectedProbe { stage, method: None, at: String::new(), notes: passed_over })
}

fn forced_candidates(stage: Stage, method: Method) -> &'static [Method] {
    let methods = hooks::methods(stage);
    match methods.iter().position(|m| *m == method) {
        Some(at) => &methods[at..=at],
        None => match methods.iter().position(|m| *m == Method::Tracepoint) {
            Some(at) => &methods[at..=at],
            None => &[],
        },
    }
}

fn forced(choice: ProbeChoice) -> Option<Method> {
    match choice {
        ProbeChoice::Auto => None,
        ProbeChoice::Forced(method) => Some(method),
    }
}

fn in_use(
    stage: Stage,
    method: Method,
    choice: ProbeChoice,
    passed_over: Vec<Note>,
) -> SelectedProbe {
    let mut notes: Vec<Note> = hooks::caveat(stage, method).into_iter().collect();
    notes.extend(passed_over);
    if let Some(forced) = forced(choice).filter(|forced| *forced != method) {
        notes.push(Note::NoSuchMethod { method: Some(forced) });
    }
    SelectedProbe { stage, method: Some(method), at: hooks::attach_points(stage, method), notes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kernel::types::fixtures, model::exit::Exit};

    /// Facts of a kernel that has everything but the hooks for hard IRQs.
    fn facts() -> KernelFacts {
        KernelFacts {
            btf: fixtures::btf(),
            symbols: OnceCell::from(None),
            has_kprobes: true,
            preemption: Preemption::default(),
            for_aya: OnceCell::new(),
        }
    }

    fn refused() -> Obstacle {
        Obstacle::Failed { error: "refused".into() }
    }

    fn text(notes: &[Note]) -> String {
        notes.iter().map(Note::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn a_failed_method_is_passed_over_with_a_note() {
        let facts = facts();
        let mut failures = Failures::new();
        for method in [Method::Fentry, Method::Kprobe] {
            failures.insert((Stage::NapiPoll, method), refused());
        }
        let probes =
            select(&[Stage::NapiPoll], true, ProbeChoice::Auto, &facts, &failures).unwrap();
        assert_eq!(probes[0].method, Some(Method::Tracepoint));
        let note = text(&probes[0].notes);
        assert!(note.starts_with("approximate") && note.contains("no fentry: refused"), "{note}");
    }

    #[test]
    fn polls_that_a_method_does_not_see_are_noted() {
        for (method, words) in [
            (Method::Fentry, "busy polls of processes"),
            (Method::Kprobe, "busy polls of processes"),
            (Method::Tracepoint, "threaded NAPI, busy polling"),
        ] {
            let note = text(&in_use(Stage::NapiPoll, method, ProbeChoice::Auto, Vec::new()).notes);
            assert!(note.contains(words), "{method}: {note}");
        }
    }

    #[test]
    fn missing_hooks_are_known_without_trying() {
        let facts = facts();
        assert_eq!(facts.obstacle(Stage::NetRx, Method::Tracepoint), None);
        assert_eq!(facts.obstacle(Stage::NapiPoll, Method::Fentry), None);
        let tracepoint = "irq:irq_handler_entry".to_owned();
        let expected = Some(Obstacle::NoTracepoint { tracepoint });
        assert_eq!(facts.obstacle(Stage::Irq, Method::Tracepoint), expected);
        let without = KernelFacts { has_kprobes: false, ..self::facts() };
        assert_eq!(without.obstacle(Stage::NetRx, Method::Kprobe), Some(Obstacle::NoKprobes));
    }

    #[test]
    fn what_a_stage_means_is_noted_where_softirqs_can_be_preempted() {
        let preemption = Preemption { softirqs: true, irqs: true };
        let facts = KernelFacts { preemption, ..facts() };
        let stages = [Stage::RxWait, Stage::NapiPoll];
        let probes = select(&stages, true, ProbeChoice::Auto, &facts, &Failures::new()).unwrap();
        let expected = ["scheduling of that task", "may contain other tasks"];
        for (probe, words) in probes.iter().zip(expected) {
            assert!(text(&probe.notes).contains(words), "{:?}", probe.notes);
        }
        // Without the hook that measures other tasks, runs cannot be understood there.
        let missing = Some(Obstacle::NoTracepoint { tracepoint: "sched:sched_switch".into() });
        assert_eq!(facts.obstacle(Stage::NetRx, Method::Tracepoint), missing);
        assert_eq!(hooks::meaning(Stage::Irq, Preemption::default()), None);
        let threaded = Preemption { softirqs: false, irqs: true };
        assert_eq!(hooks::meaning(Stage::Irq, threaded), Some(Note::ThreadedIrqs));
        assert_eq!(hooks::meaning(Stage::NetRx, threaded), None);
    }

    #[test]
    fn a_forced_method_that_fails_is_an_error() {
        let facts = facts();
        let failures = Failures::from([((Stage::NetRx, Method::Fentry), refused())]);
        let choice = ProbeChoice::Forced(Method::Fentry);
        let error = select(&[Stage::NetRx], false, choice, &facts, &failures).unwrap_err();
        assert_eq!(error.exit, Exit::Unsupported);
        assert!(error.message.contains("net_rx cannot be timed"), "{error}");
    }

    #[test]
    fn a_stage_without_the_forced_method_stays_on_tracepoints_or_off() {
        let facts = facts();
        let choice = ProbeChoice::Forced(Method::Tracepoint);
        let stages = [Stage::RxWait, Stage::TcpCollapse];
        let probes = select(&stages, false, choice, &facts, &Failures::new()).unwrap();
        assert_eq!(probes[0].method, Some(Method::Tracepoint));
        assert_eq!(probes[1].method, None);
        assert!(select(&stages, true, choice, &facts, &Failures::new()).is_err());
    }
}
