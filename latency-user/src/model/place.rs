//! Where something was timed, in the names that JSON has for it.

use latency_common::stage::VECTOR_NAMES;
use serde::{Deserialize, Serialize};

use super::series::{Owner, Queue};

/// The parts of a series' name. What does not apply, or is not known, is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The host, in recordings that were merged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The CPU, for what is kept per CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// Softirq vector, of stage `softirq`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vector: Option<String>,
    /// Name of the interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iface: Option<String>,
    /// Network namespace of the interface, when it is not the one of the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<u32>,
    /// RX queue of the interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<u32>,
    /// What is polled where there is no RX queue: `backlog`, `no-id`, `other` or `napi-ID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_kind: Option<String>,
    /// The kernel's id of the NAPI instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub napi_id: Option<u32>,
    /// Number of the hard IRQ: of the series itself, or the one that schedules the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub irq: Option<u32>,
    /// Name of the hard IRQ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub irq_name: Option<String>,
}

impl Place {
    /// The same without the CPU, for where a CPU stands beside it.
    #[must_use]
    pub fn without_cpu(self) -> Self {
        Self { cpu: None, ..self }
    }

    fn of_queue(queue: &Queue) -> Self {
        let place = Self {
            iface: queue.iface().map(str::to_owned),
            netns: queue.netns(),
            ..Self::default()
        };
        match queue {
            Queue::Device { queue, napi_id, irq, .. } => Self {
                queue: *queue,
                queue_kind: queue.is_none().then(|| format!("napi-{napi_id}")),
                napi_id: (*napi_id != 0).then_some(*napi_id),
                irq: *irq,
                ..place
            },
            Queue::WithoutId { cpu, .. } => place.of_kind("no-id", *cpu),
            Queue::Backlog { cpu } => place.of_kind("backlog", *cpu),
            Queue::NoSlot { cpu } => place.of_kind("other", *cpu),
        }
    }

    fn of_kind(self, kind: &str, cpu: u32) -> Self {
        Self { queue_kind: Some(kind.to_owned()), cpu: Some(cpu), ..self }
    }
}

impl From<&Owner> for Place {
    fn from(owner: &Owner) -> Self {
        match owner {
            Owner::Cpu(cpu) => Self { cpu: Some(*cpu), ..Self::default() },
            Owner::Vector { vector, cpu } => Self {
                cpu: Some(*cpu),
                vector: VECTOR_NAMES.get(*vector as usize).map(|name| (*name).to_owned()),
                ..Self::default()
            },
            Owner::Irq { number, name, cpu } => {
                Self { irq: *number, irq_name: name.clone(), cpu: Some(*cpu), ..Self::default() }
            }
            Owner::Queue(queue) => Self::of_queue(queue),
            Owner::OnHost { host, owner } => {
                Self { host: Some(host.clone()), ..Self::from(&**owner) }
            }
        }
    }
}
