//! NICs of a lab machine: two of one kind on one wire, so that packets go through a real driver, its
//! rings and its interrupts.
//!
//! Owns the devices of each kind and how they are connected. QEMU itself comes from `emulator`.

use std::{fmt, path::Path, process::Command};

use anyhow::{Context, Result};

use crate::process;

/// A kind of NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Nic {
    /// Intel I350 (`igb`): several queues, separate vectors for receiving and sending
    Igb,
    /// Intel 82574 (`e1000e`): one queue
    E1000e,
    /// VMware's (`vmxnet3`): several queues, one vector for receiving and sending
    Vmxnet3,
    /// `virtio_net` with several queues; needs root and tap devices on the host
    VirtioMq,
}

/// Queues of virtio NICs: as many as the machine has CPUs.
const VIRTIO_QUEUES: u32 = 4;

impl Nic {
    /// All kinds.
    pub(crate) const ALL: [Self; 4] = [Self::Igb, Self::E1000e, Self::Vmxnet3, Self::VirtioMq];

    /// Its name on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Igb => "igb",
            Self::E1000e => "e1000e",
            Self::Vmxnet3 => "vmxnet3",
            Self::VirtioMq => "virtio-mq",
        }
    }

    /// The device that Debian 12's own QEMU lacks.
    pub(crate) const fn needs_newer_emulator(self) -> bool {
        matches!(self, Self::Igb)
    }

    /// Adds a pair of NICs to QEMU's arguments. `number` is the position of the pair among all
    /// pairs of the machine.
    pub(super) fn add_pair(self, command: &mut Command, number: usize, directory: &Path) {
        for end in 0..2 {
            let id = 2 * number + end;
            // The machine finds the pair by its address, and the end that goes into a namespace.
            let mac = format!("52:54:00:4e:{number:02x}:{end:02x}");
            let port = format!("pcie-root-port,id=lab{id},chassis={}", id + 1);
            command.args(["-device", &port]);
            let at = format!("netdev=wire{id},bus=lab{id},mac={mac}");
            match self {
                Self::VirtioMq => {
                    let script = up_script(directory);
                    let queues = VIRTIO_QUEUES;
                    command.arg("-netdev").arg(format!(
                        "tap,id=wire{id},queues={queues},vhost=off,script={},downscript=no",
                        script.display()
                    ));
                    let vectors = 2 * queues + 2;
                    let device = format!("virtio-net-pci,{at},mq=on,vectors={vectors}");
                    command.args(["-device", &device]);
                }
                _ => {
                    let wire = format!("hubport,id=wire{id},hubid={number}");
                    command.args(["-netdev", &wire]);
                    command.args(["-device", &format!("{},{at}", self.name())]);
                }
            }
        }
    }
}

impl fmt::Display for Nic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Name of the bridge between tap devices, in the network namespace of QEMU.
const BRIDGE: &str = "lab";

fn up_script(directory: &Path) -> std::path::PathBuf {
    directory.join("tap-up")
}

/// A command for `program` in a network namespace of its own, in which tap devices are joined by a
/// bridge. Needs root.
pub(super) fn with_bridge(program: &Path, directory: &Path) -> Result<Command> {
    use std::os::unix::fs::PermissionsExt;

    let script = up_script(directory);
    let text = format!("#!/bin/sh\nexec ip link set \"$1\" up master {BRIDGE}\n");
    std::fs::write(&script, text)
        .and_then(|()| std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)))
        .with_context(|| format!("cannot write {}", script.display()))?;
    let mut command = Command::new(process::need("unshare")?);
    let start =
        format!("ip link add {BRIDGE} type bridge && ip link set {BRIDGE} up && exec \"$@\"");
    command.args(["--net", "sh", "-c", &start, "sh"]).arg(program);
    Ok(command)
}
