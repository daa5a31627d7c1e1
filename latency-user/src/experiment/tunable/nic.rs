//! `ring:`, `channels:` and `coalesce:`: how many descriptors and queues a NIC has, and how long it
//! delays an interrupt.

use anyhow::{Context, Result, bail};

use super::{Assignment, Scope, Tunable, irq::Irq, parse_number, steering};
use crate::{
    experiment::knob::{Knob, NicKnob},
    host::nic::{
        ethtool::{EthtoolDirectory, index_of},
        setting::{Coalesce, NicSetting, Queues, Ring, SettingState},
    },
    model::{failure::Failure, note::Note},
};

/// Sizes of rings.
pub(super) const RING: NicTunable = NicTunable {
    name: "ring",
    usage: "IF/rx|tx=N",
    least: 1,
    settings: &[("rx", NicSetting::Ring(Ring::Rx)), ("tx", NicSetting::Ring(Ring::Tx))],
    describe: "Descriptors in each ring of a NIC. Many drivers take the link down for a moment: \
               --settle must cover it.",
    warning: None,
};

/// Numbers of queues.
pub(super) const CHANNELS: NicTunable = NicTunable {
    name: "channels",
    usage: "IF/rx|tx|combined=N",
    least: 0,
    settings: &[
        ("rx", NicSetting::Channels(Queues::Rx)),
        ("tx", NicSetting::Channels(Queues::Tx)),
        ("combined", NicSetting::Channels(Queues::Combined)),
    ],
    describe: "Queues of a NIC that receive, send, or do both. Many drivers take the link down for \
               a moment: --settle must cover it.",
    warning: Some(Note::ChannelsForgetCpus),
};

/// Interrupt coalescing. Drivers do not report bounds: they refuse or round unsupported values.
pub(super) const COALESCE: NicTunable = NicTunable {
    name: "coalesce",
    usage: "IF/NAME=N|on|off",
    least: 0,
    settings: &[
        ("rx-usecs", NicSetting::Coalesce(Coalesce::RxUsecs)),
        ("rx-frames", NicSetting::Coalesce(Coalesce::RxFrames)),
        ("tx-usecs", NicSetting::Coalesce(Coalesce::TxUsecs)),
        ("tx-frames", NicSetting::Coalesce(Coalesce::TxFrames)),
        ("adaptive-rx", NicSetting::Coalesce(Coalesce::AdaptiveRx)),
        ("adaptive-tx", NicSetting::Coalesce(Coalesce::AdaptiveTx)),
    ],
    describe: "How long (rx-usecs, tx-usecs) or for how many packets (rx-frames, tx-frames) a NIC \
               delays an interrupt, and whether its driver adapts that to the load \
               (adaptive-rx, adaptive-tx: on or off).",
    warning: None,
};

/// A tunable of a NIC and its settings by name.
pub(super) struct NicTunable {
    name: &'static str,
    usage: &'static str,
    describe: &'static str,
    /// A note to show before the experiment.
    warning: Option<Note>,
    least: u32,
    settings: &'static [(&'static str, NicSetting)],
}

impl Tunable for NicTunable {
    fn name(&self) -> &'static str {
        self.name
    }

    fn usage(&self) -> &'static str {
        self.usage
    }

    fn describe(&self) -> &'static str {
        self.describe
    }

    fn warning(&self, _target: &str, _scope: &Scope) -> Option<Note> {
        self.warning.clone()
    }

    fn plan(&self, target: &str, value: &str, scope: &Scope) -> Result<Vec<Assignment>> {
        let (iface, name) = parts(target, self.usage)?;
        scope.interface(iface)?;
        let Some((_, setting)) = self.settings.iter().find(|(known, _)| *known == name) else {
            let names: Vec<&str> = self.settings.iter().map(|(name, _)| *name).collect();
            let failure = Failure::new(format!("{} has no setting {name:?}", self.name));
            return Err(failure.hint(format!("there are: {}", names.join(", "))).into());
        };
        let key = format!("{}:{target}", self.name);
        let state = EthtoolDirectory::new().read(index_of(iface), setting);
        let state = state.map_err(Failure::new).with_context(|| key.clone())?;
        let value = check(&key, &state, self.least, value)?;
        Ok(vec![Assignment { knob: knob(iface, setting.clone(), scope), value }])
    }

    /// A driver that sets up its queues again may forget which CPUs serve them.
    fn followers(&self, target: &str, scope: &Scope) -> Vec<Knob> {
        parts(target, self.usage).map_or_else(|_| Vec::new(), |(iface, _)| of_queues(iface, scope))
    }

    fn targets(&self, scope: &Scope) -> Vec<(String, Knob)> {
        let mut directory = EthtoolDirectory::new();
        let mut found = Vec::new();
        for iface in scope.interfaces() {
            let index = index_of(&iface);
            for (name, setting) in self.settings {
                if directory.read(index, setting).is_ok() {
                    let knob = knob(&iface, setting.clone(), scope);
                    found.push((format!("{iface}/{name}"), knob));
                }
            }
        }
        found
    }
}

