//! Tests of naming: all kinds of hosts, and the queue numbers that their instances must get.

use latency_common::slot::IFNAMSIZ;

use super::*;

const OWN: u32 = 4_026_531_840;
const FOREIGN: u32 = 4_026_532_211;
/// Index of the interface under test, in our namespace and in the foreign one.
const INDEX: u32 = 3;

fn interface(name: &str, rx_queues: u32, has_device: bool) -> Interface {
    let msi_irqs = (30..40).collect();
    let name = name.into();
    Interface { name, index: INDEX, rx_queues, has_device, msi_irqs, ..Interface::default() }
}

/// A slot of our namespace whose packets carried `queue_mapping`.
fn slot(id: u32, queue_mapping: Option<u32>) -> SlotInfo {
    let mut name = [0; IFNAMSIZ];
    name[..4].copy_from_slice(b"old0");
    SlotInfo {
        kind: SlotKind::Napi as u32,
        id,
        netns: OWN,
        ifindex: INDEX,
        rx_queue_seen: queue_mapping.map_or(0, |mapping| mapping + 1),
        name,
        ..SlotInfo::default()
    }
}

/// A slot that IRQ `irq` scheduled `votes` times, and another one `conflicts` times.
fn scheduled(slot: SlotInfo, irq: u32, votes: u32, conflicts: u32) -> SlotInfo {
    SlotInfo { irq_seen: irq + 1, irq_votes: votes, irq_conflicts: conflicts, ..slot }
}

fn conflicting(slot: SlotInfo) -> SlotInfo {
    SlotInfo { rx_queue_conflicts: 1, ..slot }
}

/// One host and the queue numbers that its slots must get.
struct Case {
    name: &'static str,
    interface: Interface,
    /// `queue-get`: the NAPI id of each RX queue; empty: not queried.
    netlink_queues: Vec<Option<u32>>,
    /// `napi-get`; empty: not queried.
    netlink_instances: Vec<u32>,
    /// IRQs by RX queue, from their names.
    queue_irqs: Vec<(u32, u32)>,
    slots: Vec<SlotInfo>,
    expected: Vec<Option<u32>>,
    settled: Vec<bool>,
}

impl Case {
    fn check(&self) {
        let queues = (0..)
            .zip(&self.netlink_queues)
            .map(|(queue, napi_id)| RxQueue { queue, napi_id: *napi_id })
            .collect();
        let instances =
            self.netlink_instances.iter().map(|id| NapiInstance { id: *id, irq: None }).collect();
        let evidence = Evidence {
            own_netns: OWN,
            interfaces: std::slice::from_ref(&self.interface),
            queues: &BTreeMap::from([(INDEX, queues)]),
            instances: &BTreeMap::from([(INDEX, instances)]),
            queue_irqs: &self.queue_irqs.iter().map(|(q, irq)| ((INDEX, *q), *irq)).collect(),
            slots: &self.slots,
        };
        let number = |slot: &SlotInfo| match name_queue(slot, &evidence).0 {
            Queue::Device { id: QueueId::Rx(number), .. } => Some(number),
            Queue::Device { id: QueueId::Napi(_), .. } => None,
            other => panic!("{}: {other:?}", self.name),
        };
        let named: Vec<_> = self.slots.iter().map(number).collect();
        assert_eq!(named, self.expected, "{}", self.name);
        let settled: Vec<_> = self.slots.iter().map(|slot| is_settled(slot, &evidence)).collect();
        assert_eq!(settled, self.settled, "{}: settled", self.name);
    }
}

fn virtio(name: &'static str, rx_queues: u32, slots: Vec<SlotInfo>) -> Case {
    Case {
        name,
        interface: interface("eth0", rx_queues, true),
        netlink_queues: Vec::new(),
        netlink_instances: Vec::new(),
        queue_irqs: Vec::new(),
        expected: vec![None; slots.len()],
        settled: vec![true; slots.len()],
        slots,
    }
}

fn veth(name: &'static str, rx_queues: u32, slots: Vec<SlotInfo>) -> Case {
    Case { interface: interface("va", rx_queues, false), ..virtio(name, rx_queues, slots) }
}

#[test]
fn netlink_names_the_queue() {
    let plain = vec![slot(9, None), slot(8, None)];
    Case {
        netlink_queues: vec![Some(8), Some(9)],
        netlink_instances: vec![9, 8],
        expected: vec![Some(1), Some(0)],
        ..virtio("virtio with queue-get", 2, plain)
    }
    .check();
    Case {
        netlink_queues: vec![Some(8), Some(9)],
        expected: vec![Some(1)],
        ..virtio("netlink takes precedence over packets", 2, vec![slot(9, Some(1))])
    }
    .check();
    Case {
        netlink_queues: vec![Some(8), Some(8)],
        netlink_instances: vec![8, 9],
        ..virtio("an instance of several queues has no number", 2, vec![slot(8, None)])
    }
    .check();
    Case {
        netlink_queues: vec![Some(8), Some(9)],
        ..virtio("others poll all RX queues", 2, vec![slot(10, None), slot(11, Some(1))])
    }
    .check();
    Case {
        netlink_queues: vec![None, Some(9)],
        expected: vec![Some(0)],
        ..virtio("netlink knows some queues", 2, vec![slot(10, Some(1))])
    }
    .check();
}

