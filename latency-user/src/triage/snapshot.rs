//! A host as rules see it: two samples, parsed on demand.
//!
//! Parses each file once and reports why something is unknown; draws no conclusions.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use anyhow::Result;
use serde::de::DeserializeOwned;

use super::{sources, trace::TraceResult};
use crate::{
    file_tree::FileTree,
    host::{
        cpu::{cpus, interrupts::Interrupts, softirqs::Softirqs, stat::Stat},
        net::{
            interface_counters::{self, InterfaceCounters, Interfaces},
            interfaces::Interface,
            protocol_counters::ProtocolCounters,
            softnet::{self, Softnet},
        },
        nic::directory::Nic,
        process::processes::Processes,
    },
};

/// Why a rule has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unknown(pub(super) String);

impl From<String> for Unknown {
    fn from(reason: String) -> Self {
        Self(reason)
    }
}

impl From<anyhow::Error> for Unknown {
    fn from(error: anyhow::Error) -> Self {
        Self(format!("{error:#}"))
    }
}

/// The same data from both samples.
#[derive(Clone, Debug)]
pub(super) struct Samples<T> {
    pub(super) first: T,
    pub(super) second: T,
}

type Parsed<T> = OnceCell<Result<T, Unknown>>;

/// A host, sampled twice.
pub struct HostSnapshot {
    /// The first sample: counters.
    pub(super) first: FileTree,
    /// The second sample: counters and settings.
    pub(super) second: FileTree,
    /// Time between the samples.
    pub(super) elapsed: Duration,
    stat: Parsed<Samples<Stat>>,
    interrupts: Parsed<Samples<Interrupts>>,
    softirqs: Parsed<Samples<Softirqs>>,
    softnet: Parsed<Samples<Vec<Softnet>>>,
    nics: Parsed<Samples<Vec<Nic>>>,
    interfaces: Parsed<Vec<Interface>>,
    dev: Parsed<Samples<Interfaces>>,
}

impl HostSnapshot {
    /// A host from its two samples.
    pub fn new(first: FileTree, second: FileTree, elapsed: Duration) -> Self {
        Self {
            first,
            second,
            elapsed,
            stat: OnceCell::new(),
            interrupts: OnceCell::new(),
            softirqs: OnceCell::new(),
            softnet: OnceCell::new(),
            nics: OnceCell::new(),
            interfaces: OnceCell::new(),
            dev: OnceCell::new(),
        }
    }

