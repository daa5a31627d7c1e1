//! Maps row indices to series with readable names.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use latency_common::{
    row_layout::{CpuRow, RowLayout, RowOwner},
    slot::{SlotInfo, SlotKind},
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
    kernel::maps::mmap::MmapArray,
    model::series::{Location, Queue, QueueId, Series, SeriesId, attrs::QueueAttrs},
};

/// The machine's interfaces, queues and IRQs, to name rows.
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
    /// The series of each slot; computed by [`Self::refresh`], not for each row.
    slot_series: Vec<Option<NamedRow>>,
}

/// The series of a row, with attributes of its queue.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedRow {
    /// The series.
    pub id: SeriesId,
    /// Attributes of its queue.
    pub attrs: QueueAttrs,
}

impl NamedRow {
    fn new(stage: Stage, at: Location) -> Self {
        Self { id: SeriesId { stage, at }, attrs: QueueAttrs::default() }
    }
}

impl Naming {
    /// Reads the interfaces, queues and IRQs of the machine.
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
            slot_series: Vec::new(),
        };
        naming.query_netlink();
        Ok(naming)
    }

    /// Reads the machine again, and the slots assigned so far.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn refresh(&mut self, slots: &MmapArray<SlotInfo>, assigned: usize) -> Result<()> {
        let root = std::path::Path::new("/");
        self.interfaces = interfaces::list(root)?;
        self.interrupts = Interrupts::read(root)?;
        self.query_netlink();
        self.queue_irqs = queue_irqs::queue_irqs(&self.interfaces, &self.interrupts);
        self.slots = (0..assigned.min(slots.len())).map(|slot| slots.copy(slot)).collect();
        let mut known = std::mem::take(&mut self.slot_series).into_iter();
        for (number, slot) in self.slots.iter().enumerate() {
            log::debug!(
                "evidence of slot {number}: id {}, packets {} but {}, IRQ {} in {} but {}",
                slot.id,
                slot.rx_queue_seen,
                slot.rx_queue_conflicts,
                slot.irq_seen,
                slot.irq_votes,
                slot.irq_conflicts,
            );
        }
        let name = |(number, slot)| {
            let before = known.next().flatten();
            let now = keep_queue(before.clone(), self.name_slot(slot));
            if let Some(named) = &now
                && before.is_none_or(|before| before.id != named.id)
            {
                let QueueAttrs { napi_id, irq, named_by } = named.attrs;
                log::info!(
                    "slot {number}: {}, NAPI {napi_id:?}, IRQ {irq:?}, named by {named_by:?}",
                    named.id
                );
            }
            now
        };
        self.slot_series = self.slots.iter().enumerate().map(name).collect();
        Ok(())
    }

    /// Number of known slots: those before the first one that was still being assigned.
    pub fn known_slots(&self) -> usize {
        self.slots.iter().position(|slot| slot.kind == 0).unwrap_or(self.slots.len())
    }

    /// The rows of queues whose number more evidence may tell.
    pub fn unsettled_rows(&self) -> Vec<u32> {
        let evidence = self.evidence();
        let slots = (self.layout.slot_base()..).zip(&self.slots);
        slots
            .filter(|(_, slot)| slot.kind == SlotKind::Napi as u32)
            .filter(|(_, slot)| !identity::is_settled(slot, &evidence))
            .map(|(row, _)| row)
            .collect()
    }

    /// Hard IRQs that serve the queues of `ifaces`.
    pub fn irqs_of(&self, ifaces: &[String]) -> BTreeSet<u32> {
        let mut irqs = BTreeSet::new();
        for interface in self.interfaces.iter().filter(|interface| ifaces.contains(&interface.name))
        {
            irqs.extend(interface.msi_irqs.iter().copied());
            let instances = self.instances.get(&interface.index);
            irqs.extend(instances.into_iter().flatten().filter_map(|instance| instance.irq));
        }
        irqs
    }

    /// The distributions in `rows` by name, and the rows whose names are not known yet. Rows with
    /// the same name are added up.
    pub fn name(&self, rows: Rows) -> (Vec<Series>, Rows) {
        let mut named = Vec::with_capacity(rows.len());
        let mut unknown = Rows::new();
        for (index, distribution) in rows {
            match self.series(index) {
                Some(NamedRow { id, attrs }) => named.push(Series { id, attrs, distribution }),
                None => drop(unknown.insert(index, distribution)),
            }
        }
        (add_up(named), unknown)
    }

    /// Maximum packets per poll of the row at `index`, if known.
    pub fn budget(&self, index: u32) -> Option<u32> {
        match self.layout.owner(index) {
            RowOwner::Cpu { row: CpuRow::Backlog, .. } => self.backlog_weight,
            RowOwner::Slot(slot) => {
                self.slots.get(slot as usize).map(|slot| slot.weight).filter(|weight| *weight != 0)
            }
            _ => None,
        }
    }

    /// The series of the row at `index`; `None`: a slot that is not assigned or not read yet.
    pub fn series(&self, index: u32) -> Option<NamedRow> {
        Some(match self.layout.owner(index) {
            RowOwner::Vector { cpu, vector } => {
                NamedRow::new(Stage::Softirq, Location::Vector { vector, cpu })
            }
            RowOwner::Cpu { cpu, row } => NamedRow::new(row.stage(), cpu_location(cpu, row)),
            RowOwner::Slot(slot) => self.slot_series.get(slot as usize)?.clone()?,
        })
    }

    fn name_slot(&self, slot: &SlotInfo) -> Option<NamedRow> {
        match SlotKind::try_from(slot.kind).ok()? {
            SlotKind::Napi | SlotKind::NapiWithoutId => {
                let (queue, attrs) = identity::name_queue(slot, &self.evidence());
                let id = SeriesId { stage: Stage::NapiPoll, at: Location::Queue(queue) };
                Some(NamedRow { id, attrs })
            }
            SlotKind::Irq => {
                let name = self.interrupts.name(slot.id).map(str::to_owned);
                let at = Location::Irq { number: Some(slot.id), name, cpu: slot.cpu };
                Some(NamedRow::new(Stage::Irq, at))
            }
            SlotKind::Abandoned => None,
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

    /// Kernels before 6.8 and some drivers do not answer; missing answers are left out.
    fn query_netlink(&mut self) {
        self.queues.clear();
        self.instances.clear();
        let mut directory = NetlinkDirectory::new();
        for interface in &self.interfaces {
            match directory.queues(interface.index) {
                Ok(queues) => drop(self.queues.insert(interface.index, queues)),
                Err(error) => log::debug!("{}: no queues by netlink: {error:#}", interface.name),
            }
            match directory.instances(interface.index) {
                Ok(instances) => drop(self.instances.insert(interface.index, instances)),
                Err(error) => log::debug!("{}: no NAPI by netlink: {error:#}", interface.name),
            }
        }
    }
}

/// The series in order; those with the same name are added up.
fn add_up(mut named: Vec<Series>) -> Vec<Series> {
    named.sort_by(|a, b| a.id.cmp(&b.id));
    named.dedup_by(|later, first| {
        let is_same = later.id == first.id;
        if is_same {
            first.attrs.add(later.attrs);
            first.distribution.add(&later.distribution);
        }
        is_same
    });
    named
}

fn cpu_location(cpu: u32, row: CpuRow) -> Location {
    match row {
        CpuRow::RxWait | CpuRow::NetRx | CpuRow::TcpCollapse => Location::Cpu(cpu),
        CpuRow::Backlog => Location::Queue(Queue::Backlog { cpu }),
        CpuRow::NapiOther => Location::Queue(Queue::NoSlot { cpu }),
        CpuRow::IrqOther => Location::Irq { number: None, name: None, cpu },
    }
}

/// The present name, unless only the previous one has the RX queue. An instance that is gone (fewer
/// channels, interface down) keeps its queue: its counts belong to that queue.
fn keep_queue(before: Option<NamedRow>, now: Option<NamedRow>) -> Option<NamedRow> {
    let queue_id = |row: &Option<NamedRow>| match row.as_ref().map(|row| &row.id.at) {
        Some(Location::Queue(Queue::Device { id, .. })) => Some(*id),
        _ => None,
    };
    match (queue_id(&before), queue_id(&now)) {
        (Some(QueueId::Rx(_)), Some(QueueId::Napi(_))) => before,
        _ => now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::distribution::Distribution;

    fn device(name: &str, queue: Option<u32>) -> Option<NamedRow> {
        let id = queue.map_or(QueueId::Napi(7), QueueId::Rx);
        let queue = Queue::Device { iface: name.into(), netns: None, id };
        Some(NamedRow::new(Stage::NapiPoll, Location::Queue(queue)))
    }

    #[test]
    fn rows_with_one_name_are_added_up() {
        let series = |queue, irq, durations: &[u64]| {
            let id = device("a", Some(queue)).map(|row| row.id).unwrap();
            let mut distribution = Distribution::default();
            durations.iter().for_each(|ns| distribution.record(*ns, u64::MAX, 1));
            Series { id, attrs: QueueAttrs { irq, ..Default::default() }, distribution }
        };
        // Queue 2 had another instance before a change of channels.
        let named =
            add_up(vec![series(2, None, &[5]), series(1, None, &[7]), series(2, Some(9), &[6])]);
        assert_eq!(named, [series(1, None, &[7]), series(2, Some(9), &[5, 6])]);
    }

    #[test]
    fn a_queue_that_was_known_stays_known() {
        assert_eq!(keep_queue(device("a", Some(1)), device("b", None)), device("a", Some(1)));
        assert_eq!(keep_queue(device("a", Some(1)), device("b", Some(2))), device("b", Some(2)));
        assert_eq!(keep_queue(device("a", None), device("b", None)), device("b", None));
        assert_eq!(keep_queue(None, device("a", None)), device("a", None));
    }
}
