//! `rps:IF/QUEUE=CPUS` and `xps:IF/QUEUE=CPUS`: which CPUs serve a queue.

use anyhow::{Result, ensure};

use super::{Assignment, Scope, Tunable, names_in, online_cpus};
use crate::{
    experiment::knob::{FileKnob, Form, Knob},
    host::cpu::cpus,
    model::failure::Failure,
};

/// Receive packet steering.
pub(super) const RPS: Steering = Steering {
    name: "rps",
    prefix: "rx-",
    file: "rps_cpus",
    describe: "Receive packet steering: the CPUs that process packets of an RX queue; none: \
               packets stay on the CPU of the IRQ.",
};

/// Transmit packet steering.
pub(super) const XPS: Steering = Steering {
    name: "xps",
    prefix: "tx-",
    file: "xps_cpus",
    describe: "Transmit packet steering: the CPUs that send through a TX queue; none: the flow \
               selects the queue.",
};

/// A mask of CPUs for each queue.
pub(super) struct Steering {
    name: &'static str,
    prefix: &'static str,
    file: &'static str,
    describe: &'static str,
}

impl Tunable for Steering {
    fn name(&self) -> &'static str {
        self.name
    }

    fn usage(&self) -> &'static str {
        "IF[/QUEUE]=CPUS|none"
    }

    fn describe(&self) -> &'static str {
        self.describe
    }

    fn plan(&self, target: &str, value: &str, scope: &Scope) -> Result<Vec<Assignment>> {
        let (iface, queue) = match target.split_once('/') {
            Some((iface, queue)) => (iface, Some(queue)),
            None => (target, None),
        };
        scope.interface(iface)?;
        let value = mask(value, &cpus::online(&scope.root)?)?;
        let wanted: Vec<Assignment> = self
            .knobs(iface, scope)
            .into_iter()
            .filter(|(number, _)| queue.is_none_or(|queue| queue == number))
            .map(|(_, knob)| Assignment { knob, value: value.clone() })
            .collect();
        ensure!(!wanted.is_empty(), "{iface} has no queue {}", queue.unwrap_or("that can be set"));
        Ok(wanted)
    }

    fn targets(&self, scope: &Scope) -> Vec<(String, Knob)> {
        let of = |iface: &String| -> Vec<_> {
            let knobs = self.knobs(iface, scope).into_iter();
            knobs.map(|(queue, knob)| (format!("{iface}/{queue}"), knob)).collect()
        };
        scope.interfaces().iter().flat_map(of).collect()
    }
}

/// How many flows each RX queue of an interface remembers.
pub(super) fn flow_counts(iface: &str, scope: &Scope) -> Vec<Knob> {
    let of_flows = Steering { file: "rps_flow_cnt", ..RPS };
    of_flows.knobs(iface, scope).into_iter().map(|(_, knob)| knob).collect()
}

impl Steering {
    /// The knob of each queue of an interface, by the queue's number.
    fn knobs(&self, iface: &str, scope: &Scope) -> Vec<(String, Knob)> {
        let queues = scope.root.join("sys/class/net").join(iface).join("queues");
        let knob = |name: &String| {
            let number = name.strip_prefix(self.prefix)?.to_owned();
            let path = queues.join(name).join(self.file);
            let knob = FileKnob { path, netns: scope.netns(), form: Form::Mask };
            knob.path.exists().then_some((number, Knob::File(knob)))
        };
        names_in(&queues).iter().filter_map(knob).collect()
    }
}

/// The mask of a list such as `0-3,6`; `none` means no CPU.
fn mask(list: &str, online: &[u32]) -> Result<String, Failure> {
    let cpus = if list == "none" { Vec::new() } else { online_cpus(list, online)? };
    let mut words = vec![0_u32; 1];
    for cpu in cpus {
        let word = cpu as usize / 32;
        words.resize(words.len().max(word + 1), 0);
        words[word] |= 1 << (cpu % 32);
    }
    let words: Vec<String> = words.iter().rev().map(|word| format!("{word:08x}")).collect();
    Ok(Form::Mask.normal(&words.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_masks() {
        let online: Vec<u32> = (0..40).filter(|cpu| *cpu != 5).collect();
        for (list, expected) in [("0", "1"), ("0-3,6", "4f"), ("33", "2,00000000"), ("none", "0")] {
            assert_eq!(mask(list, &online).unwrap(), expected, "{list}");
        }
        for list in ["", "x", "3-1", "5", "0-9", "40", "0-4000000000", "-1"] {
            assert!(mask(list, &online).is_err(), "{list}");
        }
    }
}
