//! Identifies NAPI instances: interface, RX queue and IRQ.
//!
//! Draws the conclusions; other modules read the evidence from netlink, `/sys`, `/proc` and the
//! slots. Sources may contradict one another, and drivers leave gaps. A queue number is given only
//! if no evidence contradicts it: a wrong one would send an operator to the wrong queue.

mod order;

use std::collections::BTreeMap;

use latency_common::slot::{SlotInfo, SlotKind};

use crate::{
    host::{
        net::interfaces::Interface,
        nic::netdev::{NapiInstance, RxQueue},
    },
    model::series::{
        Queue, QueueId,
        attrs::{NamedBy, QueueAttrs},
    },
};

/// Everything known when instances are named. Maps by interface index are of the network namespace
/// of this process; an interface that is absent was not queried, or the query failed.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// Inode of the network namespace of this process.
    pub own_netns: u32,
    /// The interfaces of that namespace.
    pub interfaces: &'a [Interface],
    /// RX queues by interface index, from netlink.
    pub queues: &'a BTreeMap<u32, Vec<RxQueue>>,
    /// NAPI instances by interface index, from netlink.
    pub instances: &'a BTreeMap<u32, Vec<NapiInstance>>,
    /// IRQs by `(interface index, RX queue)`, from their names.
    pub queue_irqs: &'a BTreeMap<(u32, u32), u32>,
    /// All assigned slots, of every namespace and kind.
    pub slots: &'a [SlotInfo],
}

/// Names the instance of a [`SlotKind::Napi`] slot, or the instances of a
/// [`SlotKind::NapiWithoutId`] slot.
pub fn name_queue(slot: &SlotInfo, evidence: &Evidence) -> (Queue, QueueAttrs) {
    let netns = evidence.is_foreign(slot).then_some(slot.netns);
    let iface = evidence.interface_name(slot);
    if slot.kind == SlotKind::NapiWithoutId as u32 {
        return (Queue::WithoutId { iface, netns, cpu: slot.cpu }, QueueAttrs::default());
    }
    let named = evidence.queue(slot);
    let queue = named.map(|(queue, _)| queue);
    let id = queue.map_or(QueueId::Napi(slot.id), QueueId::Rx);
    let attrs = QueueAttrs {
        napi_id: Some(slot.id),
        irq: evidence.irq(slot, queue),
        named_by: named.map(|(_, named_by)| named_by),
    };
    (Queue::Device { iface, netns, id }, attrs)
}

/// Whether watching more packets cannot improve the slot's name.
pub fn is_settled(slot: &SlotInfo, evidence: &Evidence) -> bool {
    if slot.kind != SlotKind::Napi as u32 || slot.rx_queue_seen != 0 {
        // The kernel side keeps the queue of the first packet: later ones can only contradict it.
        return true;
    }
    let Some(interface) = evidence.interface(slot).filter(|interface| interface.has_device) else {
        return true;
    };
    match evidence.netlink_answer(interface, slot.id) {
        NetlinkAnswer::Queue(_) | NetlinkAnswer::NoSingleQueue => true,
        NetlinkAnswer::Unknown => {
            evidence.queue(slot).is_some() || evidence.only_sends(slot, interface)
        }
    }
}

/// What netlink reports about the queue of an instance.
enum NetlinkAnswer {
    /// It polls only this RX queue.
    Queue(u32),
    /// It polls several queues, or other instances poll all queues.
    NoSingleQueue,
    /// Netlink does not answer this.
    Unknown,
}

