//! `offload:IF/NAME=on|off`: work on packets that the NIC or its driver does instead of the
//! kernel's stack, or that the stack does in bulk.

use anyhow::{Result, anyhow};

use super::{Assignment, Scope, Tunable, nic};
use crate::{
    experiment::knob::Knob,
    host::nic::{
        directory::Features,
        ethtool::{EthtoolDirectory, index_of},
        setting::NicSetting,
    },
    model::failure::Failure,
};

/// Names that `ethtool -K` accepts, names that `ethtool -k` shows, and the kernel's names for both:
/// a star stands for any characters.
const GROUPS: [(&str, &str, &str); 12] = [
    ("rx", "rx-checksumming", "rx-checksum"),
    ("tx", "tx-checksumming", "tx-checksum-*"),
    ("sg", "scatter-gather", "tx-scatter-gather*"),
    ("tso", "tcp-segmentation-offload", "tx-tcp*-segmentation"),
    ("ufo", "udp-fragmentation-offload", "tx-udp-fragmentation"),
    ("gso", "generic-segmentation-offload", "tx-generic-segmentation"),
    ("gro", "generic-receive-offload", "rx-gro"),
    ("lro", "large-receive-offload", "rx-lro"),
    ("rxvlan", "rx-vlan-offload", "rx-vlan-hw-parse"),
    ("txvlan", "tx-vlan-offload", "tx-vlan-hw-insert"),
    ("ntuple", "ntuple-filters", "rx-ntuple-filter"),
    ("rxhash", "receive-hashing", "rx-hashing"),
];

/// The tunable.
pub(super) struct Offload;

impl Tunable for Offload {
    fn name(&self) -> &'static str {
        "offload"
    }

    fn usage(&self) -> &'static str {
        "IF/NAME=on|off"
    }

    fn describe(&self) -> &'static str {
        "An offload of a NIC, by the names of `ethtool -k` and `ethtool -K` (gro, gso, tso, lro, \
         rx, tx, sg, rxhash, ...) or the kernel's own (rx-gro-list). A name for several changes \
         all of them that can be changed."
    }

    fn plan(&self, target: &str, value: &str, scope: &Scope) -> Result<Vec<Assignment>> {
        let (iface, name) = nic::parts(target, "NAME")?;
        scope.interface(iface)?;
        if !matches!(value, "on" | "off") {
            return Err(Failure::new(format!("{target} is on or off, not {value:?}")).into());
        }
        let features = EthtoolDirectory::new().features(index_of(iface));
        let features = features.map_err(|why| anyhow!("offloads of {iface}: {why}"))?;
        let names = changeable(iface, name, &features)?.into_iter();
        let wanted = |name| {
            let knob = nic::knob(iface, NicSetting::Offload(name), scope);
            Assignment { knob, value: value.to_owned() }
        };
        Ok(names.map(wanted).collect())
    }

    fn followers(&self, target: &str, scope: &Scope) -> Vec<Knob> {
        nic::parts(target, "NAME")
            .map_or_else(|_| Vec::new(), |(iface, _)| nic::of_queues(iface, scope))
    }

    fn targets(&self, scope: &Scope) -> Vec<(String, Knob)> {
        let mut directory = EthtoolDirectory::new();
        let mut of = |iface: String| -> Vec<_> {
            let features = directory.features(index_of(&iface)).unwrap_or_default();
            let listed = features.changeable.into_iter().filter(|name| is_listed(name));
            listed
                .map(|name| {
                    let target = format!("{iface}/{name}");
                    (target, nic::knob(&iface, NicSetting::Offload(name), scope))
                })
                .collect()
        };
        scope.interfaces().into_iter().flat_map(&mut of).collect()
    }
}

/// Whether lists show it: dozens of offloads of tunnels and rare hardware are left out.
fn is_listed(name: &str) -> bool {
    name.starts_with("rx-") || GROUPS.iter().any(|(.., pattern)| matches_pattern(pattern, name))
}