#[test]
fn packets_name_the_queue() {
    Case { expected: vec![Some(1)], ..virtio("only queue 1 seen", 4, vec![slot(8, Some(2))]) }
        .check();
    Case {
        expected: vec![Some(3), Some(0)],
        ..virtio("ids out of order", 4, vec![slot(8, Some(4)), slot(9, Some(1))])
    }
    .check();
    Case {
        expected: vec![None, Some(2)],
        settled: vec![false, true],
        ..virtio("one not seen yet", 4, vec![slot(8, None), slot(9, Some(3))])
    }
    .check();
    virtio("queue_mapping 0: not recorded", 4, vec![slot(8, Some(0))]).check();
    virtio("beyond the last RX queue", 4, vec![slot(8, Some(5))]).check();
    virtio("packets of several queues", 4, vec![conflicting(slot(8, Some(2)))]).check();
    virtio("two claim one queue", 4, vec![slot(8, Some(2)), slot(9, Some(2))]).check();
    Case {
        netlink_queues: vec![None, Some(7), None, None],
        ..virtio("netlink gives the queue to another", 4, vec![slot(8, Some(2))])
    }
    .check();
    veth("veth: the sender's TX queue", 4, vec![slot(8, Some(2))]).check();
}

#[test]
fn order_names_the_queue() {
    let four = vec![slot(258, Some(3)), slot(259, None), slot(260, Some(0)), slot(261, None)];
    let numbers = vec![Some(0), Some(1), Some(2), Some(3)];
    Case {
        netlink_queues: vec![None; 4],
        netlink_instances: vec![261, 260, 259, 258],
        expected: numbers.clone(),
        ..veth("veth lists its instances in falling order", 4, four.clone())
    }
    .check();
    Case {
        netlink_instances: vec![261, 260, 259, 258],
        expected: vec![Some(2)],
        ..veth("one slot seen, all instances listed", 4, vec![slot(260, None)])
    }
    .check();
    Case { expected: numbers, ..veth("no netlink, all slots seen", 4, four.clone()) }.check();
    veth("no netlink, one slot missing", 4, four[..3].to_vec()).check();
    veth("no netlink, one slot too many", 3, four.clone()).check();
    Case {
        netlink_instances: vec![258, 259, 260, 261, 262],
        ..veth("netlink lists an instance without a queue", 4, four.clone())
    }
    .check();
    Case {
        netlink_instances: vec![358, 359, 360, 361],
        ..veth("slots of instances that were replaced", 4, four)
    }
    .check();
    Case {
        expected: vec![Some(0), Some(1)],
        ..virtio("packets agree with order", 2, vec![slot(8, None), slot(9, Some(2))])
    }
    .check();
    Case {
        expected: vec![None, Some(0)],
        settled: vec![false, true],
        ..virtio("packets contradict order", 2, vec![slot(8, None), slot(9, Some(1))])
    }
    .check();
    let claims = vec![slot(8, Some(2)), slot(9, Some(2))];
    virtio("two claim one queue, so order is in doubt too", 2, claims).check();
    let mixed = vec![conflicting(slot(8, Some(2))), slot(9, Some(0))];
    Case { expected: vec![Some(0), Some(1)], ..virtio("packets are inconclusive", 2, mixed) }
        .check();
}

#[test]
fn packets_are_watched_while_they_can_help() {
    let waiting = vec![slot(8, None)];
    Case { settled: vec![false], ..virtio("a device", 2, waiting.clone()) }.check();
    veth("no device", 2, waiting.clone()).check();
    let foreign = SlotInfo { netns: FOREIGN, ..waiting[0] };
    virtio("another namespace", 2, vec![foreign]).check();
    let gone = SlotInfo { ifindex: 99, ..waiting[0] };
    virtio("an interface that is gone", 2, vec![gone]).check();
}

/// Everything known of a virtio interface with two queues and their IRQs.
fn name(slot: &SlotInfo) -> (Queue, QueueAttrs) {
    let queues = [8, 9].into_iter().zip(0..);
    let queues = queues.map(|(id, queue)| RxQueue { queue, napi_id: Some(id) }).collect::<Vec<_>>();
    let instances = vec![NapiInstance { id: 8, irq: Some(38) }, NapiInstance { id: 9, irq: None }];
    let evidence = Evidence {
        own_netns: OWN,
        interfaces: &[interface("eth0", 2, true)],
        queues: &BTreeMap::from([(INDEX, queues)]),
        instances: &BTreeMap::from([(INDEX, instances)]),
        queue_irqs: &BTreeMap::from([((INDEX, 0), 70), ((INDEX, 1), 71)]),
        slots: &[*slot],
    };
    name_queue(slot, &evidence)
}