    /// Seconds between the samples, never 0.
    pub(super) fn seconds(&self) -> f64 {
        self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Parses a file in both samples.
    pub(super) fn change<T>(
        &self,
        path: &str,
        parse: fn(&Path, &str) -> Result<T>,
    ) -> Result<Samples<T>, Unknown> {
        let shown = format!("/{path}");
        let shown = Path::new(&shown);
        Ok(Samples {
            first: parse(shown, self.first.text(path)?)?,
            second: parse(shown, self.second.text(path)?)?,
        })
    }

    /// The text of a setting, without the line end.
    pub(super) fn setting(&self, path: &str) -> Result<&str, Unknown> {
        Ok(self.second.text(path)?.trim())
    }

    /// A setting that is a number.
    pub(super) fn number(&self, path: &str) -> Result<i64, Unknown> {
        let text = self.setting(path)?;
        text.parse().map_err(|_| Unknown(format!("/{path}:1: expected a number, found {text:?}")))
    }

    /// `/proc/stat`.
    pub(super) fn stat(&self) -> Result<&Samples<Stat>, Unknown> {
        cached(&self.stat, || self.change("proc/stat", Stat::parse))
    }

    /// `/proc/interrupts`.
    pub(super) fn interrupts(&self) -> Result<&Samples<Interrupts>, Unknown> {
        cached(&self.interrupts, || self.change("proc/interrupts", Interrupts::parse))
    }

    /// `/proc/softirqs`.
    pub(super) fn softirqs(&self) -> Result<&Samples<Softirqs>, Unknown> {
        cached(&self.softirqs, || self.change("proc/softirqs", Softirqs::parse))
    }

    /// `/proc/net/softnet_stat`.
    pub(super) fn softnet(&self) -> Result<&Samples<Vec<Softnet>>, Unknown> {
        cached(&self.softnet, || self.change("proc/net/softnet_stat", softnet::parse))
    }

    /// Packet counters of the interfaces in our network namespace.
    pub(super) fn dev(&self) -> Result<&Samples<Interfaces>, Unknown> {
        cached(&self.dev, || {
            let own = self.setting("netns/own")?;
            self.change(&format!("netns/{own}/dev"), interface_counters::parse)
        })
    }

    /// Packets that an interface received per second.
    pub(super) fn rx_rate(&self, iface: &str) -> Result<f64, Unknown> {
        self.dev_rate(iface, |counters| counters.rx_packets)
    }

    /// Packets that an interface sent per second.
    pub(super) fn tx_rate(&self, iface: &str) -> Result<f64, Unknown> {
        self.dev_rate(iface, |counters| counters.tx_packets)
    }

    fn dev_rate(
        &self,
        iface: &str,
        of: impl Fn(&InterfaceCounters) -> u64,
    ) -> Result<f64, Unknown> {
        let dev = self.dev()?;
        let (first, second) = self.counters(dev, iface)?;
        Ok(of(second).saturating_sub(of(first)) as f64 / self.seconds())
    }

    /// The counters of an interface in both samples.
    pub(super) fn counters<'a>(
        &self,
        dev: &'a Samples<Interfaces>,
        iface: &str,
    ) -> Result<(&'a InterfaceCounters, &'a InterfaceCounters), Unknown> {
        let of = |sample: &'a Interfaces| match (sample.found.get(iface), sample.damaged.get(iface))
        {
            (Some(counters), _) => Ok(counters),
            (None, Some(error)) => Err(Unknown(error.clone())),
            (None, None) => Err(Unknown(format!("{iface} was not in both samples"))),
        };
        Ok((of(&dev.first)?, of(&dev.second)?))
    }

    /// Interfaces to judge by default: all that are up or carried packets.
    pub fn busy_interfaces(&self) -> Vec<String> {
        let Ok(dev) = self.dev() else { return Vec::new() };
        let is_up = |name: &str| {
            self.setting(&format!("sys/class/net/{name}/operstate")).is_ok_and(|s| s == "up")
        };
        let carried = |name: &str| {
            let (before, now) = (dev.first.found.get(name), dev.second.found.get(name));
            before.is_none_or(|before| now != Some(before))
        };
        let Interfaces { found, damaged } = &dev.second;
        let names = found.keys().chain(damaged.keys()).filter(|name| !name.is_empty());
        let names = names.filter(|name| *name != "lo");
        names.filter(|name| is_up(name) || carried(name)).cloned().collect()
    }

    /// Whether the host has an interface with this name.
    pub fn has_interface(&self, name: &str) -> bool {
        self.dev().is_ok_and(|dev| {
            dev.second.found.contains_key(name) || dev.second.damaged.contains_key(name)
        })
    }

    /// Settings and counters of an interface from netlink and ethtool.
    pub(super) fn nic(&self, name: &str) -> Result<Samples<&Nic>, Unknown> {
        let nics = cached(&self.nics, || {
            Ok(Samples {
                first: object(&self.first, sources::NICS)?,
                second: object(&self.second, sources::NICS)?,
            })
        })?;
        let find = |nics: &'_ [Nic]| nics.iter().position(|nic| nic.name == name);
        match (find(&nics.first), find(&nics.second)) {
            (Some(first), Some(second)) => {
                Ok(Samples { first: &nics.first[first], second: &nics.second[second] })
            }
            _ => Err(Unknown(format!("{name} was not in both samples"))),
        }
    }

