//! From row indices to series: who a row belongs to, by the names that people use.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use anyhow::Result;
use latency_common::{
    slot::{CpuRow, RowLayout, RowOwner, SlotInfo, SlotKind},
    stage::Stage,
};

use super::{
    identity::{self, Evidence},
    snapshot::Rows,
};
use crate::{
    host::{
        cpu::interrupts::Interrupts,
        kernel,
        net::interfaces::{self, Interface},
        nic::{
            netdev::{NapiDirectory, NapiInstance, NetlinkDirectory, RxQueue},
            queue_irqs,
        },
    },
    kernel::maps::mmap::Mapped,
    model::{
        distribution::Distribution,
        series::{Owner, Queue, Series},
    },
};

/// What is known of the machine's interfaces, queues and IRQs.
pub struct Naming {
    layout: RowLayout,
    own_netns: u32,
    interfaces: Vec<Interface>,
    interrupts: Interrupts,
    queues: BTreeMap<u32, Vec<RxQueue>>,
    instances: BTreeMap<u32, Vec<NapiInstance>>,
    queue_irqs: BTreeMap<(u32, u32), u32>,
    slots: Vec<SlotInfo>,
    backlog_weight: Option<u32>,
    /// Whom each slot belongs to; made when the machine is looked at, not for each row.
    owners: Vec<Option<(Stage, Owner)>>,
}

impl Naming {
    /// Looks at the machine.
    ///
    /// # Errors
    ///
    /// When `/sys/class/net`, `/proc/interrupts` or this process's namespace cannot be read.
    pub fn new(layout: RowLayout) -> Result<Self> {
        let root = std::path::Path::new("/");
        let interfaces = interfaces::list(root)?;
        let interrupts = Interrupts::read(root)?;
        let mut naming = Self {
            layout,
            own_netns: kernel::own_netns(root)?,
            queue_irqs: queue_irqs::queue_irqs(&interfaces, &interrupts),
            interfaces,
            interrupts,
            queues: BTreeMap::new(),
            instances: BTreeMap::new(),
            slots: Vec::new(),
            backlog_weight: kernel::backlog_weight(root),
            owners: Vec::new(),
        };
        naming.ask_netlink();
        Ok(naming)
    }