/// Which CPUs serve the queues of an interface.
pub(super) fn of_queues(iface: &str, scope: &Scope) -> Vec<Knob> {
    let scope = Scope { ifaces: vec![iface.to_owned()], ..scope.clone() };
    let tunables: [&dyn Tunable; 3] = [&steering::RPS, &steering::XPS, &Irq];
    let knobs = tunables.iter().flat_map(|tunable| tunable.targets(&scope));
    knobs.map(|(_, knob)| knob).chain(steering::flow_counts(iface, &scope)).collect()
}

/// The knob of a setting. Runs inside the namespace.
pub(super) fn knob(iface: &str, setting: NicSetting, scope: &Scope) -> Knob {
    let index = index_of(iface);
    Knob::Nic(NicKnob { iface: iface.to_owned(), index, netns: scope.netns(), setting })
}

/// `IF/NAME`
pub(super) fn parts<'a>(target: &'a str, usage: &str) -> Result<(&'a str, &'a str), Failure> {
    let parts = target.split_once('/').filter(|(_, name)| !name.is_empty());
    parts.ok_or_else(|| {
        Failure::new(format!("{target:?} does not name a setting of an interface"))
            .hint(format!("write it like {usage}"))
    })
}

/// The normalized value, if it is of the setting's kind and within the driver's bounds.
fn check(key: &str, state: &SettingState, least: u32, value: &str) -> Result<String> {
    match state {
        SettingState::Switch { .. } if matches!(value, "on" | "off") => Ok(value.to_owned()),
        SettingState::Switch { .. } => bail!("{key} is on or off, not {value:?}"),
        SettingState::Number { most, .. } => {
            let most = most.unwrap_or(u32::MAX);
            Ok(parse_number(key, value, least.into(), most.into())?.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_beyond_the_driver_bounds_are_refused() {
        let ring = SettingState::Number { now: 256, most: Some(4096) };
        assert_eq!(check("ring:eth0/rx", &ring, 1, "0512").unwrap(), "512");
        assert_eq!(check("ring:eth0/rx", &ring, 1, "4096").unwrap(), "4096");
        for value in ["4097", "0", "-1", "on", "", "5 6", "99999999999"] {
            let error = check("ring:eth0/rx", &ring, 1, value).unwrap_err().to_string();
            assert!(error.contains("ring:eth0/rx") && error.contains("1 to 4096"), "{error}");
        }
        let unbounded = SettingState::Number { now: 3, most: None };
        assert_eq!(check("k", &unbounded, 0, "100000").unwrap(), "100000");
        assert!(check("k", &unbounded, 0, "4294967296").is_err());
        let switch = SettingState::Switch { on: true, wanted: true };
        assert_eq!(check("k", &switch, 0, "off").unwrap(), "off");
        assert!(check("k", &switch, 0, "0").is_err());
    }

    #[test]
    fn missing_settings_are_refused_with_the_reason() {
        let scope = Scope { root: "/".into(), netns: 0, ifaces: vec!["lo".into()] };
        assert!(RING.targets(&scope).is_empty());
        let error = format!("{:#}", RING.plan("lo/rx", "1", &scope).unwrap_err());
        assert!(error.starts_with("ring:lo/rx: the driver does not report it"), "{error}");
        for target in ["lo", "lo/", "lo/middle", "none/rx"] {
            assert!(RING.plan(target, "1", &scope).is_err(), "{target}");
        }
    }
}