    /// An interface as `/sys` shows it.
    pub(super) fn interface(&self, name: &str) -> Result<&Interface, Unknown> {
        let interfaces: &Vec<Interface> =
            cached(&self.interfaces, || object(&self.second, sources::INTERFACES))?;
        interfaces
            .iter()
            .find(|interface| interface.name == name)
            .ok_or_else(|| Unknown(format!("/sys/class/net does not show {name}")))
    }

    /// ksoftirqd and irqbalance in both samples.
    pub(super) fn processes(&self) -> Result<Samples<Processes>, Unknown> {
        Ok(Samples {
            first: object(&self.first, sources::PROCESSES)?,
            second: object(&self.second, sources::PROCESSES)?,
        })
    }

    /// What the short trace saw, or why there was none.
    pub(super) fn trace(&self) -> Result<TraceResult, Unknown> {
        object(&self.second, sources::TRACE).map_err(|_| Unknown("no trace was taken".into()))
    }

    /// CPUs that are online.
    pub(super) fn online(&self) -> Result<Vec<u32>, Unknown> {
        Ok(cpus::parse_list(self.setting("sys/devices/system/cpu/online")?)?)
    }

    /// CPUs of each NUMA node.
    pub(super) fn nodes(&self) -> Result<BTreeMap<u32, Vec<u32>>, Unknown> {
        let mut nodes = BTreeMap::new();
        for directory in self.second.children("sys/devices/system/node") {
            let Some(node) = directory.strip_prefix("node").and_then(|node| node.parse().ok())
            else {
                continue;
            };
            let path = format!("sys/devices/system/node/{directory}/cpulist");
            nodes.insert(node, cpus::parse_list(self.setting(&path)?)?);
        }
        match nodes.is_empty() {
            true => Err(Unknown("/sys/devices/system/node is absent".into())),
            false => Ok(nodes),
        }
    }

    /// All network namespaces in the second sample, our own first.
    pub(super) fn namespaces(&self) -> Result<Vec<Namespace>, Unknown> {
        let own = self.setting("netns/own")?;
        let all: BTreeSet<&str> = self.second.children("netns");
        let others =
            all.iter().filter(|name| **name != own && name.bytes().all(|b| b.is_ascii_digit()));
        Ok(std::iter::once(&own)
            .chain(others)
            .map(|inode| Namespace {
                inode: (*inode).to_owned(),
                pid: self.setting(&format!("netns/{inode}/pid")).ok().map(str::to_owned),
            })
            .collect())
    }

    /// A protocol file (`netstat`, `snmp`) of a namespace.
    pub(super) fn protocols(
        &self,
        namespace: &Namespace,
        file: &str,
    ) -> Result<Samples<ProtocolCounters>, Unknown> {
        self.change(&format!("netns/{}/{file}", namespace.inode), ProtocolCounters::parse)
    }
}

/// A network namespace.
#[derive(Clone, Debug)]
pub(super) struct Namespace {
    /// Its inode.
    pub(super) inode: String,
    /// A process in it; `None`: it is our own namespace.
    pub(super) pid: Option<String>,
}

impl Namespace {
    /// A process in it; `None`: it is our own namespace.
    pub(super) fn pid(&self) -> Result<Option<u32>, Unknown> {
        let parse = |pid: &String| {
            pid.parse().map_err(|_| Unknown(format!("{pid:?} is not the number of a process")))
        };
        self.pid.as_ref().map(parse).transpose()
    }
}

fn cached<T>(cell: &Parsed<T>, parse: impl FnOnce() -> Result<T, Unknown>) -> Result<&T, Unknown> {
    cell.get_or_init(parse).as_ref().map_err(Clone::clone)
}

fn object<T: DeserializeOwned>(tree: &FileTree, name: &str) -> Result<T, Unknown> {
    let text = tree.text(name)?;
    serde_json::from_str(text).map_err(|error| Unknown(format!("{name}: {error}")))
}
