//! Knobs: where the kernel stores a setting, with one interface to read and write all kinds.

use std::fmt;

use anyhow::Result;
use serde::{Deserialize, Serialize};

mod file;
mod nic;

pub use self::{
    file::{FileKnob, Form},
    nic::NicKnob,
};

/// Where a setting is stored. Journals distinguish the kinds by their fields: journals of older
/// versions contain files only, and still parse.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Knob {
    /// A file.
    File(FileKnob),
    /// A setting of a network interface that no file shows.
    Nic(NicKnob),
}

impl Knob {
    /// Its current value, in a form that can be written back.
    ///
    /// # Errors
    ///
    /// When it cannot be read, with its name.
    pub fn read(&self) -> Result<String> {
        match self {
            Self::File(file) => file.read(),
            Self::Nic(nic) => nic.read(),
        }
    }

    /// Whether it belongs to the network, and not to an IRQ.
    pub fn is_of_network(&self) -> bool {
        match self {
            Self::File(file) => !file.path.starts_with("/proc/irq"),
            Self::Nic(_) => true,
        }
    }

    /// Writes `value`.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the value, with the knob's name.
    pub fn write(&self, value: &str) -> Result<()> {
        match self {
            Self::File(file) => file.write(value),
            Self::Nic(nic) => nic.write(value),
        }
    }

    /// Whether two contents have the same requested value.
    pub fn is_same(&self, left: &str, right: &str) -> bool {
        match self {
            Self::File(file) => file.form.normal(left) == file.form.normal(right),
            Self::Nic(_) => nic::requested(left) == nic::requested(right),
        }
    }

    /// Whether two contents have the same effective value, which may differ from the requested one.
    pub fn works_same(&self, left: &str, right: &str) -> bool {
        match self {
            Self::File(_) => self.is_same(left, right),
            Self::Nic(_) => nic::effective(left) == nic::effective(right),
        }
    }

    /// Whether it is one that an experiment may change: a journal that names another one was not
    /// written by this program.
    pub fn is_setting(&self) -> bool {
        match self {
            Self::File(file) => file.is_setting(),
            Self::Nic(_) => true,
        }
    }

    /// Whether it disappeared, alone or together with its network namespace.
    pub fn is_gone(&self) -> bool {
        match self {
            Self::File(file) => file.is_gone(),
            Self::Nic(nic) => nic.is_gone(),
        }
    }
}

impl fmt::Display for Knob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => file.path.display().fmt(f),
            Self::Nic(nic) => nic.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::nic::setting::{NicSetting, Ring};

    #[test]
    fn knobs_read_back_from_a_journal_of_this_or_an_older_version() {
        let old = r#"{"path":"/proc/sys/net/ipv4/tcp_rmem","netns":4026531840,"form":"words"}"#;
        let file: Knob = serde_json::from_str(old).unwrap();
        assert_eq!(file.to_string(), "/proc/sys/net/ipv4/tcp_rmem");
        assert_eq!(serde_json::to_string(&file).unwrap(), old);
        let nic = Knob::Nic(NicKnob {
            iface: "eth0".into(),
            index: 2,
            netns: Some(7),
            setting: NicSetting::Ring(Ring::Rx),
        });
        let text = serde_json::to_string(&nic).unwrap();
        assert_eq!(serde_json::from_str::<Knob>(&text).unwrap(), nic);
        assert!(serde_json::from_str::<Knob>(r#"{"iface":"eth0"}"#).is_err());
    }
}
