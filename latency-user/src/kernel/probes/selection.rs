//! The plan: by which method each stage is timed on this kernel, and why not by another.

use std::{cell::OnceCell, collections::HashMap, path::Path};

use aya::programs::ProgramError;
use latency_common::stage::Stage;

use super::hooks::{self, Target};
use crate::kernel::types::{
    btf::{self, Btf},
    symbols::Symbols,
};
use crate::model::{
    failure::Failure,
    run::{Method, ProbeUse},
};

/// Which method a user wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The best that this kernel can do.
    #[default]
    Auto,
    /// This one, for every stage that has it.
    Forced(Method),
}

/// What can be known of the kernel without loading anything.
pub struct KernelFacts {
    /// Its types.
    pub btf: Btf,
    symbols: OnceCell<Option<Symbols>>,
    has_kprobes: bool,
    for_aya: OnceCell<aya::Btf>,
}

/// Methods that were tried and failed, with the kernel's answer.
pub type Failures = HashMap<(Stage, Method), String>;

impl KernelFacts {
    /// Asks the running kernel; needs no privilege.
    ///
    /// # Errors
    ///
    /// When the kernel has no type information: without it no struct can be read. Exit status 3.
    pub fn gather() -> Result<Self, Failure> {
        Self::gather_from(Path::new(btf::VMLINUX))
    }

    /// As [`Self::gather`], with type information from elsewhere.
    ///
    /// # Errors
    ///
    /// As [`Self::gather`].
    pub fn gather_from(vmlinux: &Path) -> Result<Self, Failure> {
        let btf = Btf::read(vmlinux).map_err(|error| {
            Failure::missing(format!(
                "the kernel's type information is missing ({error:#}): struct fields cannot be read"
            ))
            .hint("use a kernel built with CONFIG_DEBUG_INFO_BTF=y")
        })?;
        let has_kprobes = Path::new("/sys/bus/event_source/devices/kprobe/type").exists();
        Ok(Self { btf, symbols: OnceCell::new(), has_kprobes, for_aya: OnceCell::new() })
    }

