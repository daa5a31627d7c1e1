//! Which hard IRQ serves which RX queue, derived from the names that drivers give their IRQs.
//!
//! For kernels and drivers that do not report it over netlink. A name counts only when it matches a
//! scheme that is known to number RX queues; a guess would send an operator to the wrong CPU.

use std::collections::BTreeMap;

use crate::host::{cpu::interrupts::Interrupts, net::interfaces::Interface};

/// What precedes the number in names of IRQs that serve an RX queue: `eth0-TxRx-3`, `ens5-Tx-Rx-2`,
/// `eth0-rx-1`.
const RX_ENDS: [&str; 4] = ["-txrx-", "-tx-rx-", "-rxtx-", "-rx-"];

/// The IRQ of each `(interface index, RX queue)` for which exactly one IRQ matches.
pub fn queue_irqs(interfaces: &[Interface], interrupts: &Interrupts) -> BTreeMap<(u32, u32), u32> {
    let mut found = BTreeMap::new();
    for interface in interfaces {
        let others: Vec<&str> = interfaces
            .iter()
            .filter(|other| other.index != interface.index)
            .map(|other| other.name.as_str())
            .collect();
        for (queue, irq) in of_interface(interface, &others, interrupts) {
            found.insert((interface.index, queue), irq);
        }
    }
    found
}

fn of_interface(
    interface: &Interface,
    others: &[&str],
    interrupts: &Interrupts,
) -> BTreeMap<u32, u32> {
    let mut matching: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for &irq in &interface.msi_irqs {
        let Some(name) = interrupts.name(irq) else { continue };
        if let Some(queue) = rx_queue(name, interface, others) {
            matching.entry(queue).or_default().push(irq);
        }
    }
    // A driver that starts at 1 numbers its vectors, not its queues (tg3's `eth0-rx-1` is queue 0).
    if !matching.contains_key(&0) {
        return BTreeMap::new();
    }
    matching
        .into_iter()
        .filter(|(queue, _)| *queue < interface.rx_queues)
        .filter_map(|(queue, irqs)| match irqs[..] {
            [irq] => Some((queue, irq)),
            _ => None,
        })
        .collect()
}

/// The RX queue of `interface` that an IRQ of its device with this name serves.
fn rx_queue(name: &str, interface: &Interface, others: &[&str]) -> Option<u32> {
    // mlx5 and others append the address: `mlx5_comp3@pci:0000:01:00.0`.
    let name = name.split('@').next().unwrap_or(name);
    // A device with one queue and one IRQ does not number it.
    if name == interface.name && interface.msi_irqs.len() == 1 && interface.rx_queues == 1 {
        return Some(0);
    }
    let head = name.trim_end_matches(|character: char| character.is_ascii_digit());
    let queue = name[head.len()..].parse().ok()?;
    let fits = head == "mlx5_comp"
        || is_virtio_input(head)
        || head.strip_suffix('-') == Some(interface.name.as_str())
        || rx_prefix(head).is_some_and(|prefix| !others.iter().any(|other| names(prefix, other)));
    fits.then_some(queue)
}

/// `virtio1-input.`
fn is_virtio_input(head: &str) -> bool {
    head.strip_prefix("virtio")
        .and_then(|rest| rest.strip_suffix("-input."))
        .is_some_and(|number| number.parse::<u32>().is_ok())
}

/// The part of a name before one of [`RX_ENDS`].
fn rx_prefix(head: &str) -> Option<&str> {
    RX_ENDS.iter().find_map(|end| {
        let at = head.len().checked_sub(end.len())?;
        let (prefix, tail) = head.split_at_checked(at)?;
        tail.eq_ignore_ascii_case(end).then_some(prefix)
    })
}

