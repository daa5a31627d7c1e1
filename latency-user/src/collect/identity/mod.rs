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
    model::series::{Queue, QueueId, attrs::QueueAttrs},
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
    let queue = evidence.queue(slot);
    let id = queue.map_or(QueueId::Napi(slot.id), QueueId::Rx);
    let attrs = QueueAttrs { napi_id: Some(slot.id), irq: evidence.irq(slot, queue) };
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
        NetlinkAnswer::Unknown => evidence.queue(slot).is_some(),
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

    fn queue(&self, slot: &SlotInfo) -> Option<u32> {
        let interface = self.interface(slot)?;
        match self.netlink_answer(interface, slot.id) {
            NetlinkAnswer::Queue(queue) => Some(queue),
            NetlinkAnswer::NoSingleQueue => None,
            NetlinkAnswer::Unknown => self
                .queue_by_packets(slot, interface)
                .or_else(|| self.queue_by_order(slot, interface)),
        }
    }

    fn irq(&self, slot: &SlotInfo, queue: Option<u32>) -> Option<u32> {
        let interface = self.interface(slot)?;
        let instance = self.known_instances(interface).iter().find(|known| known.id == slot.id);
        instance
            .and_then(|instance| instance.irq)
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

    /// The queue from the instance's packets, unless another instance has it.
    fn queue_by_packets(&self, slot: &SlotInfo, interface: &Interface) -> Option<u32> {
        let queue = carried_queue(slot, interface)?;
        let is_taken = |(id, known): (u32, u32)| known == queue && id != slot.id;
        (!self.facts(interface).any(is_taken)).then_some(queue)
    }

    /// Known queues of instances, from netlink and packets, as `(id, queue)`.
    fn facts(&self, interface: &Interface) -> impl Iterator<Item = (u32, u32)> {
        let by_netlink = self.known_queues(interface).iter();
        let by_netlink = by_netlink.filter_map(|known| Some((known.napi_id?, known.queue)));
        let by_packets = self.slots_of(interface);
        by_netlink.chain(
            by_packets.filter_map(move |slot| Some((slot.id, carried_queue(slot, interface)?))),
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
