//! Number of slots of a run, estimated from the queues and IRQs of the machine.

use std::path::Path;

use anyhow::Result;
use latency_common::row::HistogramRow;

use crate::{
    host::{
        cpu::interrupts::Interrupts,
        net::interfaces::{self, Interface},
    },
    model::failure::Failure,
};

/// Spare slots on every machine, for what cannot be estimated.
const SPARE: u64 = 64;

/// Lower bound of the memory limit, slots.
const MIN_LIMIT: u64 = 256;

/// Upper bound of the memory limit, slots: 120 MiB.
const MAX_LIMIT: u64 = 8192;

/// Slots may take 1 / `MEMORY_PART` of the memory.
const MEMORY_PART: u64 = 256;

/// Slots for this machine.
///
/// # Errors
///
/// When the interfaces or IRQs of the machine cannot be read.
pub fn needed_here(root: &Path, cpus: u32) -> Result<u32> {
    Ok(needed(cpus, &interfaces::list(root)?, &Interrupts::read(root)?, memory()))
}

/// Checks that slots which were asked for fit the memory of this machine.
///
/// # Errors
///
/// When their rows would take more than an eighth of it.
pub fn check(slots: u32) -> Result<u32, Failure> {
    let row = size_of::<HistogramRow>() as u64;
    let most = memory() / 8 / row;
    if u64::from(slots) > most && most > 0 {
        let needed = (u64::from(slots) * row) >> 20;
        return Err(Failure::new(format!("{slots} slots would take {needed} MiB of memory"))
            .hint(format!("--slots takes up to {most} here, an eighth of the memory")));
    }
    Ok(slots)
}

/// Slots for a machine with these possible CPUs, interfaces, IRQs and bytes of memory.
///
/// Twice the present need: queues and IRQs can appear while tracing (interface up, more channels).
/// An IRQ takes a slot on each CPU that handles it. `irqbalance` or an administrator may move it:
/// its past counts show to how many CPUs. Without a slot, events go into catch-all rows.
fn needed(cpus: u32, interfaces: &[Interface], interrupts: &Interrupts, memory: u64) -> u32 {
    let cpus = u64::from(cpus);
    let queues: u64 = interfaces.iter().map(|interface| u64::from(interface.rx_queues)).sum();
    // Transmit-only instances have no id, and take a slot on each CPU that polls them.
    let devices = interfaces.iter().filter(|interface| interface.has_device);
    let without_id: u64 = devices.map(|device| u64::from(device.tx_queues).min(cpus)).sum();
    let irqs = interrupts.lines.iter().filter(|line| line.number.is_some());
    let irq_slots: u64 = irqs
        .map(|irq| {
            let handled = irq.counts.iter().filter(|count| **count != 0).count() as u64;
            (2 * handled.max(1)).min(cpus.max(2))
        })
        .sum();
    let wanted = 2 * queues + without_id + irq_slots + SPARE;
    let affordable = memory / MEMORY_PART / size_of::<HistogramRow>() as u64;
    wanted.min(affordable.clamp(MIN_LIMIT, MAX_LIMIT)) as u32
}

/// Memory of the machine, bytes; 0 if the kernel does not report it.
fn memory() -> u64 {
    // SAFETY: the calls take no pointers.
    let (pages, size) =
        unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
    u64::try_from(pages).unwrap_or(0).saturating_mul(u64::try_from(size).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn nic(queues: u32) -> Interface {
        Interface {
            name: "eth0".into(),
            rx_queues: queues,
            tx_queues: queues,
            has_device: true,
            ..Interface::default()
        }
    }

    /// A table with an IRQ for each of 64 queues, each handled by the first `handled` of `cpus`.
    fn interrupts(cpus: usize, handled: usize) -> Interrupts {
        let mut text = (0..cpus).map(|cpu| format!(" CPU{cpu}")).collect::<String>();
        for queue in 0..64 {
            let counts: String =
                (0..cpus).map(|cpu| if cpu < handled { " 17" } else { " 0" }).collect();
            text.push_str(&format!("\n{}:{counts} PCI-MSI {queue}-edge eth0-{queue}", 100 + queue));
        }
        text.push_str(&format!("\nLOC:{} Local timer interrupts\n", " 9".repeat(cpus)));
        Interrupts::parse(Path::new("interrupts"), &text).unwrap()
    }

    #[test]
    fn irqs_that_move_get_a_slot_on_each_cpu() {
        let still = needed(256, &[nic(64)], &interrupts(256, 1), 512 * GIB);
        let balanced = needed(256, &[nic(64)], &interrupts(256, 20), 512 * GIB);
        // 64 queues, each with its IRQ on 1 or 20 CPUs.
        assert!((64 + 64..1024).contains(&still), "{still}");
        assert!((64 + 64 * 20..MAX_LIMIT as u32).contains(&balanced), "{balanced}");
    }

    #[test]
    fn memory_limits_the_slots() {
        let everywhere = interrupts(256, 256);
        assert_eq!(needed(256, &[nic(64)], &everywhere, 512 * GIB), MAX_LIMIT as u32);
        let small = needed(256, &[nic(64)], &everywhere, 8 * GIB);
        assert!(u64::from(small) * size_of::<HistogramRow>() as u64 <= 8 * GIB / MEMORY_PART);
        assert_eq!(needed(256, &[nic(64)], &everywhere, 0), MIN_LIMIT as u32);
    }

    #[test]
    fn a_small_machine_gets_few_slots() {
        let few = needed(2, &[nic(2)], &interrupts(2, 2), 2 * GIB);
        assert!((2 + 2 * 64..=MIN_LIMIT as u32).contains(&few), "{few}");
    }
}
