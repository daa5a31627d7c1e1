//! Knobs that are `ethtool` settings of a network interface, and their text form.
//!
//! A number is written as such, a switch as `on` or `off`. An offload that was requested but is
//! prevented by another one reads `off [requested on]`, as `ethtool` shows it: it comes on when the
//! other one allows it. The requested value is the one that is put back.

use std::fmt;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

use crate::{
    experiment::netns,
    host::nic::{
        ethtool::EthtoolDirectory,
        setting::{self, Coalesce, NicSetting, Queues, Ring, SettingState, Value},
    },
};

/// A setting of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicKnob {
    /// The name of the interface when the experiment was planned, for display.
    pub iface: String,
    /// Its index, which stays the same when it is renamed.
    pub index: u32,
    /// Inode of its network namespace; absent: that of the process.
    pub netns: Option<u32>,
    /// The setting.
    pub setting: NicSetting,
}

impl NicKnob {
    /// As [`super::Knob::read`].
    pub(super) fn read(&self) -> Result<String> {
        self.visit(|directory| directory.read(self.index, &self.setting))
            .map(text_of)
            .with_context(|| format!("read {self}"))
    }

    /// As [`super::Knob::write`].
    pub(super) fn write(&self, value: &str) -> Result<()> {
        let text = requested(value);
        let write = || {
            let value = match text {
                "on" => Value::Switch(true),
                "off" => Value::Switch(false),
                number => Value::Number(number.parse().context("neither a number nor on or off")?),
            };
            self.visit(|directory| directory.write(self.index, &self.setting, value))
        };
        write().with_context(|| format!("write {text:?} to {self}"))
    }

    /// As [`super::Knob::is_gone`].
    pub(super) fn is_gone(&self) -> bool {
        if self.netns.is_some_and(|netns| !netns::exists(netns)) {
            return true;
        }
        let is_gone = netns::within(self.netns, false, || Ok(!setting::exists(self.index)));
        is_gone.unwrap_or(false)
    }

    /// Netlink answers for the namespace of the thread that asks.
    fn visit<T: Send>(
        &self,
        ask: impl FnOnce(&mut EthtoolDirectory) -> Result<T, String> + Send,
    ) -> Result<T> {
        netns::within(self.netns, false, || {
            ask(&mut EthtoolDirectory::new()).map_err(|why| anyhow!(why))
        })
    }
}

impl fmt::Display for NicKnob {
    /// As written on the command line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tunable, name) = match &self.setting {
            NicSetting::Offload(name) => ("offload", name.as_str()),
            NicSetting::Ring(Ring::Rx) => ("ring", "rx"),
            NicSetting::Ring(Ring::Tx) => ("ring", "tx"),
            NicSetting::Channels(Queues::Rx) => ("channels", "rx"),
            NicSetting::Channels(Queues::Tx) => ("channels", "tx"),
            NicSetting::Channels(Queues::Combined) => ("channels", "combined"),
            NicSetting::Coalesce(Coalesce::RxUsecs) => ("coalesce", "rx-usecs"),
            NicSetting::Coalesce(Coalesce::RxFrames) => ("coalesce", "rx-frames"),
            NicSetting::Coalesce(Coalesce::TxUsecs) => ("coalesce", "tx-usecs"),
            NicSetting::Coalesce(Coalesce::TxFrames) => ("coalesce", "tx-frames"),
            NicSetting::Coalesce(Coalesce::AdaptiveRx) => ("coalesce", "adaptive-rx"),
            NicSetting::Coalesce(Coalesce::AdaptiveTx) => ("coalesce", "adaptive-tx"),
        };
        write!(f, "{tunable}:{}/{name}", self.iface)
    }
}

fn text_of(state: SettingState) -> String {
    let word = |on| if on { "on" } else { "off" };
    match state {
        SettingState::Number { now, .. } => now.to_string(),
        SettingState::Switch { on, wanted } if on == wanted => word(on).to_owned(),
        SettingState::Switch { on, wanted } => format!("{} [requested {}]", word(on), word(wanted)),
    }
}

/// The requested value in a content.
pub(super) fn requested(content: &str) -> &str {
    let wanted = content.split_once(" [requested ").map_or(content, |(_, wanted)| wanted);
    wanted.trim_end_matches(']').trim()
}

/// The effective value in a content.
pub(super) fn effective(content: &str) -> &str {
    content.split_once(" [requested ").map_or(content, |(effect, _)| effect).trim()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::nic::ethtool::index_of;

    #[test]
    fn requested_and_effective_values_are_distinguished() {
        let switch = |on, wanted| text_of(SettingState::Switch { on, wanted });
        assert_eq!(switch(true, true), "on");
        let ruled_out = switch(false, true);
        assert_eq!((requested(&ruled_out), effective(&ruled_out)), ("on", "off"));
        let forced = switch(true, false);
        assert_eq!((requested(&forced), effective(&forced)), ("off", "on"));
        let number = text_of(SettingState::Number { now: 256, most: None });
        assert_eq!((requested(&number), effective(&number)), ("256", "256"));
    }

    #[test]
    fn an_interface_that_is_not_there_is_gone_and_named() {
        let setting = NicSetting::Ring(Ring::Rx);
        let index = u32::MAX >> 1;
        let mut knob = NicKnob { iface: "eth9".into(), index, netns: None, setting };
        assert!(knob.is_gone());
        let error = format!("{:#}", knob.read().unwrap_err());
        assert!(error.starts_with("read ring:eth9/rx: "), "{error}");
        let error = format!("{:#}", knob.write("many").unwrap_err());
        assert!(error.contains("write \"many\" to ring:eth9/rx: neither"), "{error}");
        knob.index = index_of("lo");
        assert!(!knob.is_gone());
    }
}
