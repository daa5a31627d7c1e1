//! Labels: a location in the flat key/value form that is used in JSON.
//!
//! Only this module converts locations to labels and back.

use latency_common::stage::VECTOR_NAMES;
use serde::{Deserialize, Serialize};

use super::{
    Location, Queue, QueueId,
    attrs::{NamedBy, QueueAttrs},
};

const BACKLOG: &str = "backlog";
const NO_SLOT: &str = "other";
const WITHOUT_ID: &str = "no-id";
const NAPI: &str = "napi-";

/// The parts of a location. Parts that do not apply, or are not known, are absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Labels {
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
    /// The evidence for the number of the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named_by: Option<NamedBy>,
    /// Name of the hard IRQ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub irq_name: Option<String>,
}

impl Labels {
    /// The labels of a location, with what is known of its queue.
    pub fn new(at: &Location, attrs: &QueueAttrs) -> Self {
        match at {
            Location::Cpu(cpu) => Self { cpu: Some(*cpu), ..Self::default() },
            Location::Vector { vector, cpu } => Self {
                cpu: Some(*cpu),
                vector: VECTOR_NAMES.get(*vector as usize).map(|name| (*name).to_owned()),
                ..Self::default()
            },
            Location::Irq { number, name, cpu } => {
                Self { irq: *number, irq_name: name.clone(), cpu: Some(*cpu), ..Self::default() }
            }
            Location::Queue(queue) => Self::of_queue(queue, attrs),
            Location::OnHost { host, at } => {
                Self { host: Some(host.clone()), ..Self::new(at, attrs) }
            }
        }
    }

    fn of_queue(queue: &Queue, attrs: &QueueAttrs) -> Self {
        let labels = Self {
            iface: queue.iface().map(str::to_owned),
            netns: queue.netns(),
            ..Self::default()
        };
        let of_kind = |kind: &str, cpu: u32| Self {
            queue_kind: Some(kind.to_owned()),
            cpu: Some(cpu),
            ..labels.clone()
        };
        match queue {
            Queue::Device { id: QueueId::Rx(number), .. } => Self {
                queue: Some(*number),
                napi_id: attrs.napi_id,
                irq: attrs.irq,
                named_by: attrs.named_by,
                ..labels
            },
            Queue::Device { id: QueueId::Napi(id), .. } => Self {
                queue_kind: Some(format!("{NAPI}{id}")),
                napi_id: Some(*id),
                irq: attrs.irq,
                ..labels
            },
            Queue::WithoutId { cpu, .. } => of_kind(WITHOUT_ID, *cpu),
            Queue::Backlog { cpu } => of_kind(BACKLOG, *cpu),
            Queue::NoSlot { cpu } => of_kind(NO_SLOT, *cpu),
        }
    }

    /// The location that these labels name; `None`: this version does not know it.
    pub fn location(&self) -> Option<Location> {
        let at = self.local()?;
        Some(match &self.host {
            Some(host) => Location::OnHost { host: host.clone(), at: Box::new(at) },
            None => at,
        })
    }

    fn local(&self) -> Option<Location> {
        if let Some(kind) = &self.queue_kind {
            return self.queue_of_kind(kind).map(Location::Queue);
        }
        if let (Some(iface), Some(number)) = (&self.iface, self.queue) {
            let id = QueueId::Rx(number);
            let queue = Queue::Device { iface: iface.clone(), netns: self.netns, id };
            return Some(Location::Queue(queue));
        }
        let cpu = self.cpu?;
        if let Some(name) = &self.vector {
            let vector = VECTOR_NAMES.iter().position(|other| other == name)?;
            return Some(Location::Vector { vector: vector as u32, cpu });
        }
        if self.irq.is_some() || self.irq_name.is_some() {
            return Some(Location::Irq { number: self.irq, name: self.irq_name.clone(), cpu });
        }
        Some(Location::Cpu(cpu))
    }

    fn queue_of_kind(&self, kind: &str) -> Option<Queue> {
        let (iface, netns) = (self.iface.clone(), self.netns);
        match (kind, self.cpu) {
            (BACKLOG, Some(cpu)) => Some(Queue::Backlog { cpu }),
            (NO_SLOT, Some(cpu)) => Some(Queue::NoSlot { cpu }),
            (WITHOUT_ID, Some(cpu)) => Some(Queue::WithoutId { iface: iface?, netns, cpu }),
            _ => {
                let id = QueueId::Napi(kind.strip_prefix(NAPI)?.parse().ok()?);
                Some(Queue::Device { iface: iface?, netns, id })
            }
        }
    }

    /// The same without the CPU, for objects that have a CPU field of their own.
    #[must_use]
    pub fn without_cpu(self) -> Self {
        Self { cpu: None, ..self }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::tag::tests::any_location, *};

    proptest! {
        #[test]
        fn labels_name_their_location(at in any_location(), irq in proptest::option::of(1..9_u32)) {
            // IRQs without a slot share a row: their labels are those of the CPU, and only the
            // stage shows that they are IRQs.
            prop_assume!(!matches!(&at, Location::Irq { number: None, name: None, .. }));
            let is_nameless = |at: &Location| matches!(at, Location::OnHost { at, .. }
                if matches!(**at, Location::Irq { number: None, name: None, .. }));
            prop_assume!(!is_nameless(&at));
            let attrs = QueueAttrs { napi_id: Some(513), irq, named_by: None };
            prop_assert_eq!(Labels::new(&at, &attrs).location(), Some(at));
        }
    }

    #[test]
    fn only_queues_have_attributes_as_labels() {
        let attrs = QueueAttrs { napi_id: Some(513), irq: Some(31), named_by: Some(NamedBy::Irq) };
        assert_eq!(Labels::new(&Location::Cpu(3), &attrs).irq, None);
        let id = QueueId::Rx(2);
        let queue = Queue::Device { iface: "eth0".into(), netns: None, id };
        let labels = Labels::new(&Location::Queue(queue), &attrs);
        assert_eq!((labels.queue, labels.napi_id, labels.irq), (Some(2), Some(513), Some(31)));
    }
}
