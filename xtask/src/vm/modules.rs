//! Kernel modules for the virtual machine: which are wanted, what they need, in which order.
//!
//! Owns the list. Loading is the machine's init script's.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::kernel::{Kernel, only_entry};
use crate::process;

/// Network devices, traffic control and packet filters that tests and loads use. Names that a
/// kernel has built in, or lacks, are passed over.
const WANTED: &[&str] = &[
    // libcrc32c asks for it by algorithm, which no dependency list shows.
    "crc32c_generic",
    "virtio_pci",
    "virtio_net",
    "vmxnet3",
    "veth",
    "tun",
    "sch_ingress",
    "sch_netem",
    "cls_bpf",
    "cls_matchall",
    "act_bpf",
    "act_mirred",
    "nf_tables",
    "inet_diag",
    "tcp_diag",
];

/// One module file of a kernel package.
pub(crate) struct Module {
    /// As `lsmod` shows it.
    pub(crate) name: String,
    path: PathBuf,
}

impl Module {
    /// The module's bytes, decompressed: busybox cannot load compressed ones.
    pub(crate) fn read(&self) -> Result<Vec<u8>> {
        let reading = || format!("cannot read {}", self.path.display());
        match self.path.extension().and_then(|extension| extension.to_str()) {
            Some("ko") => fs::read(&self.path).with_context(reading),
            Some("xz") => {
                let mut xz = Command::new(process::need("xz")?);
                let output = xz.args(["--decompress", "--stdout"]).arg(&self.path).output();
                let output = output.with_context(reading)?;
                if !output.status.success() {
                    bail!("xz cannot decompress {}", self.path.display());
                }
                Ok(output.stdout)
            }
            _ => bail!("unknown compression of module {}", self.path.display()),
        }
    }
}

/// Writes the list of dependencies, which a package does not carry: its installation would.
pub(crate) fn index(root: &Path) -> Result<()> {
    let release = only_entry(&root.join("lib/modules"))?;
    let mut depmod = Command::new(process::need("depmod")?);
    process::run(depmod.arg("--basedir").arg(root).arg(release))
}

/// The wanted modules and all they need, each after what it needs.
pub(crate) fn load_order(kernel: &Kernel) -> Result<Vec<Module>> {
    let directory = kernel.root.join("lib/modules").join(&kernel.release);
    let list = directory.join("modules.dep");
    let text =
        fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
    let modules = order(&text, WANTED).into_iter();
    Ok(modules.map(|path| Module { name: name(path), path: directory.join(path) }).collect())
}

/// Paths in the order to load them, from lines `module: what-it-needs...`.
fn order<'a>(modules_dep: &'a str, wanted: &[&str]) -> Vec<&'a str> {
    let needs: BTreeMap<String, (&str, &str)> = modules_dep
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, needs)| (name(path), (path, needs)))
        .collect();
    let mut seen = BTreeSet::new();
    let mut order = Vec::new();
    for (path, needs) in wanted.iter().filter_map(|wanted| needs.get(*wanted)) {
        // depmod lists what is needed transitively, to be loaded from the last to the first.
        for path in needs.split_whitespace().rev().chain([*path]) {
            if seen.insert(path) {
                order.push(path);
            }
        }
    }
    order
}

/// `kernel/net/sched/act_bpf.ko.xz` is `act_bpf`; a dash in a file's name is `_` in the kernel.
fn name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needed_modules_come_first_and_once() {
        let list = "net/failover.ko.xz:\n\
                    net/net-failover.ko.xz: net/failover.ko.xz\n\
                    net/virtio-net.ko.xz: net/net-failover.ko.xz net/failover.ko.xz\n\
                    net/veth.ko.xz:\n";
        let order = order(list, &["virtio_net", "no_such", "veth", "net_failover"]);
        let expected = [
            "net/failover.ko.xz",
            "net/net-failover.ko.xz",
            "net/virtio-net.ko.xz",
            "net/veth.ko.xz",
        ];
        assert_eq!(order, expected);
    }
}
