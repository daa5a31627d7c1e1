//! Settings of the machine that affect how long packets wait: sysctls, interfaces, their IRQs.
//!
//! Owns the data types and their comparison. `host::settings` reads the settings.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Settings of a machine when a run started. What could not be read is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostSettings {
    /// Values by the sysctl's name, as `sysctl` prints both.
    pub sysctls: BTreeMap<String, String>,
    /// The interfaces of the run, by ascending index.
    pub ifaces: Vec<IfaceSettings>,
}

/// Settings of one network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IfaceSettings {
    /// Its name.
    pub name: String,
    /// Driver of the device behind it; software interfaces have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Largest packet, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// RX queues in use.
    pub rx_queues: u32,
    /// TX queues in use.
    pub tx_queues: u32,
    /// IRQs of its device, by ascending number.
    pub irqs: Vec<IrqSettings>,
    /// Masks of CPUs that RPS spreads an RX queue over, by queue; queues without RPS are absent.
    pub rps_cpus: BTreeMap<u32, String>,
    /// Time until GRO flushes the packets that it holds, ns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gro_flush_timeout_ns: Option<u64>,
    /// Empty polls before a queue's IRQ is enabled again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub napi_defer_hard_irqs: Option<u64>,
    /// Whether NAPI polls run in kernel threads: 1 if they do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threaded: Option<u64>,
}

/// One IRQ of an interface's device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IrqSettings {
    /// Its number.
    pub number: u32,
    /// The driver's name for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// CPUs that may handle it, as in `0-3,8`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<String>,
}

/// A setting that differs between the sides; `None`: absent there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Its name, as in [`HostSettings::by_name`].
    pub name: String,
    /// Its value before.
    pub before: Option<String>,
    /// Its value after.
    pub after: Option<String>,
}

impl HostSettings {
    /// Each setting by a unique name: `net.core.dev_weight`, `eth0 mtu`,
    /// `eth0 irq eth0-TxRx-0 CPUs`.
    pub fn by_name(&self) -> BTreeMap<String, String> {
        let mut all = self.sysctls.clone();
        for iface in &self.ifaces {
            let mut put = |what: &str, value: Option<String>| {
                if let Some(value) = value {
                    all.insert(format!("{} {what}", iface.name), value);
                }
            };
            let number = |value: Option<u64>| value.map(|value| value.to_string());
            put("driver", iface.driver.clone());
            put("mtu", number(iface.mtu.map(u64::from)));
            put("rx queues", Some(iface.rx_queues.to_string()));
            put("tx queues", Some(iface.tx_queues.to_string()));
            put("gro_flush_timeout", number(iface.gro_flush_timeout_ns));
            put("napi_defer_hard_irqs", number(iface.napi_defer_hard_irqs));
            put("threaded", number(iface.threaded));
            for (queue, mask) in &iface.rps_cpus {
                put(&format!("rx-{queue} rps_cpus"), Some(mask.clone()));
            }
            for irq in &iface.irqs {
                // Numbers change with every boot, names do not.
                let name = irq.name.clone().unwrap_or_else(|| irq.number.to_string());
                put(&format!("irq {name} CPUs"), irq.affinity.clone());
            }
        }
        all
    }

    /// The settings that differ, by name.
    pub fn differences(&self, after: &Self) -> Vec<Difference> {
        let (before, after) = (self.by_name(), after.by_name());
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        names
            .into_iter()
            .filter(|name| before.get(*name) != after.get(*name))
            .map(|name| Difference {
                name: name.clone(),
                before: before.get(name).cloned(),
                after: after.get(name).cloned(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_irq_that_was_renumbered_is_no_difference_but_its_cpus_are() {
        let with = |number, affinity: &str| HostSettings {
            ifaces: vec![IfaceSettings {
                name: "eth0".into(),
                irqs: vec![IrqSettings {
                    number,
                    name: Some("eth0-0".into()),
                    affinity: Some(affinity.into()),
                }],
                ..IfaceSettings::default()
            }],
            ..HostSettings::default()
        };
        assert_eq!(with(24, "0-1").differences(&with(31, "0-1")), []);
        let expected = Difference {
            name: "eth0 irq eth0-0 CPUs".into(),
            before: Some("0-1".into()),
            after: Some("1".into()),
        };
        assert_eq!(with(24, "0-1").differences(&with(24, "1")), [expected]);
    }

    #[test]
    fn a_setting_of_one_side_only_differs() {
        let sysctls = [("net.core.busy_poll".to_owned(), "50".to_owned())];
        let some = HostSettings { sysctls: sysctls.into(), ..HostSettings::default() };
        let found = HostSettings::default().differences(&some);
        assert_eq!(
            (found.len(), &found[0].before, found[0].after.as_deref()),
            (1, &None, Some("50"))
        );
    }
}
