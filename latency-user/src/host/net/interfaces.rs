//! `/sys/class/net`: network interfaces, their queues, and the IRQs of their devices.

use std::{
    fs,
    io::{self, ErrorKind},
    path::Path,
};

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

/// A network interface of the namespace in which `sysfs` was mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index, unique within its network namespace.
    pub index: u32,
    /// RX queues in use (`queues/rx-*`); 0 on kernels that do not show them.
    pub rx_queues: u32,
    /// TX queues in use (`queues/tx-*`).
    #[serde(default)]
    pub tx_queues: u32,
    /// Whether it belongs to a device, physical or emulated by a hypervisor. Software interfaces
    /// such as veth, bridges and tunnels have none.
    pub has_device: bool,
    /// MSI and MSI-X IRQs of that device, in ascending order.
    pub msi_irqs: Vec<u32>,
    /// Interfaces below it, of a bond, bridge, VLAN or macvlan; `None`: not known.
    #[serde(default)]
    pub lower: Option<Vec<String>>,
}

/// All interfaces, sorted by index. An interface that disappears meanwhile is left out.
///
/// # Errors
///
/// When the directory or a file in it cannot be read, or an index is not a number.
pub fn list(root: &Path) -> Result<Vec<Interface>> {
    let directory = root.join("sys/class/net");
    let entries =
        fs::read_dir(&directory).with_context(|| format!("read {}", directory.display()))?;
    let mut interfaces = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("read {}", directory.display()))?.path();
        // `bonding_masters` is a file among the interfaces.
        if !path.is_dir() {
            continue;
        }
        match read(&path) {
            Ok(interface) => interfaces.push(interface),
            Err(error) if !path.exists() || is_being_removed(&error) => {}
            Err(error) => return Err(error),
        }
    }
    interfaces.sort_by_key(|interface| interface.index);
    Ok(interfaces)
}

/// While an interface is being removed, its files still exist, but reads fail with `EINVAL`.
fn is_being_removed(error: &anyhow::Error) -> bool {
    let source = error.downcast_ref::<io::Error>();
    source.is_some_and(|error| error.raw_os_error() == Some(libc::EINVAL))
}

fn read(path: &Path) -> Result<Interface> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let file = path.join("ifindex");
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let index = text.trim().parse().map_err(|_| {
        anyhow!("{}:1: expected an interface index, found {:?}", file.display(), text.trim())
    })?;
    let queues = names_in(&path.join("queues"))?;
    let count = |kind| queues.iter().filter(|queue| queue.starts_with(kind)).count() as u32;
    let device = path.join("device");
    Ok(Interface {
        name,
        index,
        rx_queues: count("rx-"),
        tx_queues: count("tx-"),
        has_device: device.exists(),
        msi_irqs: msi_irqs(&device)?,
        lower: Some(lower(path)?),
    })
}

/// Names of the links `lower_NAME`.
fn lower(path: &Path) -> Result<Vec<String>> {
    let names = names_in(path)?;
    let mut lower: Vec<String> =
        names.iter().filter_map(|name| name.strip_prefix("lower_").map(str::to_owned)).collect();
    lower.sort();
    Ok(lower)
}

/// IRQs of the device, or of its parent PCI device: a virtio device has none of its own.
fn msi_irqs(device: &Path) -> Result<Vec<u32>> {
    let mut names = names_in(&device.join("msi_irqs"))?;
    // The parent of a PCI device is a bridge, whose IRQs are not the device's.
    if names.is_empty() && !is_pci(device) {
        names = names_in(&device.join("../msi_irqs"))?;
    }
    let mut irqs: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
    irqs.sort_unstable();
    Ok(irqs)
}

fn is_pci(device: &Path) -> bool {
    fs::read_link(device.join("subsystem")).is_ok_and(|bus| bus.ends_with("pci"))
}

