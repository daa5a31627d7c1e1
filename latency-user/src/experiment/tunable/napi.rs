//! `napi_defer_hard_irqs:`, `gro_flush_timeout:` and `threaded:`: how an interface polls.

use anyhow::{Result, ensure};

use super::{Assignment, Scope, Tunable, parse_number};
use crate::experiment::knob::{FileKnob, Form, Knob};

/// Polls while the hard IRQ stays masked.
pub(super) const DEFER_HARD_IRQS: InterfaceTunable = InterfaceTunable {
    name: "napi_defer_hard_irqs",
    usage: "IF=N",
    most: i32::MAX as u64,
    describe: "Number of empty polls before the hard IRQ of a queue is unmasked; needs \
               gro_flush_timeout.",
};

/// The timer of these polls.
pub(super) const GRO_FLUSH_TIMEOUT: InterfaceTunable = InterfaceTunable {
    name: "gro_flush_timeout",
    usage: "IF=NS",
    // An hour: more is a mistake. The kernel itself accepts any 64-bit number.
    most: 3_600_000_000_000,
    describe: "Packets merged by GRO wait at most so many ns for more; also the time to the next \
               poll while hard IRQs are masked.",
};

/// Threaded NAPI.
pub(super) const THREADED: InterfaceTunable = InterfaceTunable {
    name: "threaded",
    usage: "IF=0|1",
    most: 1,
    describe: "Whether queues are polled by kernel threads of their own instead of in softirqs.",
};

/// A numeric setting of an interface.
pub(super) struct InterfaceTunable {
    name: &'static str,
    usage: &'static str,
    most: u64,
    describe: &'static str,
}

impl Tunable for InterfaceTunable {
    fn name(&self) -> &'static str {
        self.name
    }

    fn usage(&self) -> &'static str {
        self.usage
    }

    fn describe(&self) -> &'static str {
        self.describe
    }

    fn plan(&self, target: &str, value: &str, scope: &Scope) -> Result<Vec<Assignment>> {
        scope.interface(target)?;
        let knob = self.knob(target, scope);
        ensure!(knob.path.exists(), "this kernel has no {}: {}", self.name, knob.path.display());
        let value = parse_number(self.name, value, 0, self.most)?.to_string();
        Ok(vec![Assignment { knob: Knob::File(knob), value }])
    }

    fn targets(&self, scope: &Scope) -> Vec<(String, Knob)> {
        let knobs = scope.interfaces().into_iter().map(|iface| {
            let knob = self.knob(&iface, scope);
            (iface, knob)
        });
        let knobs = knobs.filter(|(_, knob)| knob.path.exists());
        knobs.map(|(iface, knob)| (iface, Knob::File(knob))).collect()
    }
}

impl InterfaceTunable {
    fn knob(&self, iface: &str, scope: &Scope) -> FileKnob {
        let path = scope.root.join("sys/class/net").join(iface).join(self.name);
        FileKnob { path, netns: scope.netns(), form: Form::Words }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_and_bounds_are_checked() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("sys/class/net/eth0");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("threaded"), "0\n").unwrap();
        let scope = Scope { root: root.path().into(), netns: 1, ifaces: Vec::new() };
        assert_eq!(THREADED.plan("eth0", "1", &scope).unwrap()[0].value, "1");
        assert_eq!(THREADED.targets(&scope).len(), 1);
        for (iface, value) in [("eth0", "2"), ("eth0", "-1"), ("eth1", "1"), ("../eth0", "1")] {
            assert!(THREADED.plan(iface, value, &scope).is_err(), "{iface} {value}");
        }
        assert!(GRO_FLUSH_TIMEOUT.plan("eth0", "1", &scope).is_err());
    }
}