fn device(iface: &str, netns: Option<u32>, queue: Option<u32>, id: u32) -> Queue {
    let id = queue.map_or(QueueId::Napi(id), QueueId::Rx);
    Queue::Device { iface: iface.into(), netns, id }
}

#[test]
fn irq_comes_from_netlink_or_else_from_its_name() {
    for (id, expected) in [(8, Some(38)), (9, Some(71)), (10, None)] {
        let (_, attrs) = name(&slot(id, None));
        assert_eq!((attrs.napi_id, attrs.irq), (Some(id), expected), "NAPI {id}");
    }
}

#[test]
fn evidence_does_not_apply_to_other_namespaces() {
    let foreign = SlotInfo { netns: FOREIGN, ..slot(8, Some(1)) };
    assert_eq!(name(&foreign).0, device("old0", Some(FOREIGN), None, 8));
    // Slots of another namespace do not complete an order either.
    let slots = vec![slot(8, None), SlotInfo { netns: FOREIGN, ..slot(9, None) }];
    veth("order within a namespace", 2, slots).check();
}

#[test]
fn current_interface_name_is_preferred() {
    let unknown_netns = SlotInfo { netns: 0, ..slot(10, None) };
    assert_eq!(name(&unknown_netns).0, device("eth0", None, None, 10));
    let gone = SlotInfo { ifindex: 99, ..slot(10, None) };
    assert_eq!(name(&gone).0, device("old0", None, None, 10));
    let full = SlotInfo { name: *b"abcdefghijklmnop", ..gone };
    assert_eq!(name(&full).0, device("abcdefghijklmnop", None, None, 10));
    let nameless = SlotInfo { name: [0; IFNAMSIZ], ..gone };
    assert_eq!(name(&nameless).0, device("ifindex-99", None, None, 10));
}

#[test]
fn instances_without_an_id_keep_their_cpu() {
    let kind = SlotKind::NapiWithoutId as u32;
    let own = SlotInfo { kind, id: INDEX, cpu: 5, ..slot(0, None) };
    let expected = Queue::WithoutId { iface: "eth0".into(), netns: None, cpu: 5 };
    assert_eq!(name(&own).0, expected);
    let foreign = SlotInfo { netns: FOREIGN, ..own };
    let expected = Queue::WithoutId { iface: "old0".into(), netns: Some(FOREIGN), cpu: 5 };
    assert_eq!(name(&foreign).0, expected);
}

/// The vectors of igb: `eth2` for the link, then receiving, then sending.
#[test]
fn irqs_name_the_queue() {
    let vectors = vec![(0, 31), (1, 32)];
    let receiving =
        vec![scheduled(slot(8206, None), 32, 3, 0), scheduled(slot(8205, None), 31, 9, 0)];
    Case {
        netlink_instances: vec![8208, 8207, 8206, 8205],
        queue_irqs: vectors.clone(),
        expected: vec![Some(1), Some(0)],
        ..virtio("igb: the IRQ in whose handler the instance was scheduled", 2, receiving)
    }
    .check();
    Case {
        queue_irqs: vectors.clone(),
        expected: vec![None],
        ..virtio("igb: an instance that only sends", 2, vec![scheduled(slot(8207, None), 33, 7, 0)])
    }
    .check();
    let case = |name, slot, expected, settled| Case {
        queue_irqs: vectors.clone(),
        expected: vec![expected],
        settled: vec![settled],
        ..virtio(name, 2, vec![slot])
    };
    let replaced =
        vec![scheduled(slot(8198, Some(2)), 32, 99, 0), scheduled(slot(8206, None), 32, 3, 0)];
    Case {
        netlink_instances: vec![8208, 8207, 8206, 8205],
        queue_irqs: vectors.clone(),
        expected: vec![Some(1); 2],
        ..virtio("igb after a change of channels: the old instance is gone", 2, replaced.clone())
    }
    .check();
    Case {
        netlink_instances: vec![8198, 8206],
        queue_irqs: vectors.clone(),
        settled: vec![true, false],
        ..virtio("two live instances of one IRQ", 2, replaced)
    }
    .check();
    let plain = || slot(8206, None);
    case("too few votes", scheduled(plain(), 32, 2, 0), None, false).check();
    case("votes for two IRQs", scheduled(plain(), 32, 31, 2), None, false).check();
    case("one stray vote", scheduled(plain(), 32, 32, 2), Some(1), true).check();
    case("an IRQ of another device", scheduled(plain(), 77, 9, 0), None, false).check();
    case("packets agree", scheduled(slot(8206, Some(2)), 32, 9, 0), Some(1), true).check();
    case("packets contradict", scheduled(slot(8206, Some(1)), 32, 9, 0), None, true).check();
}