/// Whether a prefix such as `eth0` or `i40e-eth0` names an interface: a device may have several
/// interfaces, and its list then contains the IRQs of all.
fn names(prefix: &str, interface: &str) -> bool {
    prefix.strip_suffix(interface).is_some_and(|rest| rest.is_empty() || rest.ends_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::cpu::interrupts::Interrupt;

    fn interface(name: &str, index: u32, rx_queues: u32, msi_irqs: &[u32]) -> Interface {
        let msi_irqs = msi_irqs.to_vec();
        let name = name.into();
        let lower = Some(Vec::new());
        Interface {
            name,
            index,
            rx_queues,
            tx_queues: rx_queues,
            has_device: true,
            msi_irqs,
            lower,
        }
    }

    /// A table of IRQs with these names, numbered from 30.
    fn interrupts(names: &[&str]) -> Interrupts {
        let line = |(number, name): (u32, &&str)| Interrupt {
            number: Some(number),
            label: number.to_string(),
            counts: Vec::new(),
            name: name.to_string(),
        };
        Interrupts { lines: (30..).zip(names).map(line).collect(), ..Interrupts::default() }
    }

    /// Queues and IRQs found for one interface `eth0` with `rx_queues` that has all the IRQs.
    fn found(rx_queues: u32, names: &[&str]) -> Vec<(u32, u32)> {
        let irqs: Vec<u32> = (30..30 + names.len() as u32).collect();
        let interfaces = [interface("eth0", 2, rx_queues, &irqs)];
        let found = queue_irqs(&interfaces, &interrupts(names));
        found.into_iter().map(|((_, queue), irq)| (queue, irq)).collect()
    }

    #[test]
    fn schemes_of_drivers_that_number_their_queues() {
        let two = [(0, 31), (1, 32)];
        let cases: [[&str; 3]; 9] = [
            ["eth0", "eth0-TxRx-0", "eth0-TxRx-1"],
            ["eth0-event-2", "eth0-rxtx-0", "eth0-rxtx-1"],
            ["ena-mgmnt@pci:0000:00:05.0", "ens5-Tx-Rx-0", "ens5-Tx-Rx-1"],
            ["i40e-0000:01:00.0:misc", "i40e-eth0-TxRx-0", "i40e-eth0-TxRx-1"],
            ["eth0-tx-0", "eth0-rx-0", "eth0-rx-1"],
            ["eth0-async", "eth0-0", "eth0-1"],
            ["mlx5_async0@pci:0000:01:00.0", "mlx5_comp0@pci:0000:01:00.0", "mlx5_comp1@pci:0"],
            ["mlx5_async", "mlx5_comp0", "mlx5_comp1"],
            ["virtio1-config", "virtio1-input.0", "virtio1-input.1"],
        ];
        for names in cases {
            assert_eq!(found(2, &names), two, "{names:?}");
        }
    }

    #[test]
    fn transmit_and_control_never_count() {
        let names = [
            "virtio1-config",
            "virtio1-input.0",
            "virtio1-output.0",
            "virtio1-input.1",
            "virtio1-output.1",
            "virtio1-control",
        ];
        assert_eq!(found(2, &names), [(0, 31), (1, 33)]);
        for name in [
            "virtio1-output.0",
            "virtio1-virtqueues",
            "virtio3-rx",
            "eth0-tx-0",
            "eth0-Rx-Tx-0",
            "eth0-async-0",
            "eth0-config-0",
            "eth0-control",
            "mlx5_async0@pci:0000:01:00.0",
            "mlx5_compx0",
            "nvme0q0",
            "nvme-rx0",
            "eth1-0",
            "eth0-rx-",
            "rx-0",
            "0",
            "eth0-rx-99999999999",
            "é-rx",
            "eth0-rx-0, eth0-tx-0",
        ] {
            assert_eq!(found(4, &[name, "other"]), [], "{name}");
        }
    }

    #[test]
    fn two_irqs_for_a_queue_leave_it_without_answer() {
        let names = ["eth0-rx-0", "eth0-TxRx-0", "eth0-rx-1"];
        assert_eq!(found(2, &names), [(1, 32)]);
    }

    #[test]
    fn queues_out_of_use_are_left_out() {
        assert_eq!(found(1, &["virtio1-input.0", "virtio1-input.1"]), [(0, 30)]);
        assert_eq!(found(0, &["virtio1-input.0"]), []);
    }

    #[test]
    fn numbers_that_start_at_one_are_vectors_not_queues() {
        assert_eq!(found(4, &["eth0-tx-0", "eth0-rx-1", "eth0-rx-2", "eth0-rx-3"]), []);
    }

    #[test]
    fn an_irq_without_a_number_serves_a_device_of_one_queue_and_one_irq() {
        assert_eq!(found(1, &["eth0"]), [(0, 30)]);
        assert_eq!(found(2, &["eth0"]), []);
        assert_eq!(found(1, &["eth0", "other"]), []);
    }

    #[test]
    fn interfaces_of_one_device_are_distinguished_by_name() {
        let irqs = [30, 31, 32, 33];
        let interfaces = [interface("eth0", 2, 2, &irqs), interface("eth1", 3, 2, &irqs)];
        let names = ["eth0-rx-0", "eth0-rx-1", "nic-eth1-rx-0", "nic-eth1-rx-1"];
        let found = queue_irqs(&interfaces, &interrupts(&names));
        let expected = [((2, 0), 30), ((2, 1), 31), ((3, 0), 32), ((3, 1), 33)];
        assert_eq!(found, BTreeMap::from(expected));
    }

    #[test]
    fn irqs_of_other_devices_do_not_count() {
        let interfaces = [interface("eth0", 2, 2, &[40, 41])];
        assert!(queue_irqs(&interfaces, &interrupts(&["virtio1-input.0"])).is_empty());
    }
}