    /// Looks at the machine again, and takes over the slots that were handed out meanwhile.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn refresh(&mut self, slots: &Mapped<SlotInfo>, handed_out: usize) -> Result<()> {
        let root = std::path::Path::new("/");
        self.interfaces = interfaces::list(root)?;
        self.interrupts = Interrupts::read(root)?;
        self.ask_netlink();
        self.queue_irqs = queue_irqs::queue_irqs(&self.interfaces, &self.interrupts);
        self.slots = (0..handed_out.min(slots.len())).map(|slot| slots.copy(slot)).collect();
        let mut known = std::mem::take(&mut self.owners).into_iter();
        self.owners = self
            .slots
            .iter()
            .map(|slot| keep_queue(known.next().flatten(), self.slot_owner(slot)))
            .collect();
        Ok(())
    }

    /// Slots that are known: those before the first that was being handed out.
    pub fn known_slots(&self) -> usize {
        self.slots.iter().position(|slot| slot.kind == 0).unwrap_or(self.slots.len())
    }

    /// Whether the packets of some queue could still tell which it is.
    pub fn is_unsettled(&self) -> bool {
        let evidence = self.evidence();
        self.slots
            .iter()
            .filter(|slot| slot.kind == SlotKind::Napi as u32)
            .any(|slot| !identity::is_settled(slot, &evidence))
    }

    /// Hard IRQs that serve the queues of `ifaces`.
    pub fn irqs_of(&self, ifaces: &[String]) -> BTreeSet<u32> {
        let mut irqs = BTreeSet::new();
        for interface in self.interfaces.iter().filter(|one| ifaces.contains(&one.name)) {
            irqs.extend(interface.msi_irqs.iter().copied());
            let instances = self.instances.get(&interface.index);
            irqs.extend(instances.into_iter().flatten().filter_map(|one| one.irq));
        }
        irqs
    }

    /// The distributions in `rows` under their names, and the rows whose names are not known yet.
    /// Rows that share a name are added up.
    pub fn name(&self, rows: Rows) -> (Vec<(Series, Distribution)>, Rows) {
        let mut named: BTreeMap<Series, Distribution> = BTreeMap::new();
        let mut unknown = Rows::new();
        for (index, row) in rows {
            let Some(series) = self.series(index) else {
                unknown.insert(index, row);
                continue;
            };
            match named.entry(series) {
                Entry::Vacant(place) => {
                    place.insert(row);
                }
                Entry::Occupied(mut place) => place.get_mut().add(&row),
            }
        }
        (named.into_iter().collect(), unknown)
    }

    /// Packets that a poll of the row at `index` may process, as far as it is known.
    pub fn budget(&self, index: u32) -> Option<u32> {
        match self.layout.owner(index) {
            RowOwner::Cpu { row: CpuRow::Backlog, .. } => self.backlog_weight,
            RowOwner::Slot(slot) => {
                self.slots.get(slot as usize).map(|slot| slot.weight).filter(|weight| *weight != 0)
            }
            _ => None,
        }
    }

    /// Whose row is at `index`; `None`: a slot that was not handed out, or not looked at yet.
    pub fn series(&self, index: u32) -> Option<Series> {
        let (stage, owner) = match self.layout.owner(index) {
            RowOwner::Vector { cpu, vector } => (Stage::Softirq, Owner::Vector { vector, cpu }),
            RowOwner::Cpu { cpu, row } => (row.stage(), self.cpu_owner(cpu, row)),
            RowOwner::Slot(slot) => self.owners.get(slot as usize)?.clone()?,
        };
        Some(Series { stage, owner })
    }

    fn cpu_owner(&self, cpu: u32, row: CpuRow) -> Owner {
        match row {
            CpuRow::RxWait | CpuRow::NetRx | CpuRow::TcpCollapse => Owner::Cpu(cpu),
            CpuRow::Backlog => Owner::Queue(Queue::Backlog { cpu }),
            CpuRow::NapiOther => Owner::Queue(Queue::NoSlot { cpu }),
            CpuRow::IrqOther => Owner::Irq { number: None, name: None, cpu },
        }
    }

    fn slot_owner(&self, slot: &SlotInfo) -> Option<(Stage, Owner)> {
        match SlotKind::try_from(slot.kind).ok()? {
            SlotKind::Napi | SlotKind::NapiWithoutId => {
                let queue = identity::name_queue(slot, &self.evidence());
                Some((Stage::NapiPoll, Owner::Queue(queue)))
            }
            SlotKind::Irq => {
                let name = self.interrupts.name(slot.id).map(str::to_owned);
                Some((Stage::Irq, Owner::Irq { number: Some(slot.id), name, cpu: slot.cpu }))
            }
            SlotKind::Nothing => None,
        }
    }

    fn evidence(&self) -> Evidence<'_> {
        Evidence {
            own_netns: self.own_netns,
            interfaces: &self.interfaces,
            queues: &self.queues,
            instances: &self.instances,
            queue_irqs: &self.queue_irqs,
            slots: &self.slots,
        }
    }

    /// Kernels before 6.8 cannot answer, and some drivers do not: what is missing stays missing.
    fn ask_netlink(&mut self) {
        self.queues.clear();
        self.instances.clear();
        let mut directory = NetlinkDirectory::new();
        for interface in &self.interfaces {
            if let Ok(queues) = directory.queues(interface.index) {
                self.queues.insert(interface.index, queues);
            }
            if let Ok(instances) = directory.instances(interface.index) {
                self.instances.insert(interface.index, instances);
            }
        }
    }
}

/// The owner of today, unless only the one before said which RX queue it is. An instance that is
/// gone (fewer channels, interface down) keeps its queue: what it counted was that queue's.
fn keep_queue(
    before: Option<(Stage, Owner)>,
    now: Option<(Stage, Owner)>,
) -> Option<(Stage, Owner)> {
    let lost = matches!(now, Some((_, Owner::Queue(Queue::Device { queue: None, .. }))));
    match before {
        Some((_, Owner::Queue(Queue::Device { queue: Some(_), .. }))) if lost => before,
        _ => now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, queue: Option<u32>) -> Option<(Stage, Owner)> {
        let queue = Queue::Device { iface: name.into(), netns: None, queue, napi_id: 7, irq: None };
        Some((Stage::NapiPoll, Owner::Queue(queue)))
    }

    #[test]
    fn a_queue_that_was_known_stays_known() {
        assert_eq!(keep_queue(device("a", Some(1)), device("b", None)), device("a", Some(1)));
        assert_eq!(keep_queue(device("a", Some(1)), device("b", Some(2))), device("b", Some(2)));
        assert_eq!(keep_queue(device("a", None), device("b", None)), device("b", None));
        assert_eq!(keep_queue(None, device("a", None)), device("a", None));
    }
}