impl Evidence<'_> {
    fn is_foreign(&self, slot: &SlotInfo) -> bool {
        slot.netns != 0 && slot.netns != self.own_netns
    }

    /// The slot's interface. `None` in other namespaces, where indexes have other meanings.
    fn interface(&self, slot: &SlotInfo) -> Option<&Interface> {
        if self.is_foreign(slot) {
            return None;
        }
        self.interfaces.iter().find(|interface| interface.index == slot.ifindex)
    }

    /// The interface's current name, or the one when the slot was assigned.
    fn interface_name(&self, slot: &SlotInfo) -> String {
        if let Some(interface) = self.interface(slot) {
            return interface.name.clone();
        }
        let name = slot.name.split(|byte| *byte == 0).next().unwrap_or_default();
        match String::from_utf8_lossy(name) {
            name if name.is_empty() => format!("ifindex-{}", slot.ifindex),
            name => name.into_owned(),
        }
    }

    fn queue(&self, slot: &SlotInfo) -> Option<(u32, NamedBy)> {
        let interface = self.interface(slot)?;
        match self.netlink_answer(interface, slot.id) {
            NetlinkAnswer::Queue(queue) => return Some((queue, NamedBy::Netlink)),
            NetlinkAnswer::NoSingleQueue => return None,
            NetlinkAnswer::Unknown => {}
        }
        let by_packets = self.queue_by_packets(slot, interface);
        match (by_packets, self.queue_by_irq(slot, interface)) {
            (Some(queue), Some(other)) if queue != other => None,
            (Some(queue), _) => Some((queue, NamedBy::Packets)),
            (None, Some(queue)) => Some((queue, NamedBy::Irq)),
            (None, None) => Some((self.queue_by_order(slot, interface)?, NamedBy::Order)),
        }
    }

    fn irq(&self, slot: &SlotInfo, queue: Option<u32>) -> Option<u32> {
        let interface = self.interface(slot)?;
        let instance = self.known_instances(interface).iter().find(|known| known.id == slot.id);
        instance
            .and_then(|instance| instance.irq)
            .or_else(|| scheduling_irq(slot, interface))
            .or_else(|| self.queue_irqs.get(&(interface.index, queue?)).copied())
    }

    fn netlink_answer(&self, interface: &Interface, napi_id: u32) -> NetlinkAnswer {
        let queues = self.known_queues(interface);
        let mut polled = queues.iter().filter(|queue| queue.napi_id == Some(napi_id));
        match (polled.next(), polled.next()) {
            (Some(only), None) => NetlinkAnswer::Queue(only.queue),
            (Some(_), Some(_)) => NetlinkAnswer::NoSingleQueue,
            (None, _) if queues.is_empty() => NetlinkAnswer::Unknown,
            (None, _) if queues.iter().any(|queue| queue.napi_id.is_none()) => {
                NetlinkAnswer::Unknown
            }
            (None, _) => NetlinkAnswer::NoSingleQueue,
        }
    }

    /// RX queues from netlink; none on kernels without support and while the interface is down.
    fn known_queues(&self, interface: &Interface) -> &[RxQueue] {
        self.queues.get(&interface.index).map_or(&[], Vec::as_slice)
    }

    /// Instances from netlink; none in the same cases and for interfaces without NAPI.
    fn known_instances(&self, interface: &Interface) -> &[NapiInstance] {
        self.instances.get(&interface.index).map_or(&[], Vec::as_slice)
    }

    /// Slots of instances of `interface`, which is in our namespace.
    fn slots_of(&self, interface: &Interface) -> impl Iterator<Item = &SlotInfo> {
        self.slots.iter().filter(|slot| {
            slot.kind == SlotKind::Napi as u32
                && slot.ifindex == interface.index
                && !self.is_foreign(slot)
        })
    }

    /// Those whose instance still exists, where netlink lists the instances: after a change of
    /// channels, others have their queues and IRQs.
    fn live_slots_of(&self, interface: &Interface) -> impl Iterator<Item = &SlotInfo> {
        self.slots_of(interface).filter(|slot| self.is_live(slot, interface))
    }

    fn is_live(&self, slot: &SlotInfo, interface: &Interface) -> bool {
        let known = self.known_instances(interface);
        known.is_empty() || known.iter().any(|instance| instance.id == slot.id)
    }

    /// The queue from the instance's packets, unless another instance has it.
    fn queue_by_packets(&self, slot: &SlotInfo, interface: &Interface) -> Option<u32> {
        let queue = carried_queue(slot, interface)?;
        (!self.is_taken(queue, slot, interface)).then_some(queue)
    }

    /// The queue from the IRQ that scheduled the instance, unless another instance has it. Of an
    /// instance that is gone, the IRQ may serve another queue now.
    fn queue_by_irq(&self, slot: &SlotInfo, interface: &Interface) -> Option<u32> {
        if !self.is_live(slot, interface) {
            return None;
        }
        let queue = self.queue_of_irq(slot, interface)?;
        (!self.is_taken(queue, slot, interface)).then_some(queue)
    }

    /// The RX queue that the IRQ that scheduled the instance serves, by its name.
    fn queue_of_irq(&self, slot: &SlotInfo, interface: &Interface) -> Option<u32> {
        let irq = scheduling_irq(slot, interface)?;
        let mut queues = self.queue_irqs_of(interface).filter(|(_, other)| *other == irq);
        let only = queues.next().filter(|_| queues.next().is_none());
        only.map(|(queue, _)| queue)
    }

    /// RX queues of `interface` whose IRQs are known by name, as `(queue, irq)`.
    fn queue_irqs_of(&self, interface: &Interface) -> impl Iterator<Item = (u32, u32)> {
        let index = interface.index;
        let range = self.queue_irqs.range((index, 0)..=(index, u32::MAX));
        range.map(|((_, queue), irq)| (*queue, *irq))
    }

    /// Whether the instance was scheduled by an IRQ of `interface` that serves no RX queue, since
    /// the IRQs of all RX queues are known.
    fn only_sends(&self, slot: &SlotInfo, interface: &Interface) -> bool {
        scheduling_irq(slot, interface).is_some_and(|irq| {
            let irqs: Vec<u32> = self.queue_irqs_of(interface).map(|(_, irq)| irq).collect();
            irqs.len() == interface.rx_queues as usize && !irqs.contains(&irq)
        })
    }

    /// Whether another instance is known to have `queue` at the same time.
    fn is_taken(&self, queue: u32, slot: &SlotInfo, interface: &Interface) -> bool {
        self.is_live(slot, interface)
            && self.facts(interface).any(|(id, known)| known == queue && id != slot.id)
    }

    /// Known queues of instances, from netlink, packets and IRQs, as `(id, queue)`.
    fn facts(&self, interface: &Interface) -> impl Iterator<Item = (u32, u32)> {
        let by_netlink = self.known_queues(interface).iter();
        let by_netlink = by_netlink.filter_map(|known| Some((known.napi_id?, known.queue)));
        let by_packets = self.live_slots_of(interface);
        let by_irqs = self.live_slots_of(interface);
        by_netlink
            .chain(
                by_packets.filter_map(move |slot| Some((slot.id, carried_queue(slot, interface)?))),
            )
            .chain(
                by_irqs
                    .filter_map(move |slot| Some((slot.id, self.queue_of_irq(slot, interface)?))),
            )
    }

    /// The queue from the position of the instance's id among those of its interface.
    fn queue_by_order(&self, slot: &SlotInfo, interface: &Interface) -> Option<u32> {
        let known = self.known_instances(interface);
        let ids: Vec<u32> = if known.is_empty() {
            self.slots_of(interface).map(|slot| slot.id).collect()
        } else {
            known.iter().map(|instance| instance.id).collect()
        };
        order::queue_of(slot.id, ids, interface.rx_queues, self.facts(interface))
    }
}