/// The kernel's names that `name` stands for and that can be changed.
fn changeable(iface: &str, name: &str, features: &Features) -> Result<Vec<String>, Failure> {
    let group = GROUPS.iter().find(|(short, long, _)| *short == name || *long == name);
    let pattern = group.map_or(name, |(.., pattern)| pattern);
    // A star in the user's name is not a pattern.
    let is_meant = |known: &&String| match group {
        Some(_) => matches_pattern(pattern, known),
        None => *known == name,
    };
    let (free, fixed): (Vec<&String>, Vec<&String>) = features
        .known
        .iter()
        .filter(is_meant)
        .partition(|known| features.changeable.contains(known));
    if !free.is_empty() {
        return Ok(free.into_iter().cloned().collect());
    }
    if fixed.is_empty() {
        return Err(Failure::new(format!("this kernel has no offload {name:?}"))
            .hint(format!("{iface} can change: {}", features.changeable.join(", "))));
    }
    let is_on = fixed.iter().any(|name| features.active.contains(name));
    Err(Failure::new(format!(
        "{name} of {iface} is fixed: it is {} and cannot be changed",
        if is_on { "on" } else { "off" }
    ))
    .hint(format!("it can change: {}", features.changeable.join(", "))))
}

/// Whether `name` matches a pattern with at most one star.
fn matches_pattern(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name
            .strip_prefix(head)
            .is_some_and(|rest| rest.len() >= tail.len() && rest.ends_with(tail)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features() -> Features {
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        Features {
            active: names(&["rx-gro", "rx-checksum", "tx-checksum-ip-generic"]),
            changeable: names(&[
                "rx-gro",
                "tx-checksum-ip-generic",
                "tx-checksum-sctp",
                "tx-tcp-segmentation",
                "tx-tcp6-segmentation",
            ]),
            wanted: names(&["rx-gro"]),
            known: names(&[
                "rx-gro",
                "rx-lro",
                "rx-checksum",
                "tx-checksum-ipv4",
                "tx-checksum-ip-generic",
                "tx-checksum-sctp",
                "tx-tcp-segmentation",
                "tx-tcp6-segmentation",
                "tx-udp-segmentation",
            ]),
        }
    }

    #[test]
    fn names_of_ethtool_stand_for_the_kernels() {
        for (name, expected) in [
            ("gro", &["rx-gro"][..]),
            ("generic-receive-offload", &["rx-gro"]),
            ("rx-gro", &["rx-gro"]),
            ("tso", &["tx-tcp-segmentation", "tx-tcp6-segmentation"]),
            ("tx", &["tx-checksum-ip-generic", "tx-checksum-sctp"]),
            ("tx-checksum-sctp", &["tx-checksum-sctp"]),
        ] {
            assert_eq!(changeable("eth0", name, &features()).unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn fixed_and_unknown_offloads_are_refused() {
        for (name, message) in [
            ("lro", "lro of eth0 is fixed: it is off"),
            ("rx-lro", "rx-lro of eth0 is fixed: it is off"),
            ("rx", "rx of eth0 is fixed: it is on"),
            ("tx-checksum-ipv4", "is fixed"),
            ("magic", "this kernel has no offload \"magic\""),
            ("tx-*", "this kernel has no offload"),
        ] {
            let failure = changeable("eth0", name, &features()).unwrap_err();
            assert!(failure.message.contains(message), "{failure}");
            assert!(failure.hint.unwrap().contains("rx-gro"));
        }
    }

    #[test]
    fn loopback_has_changeable_offloads_and_fixed_ones() {
        let scope = Scope { root: "/".into(), netns: 0, ifaces: vec!["lo".into()] };
        let planned = Offload.plan("lo/gro", "off", &scope).unwrap();
        assert_eq!(planned[0].knob.to_string(), "offload:lo/rx-gro");
        assert!(!Offload.targets(&scope).is_empty());
        for (target, value) in
            [("lo/gro", "1"), ("lo/rx-vlan-filter", "on"), ("lo", "on"), ("lo/", "on")]
        {
            assert!(Offload.plan(target, value, &scope).is_err(), "{target}={value}");
        }
    }
}
