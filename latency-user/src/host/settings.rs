//! Settings that a recording keeps: sysctls, and files of interfaces.

use std::{fs, path::Path};

use anyhow::Result;

use super::{
    cpu::interrupts::Interrupts,
    net::interfaces::{self, Interface},
};
use crate::model::settings::{HostSettings, IfaceSettings, IrqSettings};

/// Sysctls that affect NET_RX processing and TCP.
const SYSCTLS: [&str; 12] = [
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv4.tcp_congestion_control",
    "net.core.rmem_max",
    "net.core.wmem_max",
    "net.core.netdev_budget",
    "net.core.netdev_budget_usecs",
    "net.core.netdev_max_backlog",
    "net.core.dev_weight",
    "net.core.busy_poll",
    "net.core.default_qdisc",
    "net.core.rps_sock_flow_entries",
];

/// Reads the settings of the interfaces in `wanted`, or of all when it is empty. Settings that
/// cannot be read are absent: a container may hide some.
///
/// # Errors
///
/// When the list of interfaces cannot be read.
pub fn read(root: &Path, wanted: &[String]) -> Result<HostSettings> {
    // Without the table, IRQs have no names.
    let interrupts = Interrupts::read(root).ok();
    let sysctls = SYSCTLS.into_iter().filter_map(|name| {
        let text = text(&root.join("proc/sys").join(name.replace('.', "/")))?;
        // The kernel separates several values by tabs.
        Some((name.to_owned(), text.split_whitespace().collect::<Vec<_>>().join(" ")))
    });
    let ifaces = interfaces::list(root)?
        .into_iter()
        .filter(|iface| wanted.is_empty() || wanted.contains(&iface.name))
        .map(|iface| of_interface(root, iface, interrupts.as_ref()));
    Ok(HostSettings { sysctls: sysctls.collect(), ifaces: ifaces.collect() })
}

fn of_interface(root: &Path, iface: Interface, interrupts: Option<&Interrupts>) -> IfaceSettings {
    let directory = root.join("sys/class/net").join(&iface.name);
    let number = |file: &str| text(&directory.join(file))?.parse::<u64>().ok();
    let driver = fs::read_link(directory.join("device/driver")).ok();
    let irqs = iface.msi_irqs.iter().map(|irq| IrqSettings {
        number: *irq,
        name: interrupts.and_then(|all| all.name(*irq)).map(str::to_owned),
        affinity: text(&root.join(format!("proc/irq/{irq}/smp_affinity_list"))),
    });
    let rps_cpus = (0..iface.rx_queues).filter_map(|queue| {
        let mask = text(&directory.join(format!("queues/rx-{queue}/rps_cpus")))?;
        let is_set = mask.chars().any(|digit| !matches!(digit, '0' | ','));
        is_set.then_some((queue, mask))
    });
    IfaceSettings {
        driver: driver.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned())),
        mtu: number("mtu").and_then(|mtu| u32::try_from(mtu).ok()),
        rx_queues: iface.rx_queues,
        tx_queues: iface.tx_queues,
        irqs: irqs.collect(),
        rps_cpus: rps_cpus.collect(),
        gro_flush_timeout_ns: number("gro_flush_timeout"),
        napi_defer_hard_irqs: number("napi_defer_hard_irqs"),
        threaded: number("threaded"),
        name: iface.name,
    }
}

/// The trimmed text of a file; `None` when it cannot be read or is empty.
fn text(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn put(root: &Path, files: &[(&str, &str)]) {
        for (file, text) in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    fn host() -> tempfile::TempDir {
        let host = tempfile::tempdir().unwrap();
        put(
            host.path(),
            &[
                ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t33554432\n"),
                ("proc/sys/net/core/netdev_budget", "300\n"),
                ("proc/sys/net/core/somaxconn", "4096\n"),
                (
                    "proc/interrupts",
                    "            CPU0       CPU1\n  24:  7  9  PCI-MSI 1-edge  eth0-0\n",
                ),
                ("proc/irq/24/smp_affinity_list", "1\n"),
                ("sys/devices/card/msi_irqs/24", ""),
                ("sys/class/net/eth0/ifindex", "2\n"),
                ("sys/class/net/eth0/mtu", "9000\n"),
                ("sys/class/net/eth0/gro_flush_timeout", "20000\n"),
                ("sys/class/net/eth0/threaded", "0\n"),
                ("sys/class/net/eth0/queues/rx-0/rps_cpus", "00000000,00000000\n"),
                ("sys/class/net/eth0/queues/rx-1/rps_cpus", "0000000c\n"),
                ("sys/class/net/eth0/queues/tx-0/xps_cpus", "1\n"),
                ("sys/class/net/lo/ifindex", "1\n"),
            ],
        );
        let card = host.path().join("sys/devices/card");
        symlink(&card, host.path().join("sys/class/net/eth0/device")).unwrap();
        symlink("../../bus/pci/drivers/ixgbe", card.join("driver")).unwrap();
        host
    }

    #[test]
    fn present_settings_are_read_and_the_rest_is_absent() {
        let settings = read(host().path(), &["eth0".to_owned()]).unwrap();
        let sysctls: Vec<_> = settings.sysctls.iter().map(|(n, v)| (&**n, &**v)).collect();
        let expected =
            [("net.core.netdev_budget", "300"), ("net.ipv4.tcp_rmem", "4096 131072 33554432")];
        assert_eq!(sysctls, expected);
        let eth0 = IfaceSettings {
            name: "eth0".into(),
            driver: Some("ixgbe".into()),
            mtu: Some(9000),
            rx_queues: 2,
            tx_queues: 1,
            irqs: vec![IrqSettings {
                number: 24,
                name: Some("eth0-0".into()),
                affinity: Some("1".into()),
            }],
            rps_cpus: [(1, "0000000c".to_owned())].into(),
            gro_flush_timeout_ns: Some(20_000),
            napi_defer_hard_irqs: None,
            threaded: Some(0),
        };
        assert_eq!(settings.ifaces, [eth0]);
    }

    #[test]
    fn all_interfaces_when_none_is_asked_for() {
        let names: Vec<_> =
            read(host().path(), &[]).unwrap().ifaces.into_iter().map(|iface| iface.name).collect();
        assert_eq!(names, ["lo", "eth0"]);
    }
}