    /// Why `stage` cannot be timed by `method` here, as far as it can be known beforehand.
    pub fn obstacle(&self, stage: Stage, method: Method) -> Option<String> {
        let hooks = hooks::hooks(stage, method);
        if hooks.is_empty() {
            return Some(format!("the stage has no {method} method"));
        }
        if method == Method::Kprobe && !self.has_kprobes {
            return Some(
                "the kernel has no kprobes (CONFIG_KPROBES or CONFIG_KPROBE_EVENTS)".into(),
            );
        }
        hooks.iter().find_map(|hook| match hook.target {
            Target::Tracepoint(name) => (!self.btf.has_tracepoint(hooks::without_group(name)))
                .then(|| format!("the kernel has no tracepoint {name}")),
            Target::Fentry(function) | Target::Fexit(function) => (!self
                .btf
                .has_function(function))
            .then(|| format!("the kernel has no function {function} in its type information")),
            Target::Kprobe(function) | Target::Kretprobe(function) => {
                match self.kprobe_name(hook.target) {
                    Some(_) => None,
                    None => Some(format!(
                        "the kernel has no function {function} to probe: inlined, or renamed"
                    )),
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

    /// The kernel's types as aya wants them for trampolines; parsed at the first call.
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
        // Without kallsyms the function's own name is tried, and the kernel says if it is wrong.
        let Some(symbols) = self.symbols() else { return Some(function) };
        let name = symbols.probe_name(function)?;
        (name == function || !target.reads_arguments()).then_some(name)
    }
}

/// Chooses a method for each of `stages`.
///
/// A forced method that some stage does not have leaves that stage to tracepoints, or untimed.
///
/// # Errors
///
/// A forced method does not work here, or none does for a stage that was asked for by name
/// (`by_name`). Exit status 3.
pub fn plan(
    stages: &[Stage],
    by_name: bool,
    choice: Choice,
    facts: &KernelFacts,
    failures: &Failures,
) -> Result<Vec<ProbeUse>, Failure> {
    let obstacle = |stage, method| {
        facts.obstacle(stage, method).or_else(|| failures.get(&(stage, method)).cloned())
    };
    stages
        .iter()
        .map(|&stage| {
            let candidates = match choice {
                Choice::Auto => hooks::methods(stage),
                Choice::Forced(method) => forced_candidates(stage, method),
            };
            let mut passed_over = Vec::new();
            for &method in candidates {
                match obstacle(stage, method) {
                    None => return Ok(in_use(stage, method, choice, &passed_over)),
                    Some(reason) => passed_over.push(format!("no {method}: {reason}")),
                }
            }
            let reason = match passed_over.as_slice() {
                [] => format!("the stage has no {} method", forced_name(choice)),
                reasons => reasons.join("; "),
            };
            let forced = matches!(choice, Choice::Forced(m) if candidates.contains(&m));
            if by_name || forced {
                return Err(Failure::missing(format!(
                    "{} cannot be timed: {reason}",
                    stage.name()
                ))
                .hint("latency-user doctor shows what this kernel can do for each stage"));
            }
            Ok(ProbeUse { stage, method: None, at: String::new(), note: Some(reason) })
        })
        .collect()
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

fn forced_name(choice: Choice) -> &'static str {
    match choice {
        Choice::Auto => "usable",
        Choice::Forced(method) => method.name(),
    }
}

fn in_use(stage: Stage, method: Method, choice: Choice, passed_over: &[String]) -> ProbeUse {
    let mut notes: Vec<String> = passed_over.to_vec();
    if let Choice::Forced(forced) = choice
        && forced != method
    {
        notes.push(format!("the stage has no {forced} method"));
    }
    if let Some(caveat) = hooks::caveat(stage, method) {
        notes.insert(0, caveat.to_owned());
    }
    ProbeUse {
        stage,
        method: Some(method),
        at: hooks::attach_points(stage, method),
        note: (!notes.is_empty()).then(|| notes.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::types::fixtures;

    /// Of a kernel that has everything but hard IRQs and the function behind them.
    fn facts() -> KernelFacts {
        KernelFacts {
            btf: fixtures::btf(),
            symbols: OnceCell::from(None),
            has_kprobes: true,
            for_aya: OnceCell::new(),
        }
    }

    #[test]
    fn a_failed_method_is_passed_over_and_said() {
        let facts = facts();
        let mut failures = Failures::new();
        for method in [Method::Fentry, Method::Kprobe] {
            failures.insert((Stage::NapiPoll, method), "refused".into());
        }
        let uses = plan(&[Stage::NapiPoll], true, Choice::Auto, &facts, &failures).unwrap();
        assert_eq!(uses[0].method, Some(Method::Tracepoint));
        let note = uses[0].note.clone().unwrap();
        assert!(note.starts_with("approximate") && note.contains("no fentry: refused"), "{note}");
    }

    #[test]
    fn what_no_method_sees_of_polls_is_said() {
        for (method, words) in [
            (Method::Fentry, "busy polls of processes"),
            (Method::Kprobe, "busy polls of processes"),
            (Method::Tracepoint, "threaded NAPI, busy polling"),
        ] {
            let note = in_use(Stage::NapiPoll, method, Choice::Auto, &[]).note.unwrap();
            assert!(note.contains(words), "{method}: {note}");
        }
    }

    #[test]
    fn what_the_kernel_lacks_is_said_before_it_is_tried() {
        let facts = facts();
        assert_eq!(facts.obstacle(Stage::NetRx, Method::Tracepoint), None);
        assert_eq!(facts.obstacle(Stage::NapiPoll, Method::Fentry), None);
        let told = facts.obstacle(Stage::Irq, Method::Tracepoint).unwrap();
        assert!(told.contains("no tracepoint irq:irq_handler_entry"), "{told}");
        let without = KernelFacts { has_kprobes: false, ..self::facts() };
        let told = without.obstacle(Stage::NetRx, Method::Kprobe).unwrap();
        assert!(told.contains("no kprobes"), "{told}");
    }

    #[test]
    fn a_forced_method_that_fails_is_an_error() {
        let facts = facts();
        let failures = Failures::from([((Stage::NetRx, Method::Fentry), "refused".to_owned())]);
        let choice = Choice::Forced(Method::Fentry);
        let error = plan(&[Stage::NetRx], false, choice, &facts, &failures).unwrap_err();
        assert_eq!(error.status, 3);
        assert!(error.message.contains("net_rx cannot be timed"), "{error}");
    }

    #[test]
    fn a_stage_without_the_forced_method_stays_on_tracepoints_or_off() {
        let facts = facts();
        let choice = Choice::Forced(Method::Tracepoint);
        let stages = [Stage::RxWait, Stage::TcpCollapse];
        let uses = plan(&stages, false, choice, &facts, &Failures::new()).unwrap();
        assert_eq!(uses[0].method, Some(Method::Tracepoint));
        assert_eq!(uses[1].method, None);
        assert!(plan(&stages, true, choice, &facts, &Failures::new()).is_err());
    }
}