/// Names in a directory; empty when it does not exist.
fn names_in(directory: &Path) -> Result<Vec<String>> {
    let names = fs::read_dir(directory).and_then(|entries| {
        entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<Vec<_>>>()
    });
    match names {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        names => names.with_context(|| format!("read {}", directory.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn make(root: &Path, directory: &str, files: &[(&str, &str)]) {
        let directory = root.join(directory);
        fs::create_dir_all(&directory).unwrap();
        for (file, text) in files {
            let path = directory.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    /// A virtio interface (its PCI device has the IRQs), a PCI one without MSI below a bridge with
    /// MSI, and a veth.
    fn host() -> tempfile::TempDir {
        let host = tempfile::tempdir().unwrap();
        let root = host.path();
        let virtio = "sys/devices/pci0/0000:00:03.0/virtio1";
        make(root, "sys/devices/pci0/0000:00:03.0", &[("msi_irqs/10", ""), ("msi_irqs/9", "")]);
        make(root, virtio, &[("net/eth0/ifindex", "2\n"), ("net/eth0/queues/rx-0/rps_cpus", "")]);
        make(root, virtio, &[("net/eth0/queues/tx-0/xps_cpus", "")]);
        make(root, "sys/bus/pci", &[]);
        make(root, "sys/bus/virtio", &[]);
        let bridge = "sys/devices/pci0/0000:00:1c.0";
        let card = "sys/devices/pci0/0000:00:1c.0/0000:01:00.0";
        make(root, bridge, &[("msi_irqs/24", "")]);
        make(root, card, &[("net/eth1/ifindex", "3\n")]);
        make(root, "sys/devices/virtual/net/va", &[("ifindex", "7\n")]);
        for queue in 0..4 {
            let file = format!("queues/rx-{queue}/rps_cpus");
            make(root, "sys/devices/virtual/net/va", &[(&file, "")]);
        }
        make(root, "sys/class/net", &[("bonding_masters", "")]);
        let below = root.join("sys/devices/virtual/net/va/lower_eth1");
        symlink(root.join(card).join("net/eth1"), below).unwrap();
        let path = |path: &str| root.join(path);
        symlink(path("sys/bus/virtio"), path(virtio).join("subsystem")).unwrap();
        symlink(path("sys/bus/pci"), path(card).join("subsystem")).unwrap();
        symlink(path(virtio), path(virtio).join("net/eth0/device")).unwrap();
        symlink(path(card), path(card).join("net/eth1/device")).unwrap();
        symlink(path(virtio).join("net/eth0"), path("sys/class/net/eth0")).unwrap();
        symlink(path(card).join("net/eth1"), path("sys/class/net/eth1")).unwrap();
        symlink(path("sys/devices/virtual/net/va"), path("sys/class/net/va")).unwrap();
        host
    }

    #[test]
    fn irqs_are_the_devices_or_its_parents_but_never_a_bridges() {
        let host = host();
        let expected = [
            Interface {
                name: "eth0".into(),
                index: 2,
                rx_queues: 1,
                tx_queues: 1,
                has_device: true,
                msi_irqs: vec![9, 10],
                lower: Some(Vec::new()),
            },
            Interface {
                name: "eth1".into(),
                index: 3,
                has_device: true,
                lower: Some(Vec::new()),
                ..Interface::default()
            },
            Interface {
                name: "va".into(),
                index: 7,
                rx_queues: 4,
                lower: Some(vec!["eth1".into()]),
                ..Interface::default()
            },
        ];
        assert_eq!(list(host.path()).unwrap(), expected);
    }

    #[test]
    fn removal_of_an_interface_is_not_a_read_error() {
        let error = |errno| {
            let error = Err::<(), _>(io::Error::from_raw_os_error(errno));
            error.with_context(|| "read /sys/class/net/va/ifindex").unwrap_err()
        };
        assert!(is_being_removed(&error(libc::EINVAL)) && !is_being_removed(&error(libc::EACCES)));
    }

    #[test]
    fn an_index_that_is_no_number_is_refused_with_file_and_line() {
        let host = tempfile::tempdir().unwrap();
        make(host.path(), "sys/class/net/eth0", &[("ifindex", "two\n")]);
        let error = list(host.path()).unwrap_err().to_string();
        assert!(error.ends_with("eth0/ifindex:1: expected an interface index, found \"two\""));
    }
}