/// How often an IRQ must have been seen to schedule an instance.
const IRQ_VOTES: u32 = 3;

/// One exception in so many votes is allowed: two CPUs may write at once.
const IRQ_EXCEPTIONS: u32 = 16;

/// The hard IRQ of `interface` in whose handler the instance is scheduled.
fn scheduling_irq(slot: &SlotInfo, interface: &Interface) -> Option<u32> {
    let irq = slot.irq_seen.checked_sub(1)?;
    let is_clear = slot.irq_votes >= IRQ_VOTES
        && u64::from(slot.irq_conflicts) * u64::from(IRQ_EXCEPTIONS) <= slot.irq_votes.into();
    (is_clear && interface.msi_irqs.contains(&irq)).then_some(irq)
}

/// The RX queue that all packets of the instance carried.
///
/// Drivers of devices call `skb_record_rx_queue`, which stores the RX queue plus one, 0 meaning
/// not recorded. On software interfaces `queue_mapping` is the TX queue of the sender.
///
/// <https://elixir.bootlin.com/linux/v6.12/source/include/linux/skbuff.h>
fn carried_queue(slot: &SlotInfo, interface: &Interface) -> Option<u32> {
    if !interface.has_device || slot.rx_queue_conflicts != 0 {
        return None;
    }
    let queue_mapping = slot.rx_queue_seen.checked_sub(1)?;
    let queue = queue_mapping.checked_sub(1)?;
    (queue < interface.rx_queues).then_some(queue)
}

#[cfg(test)]
mod tests;
