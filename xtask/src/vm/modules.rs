//! Kernel modules for the virtual machine: the wanted ones, their dependencies, and the load order.
//!
//! Owns the list. `init.sh` loads them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::kernel::Kernel;
use crate::process;

/// Network devices, traffic control and packet filters that tests and loads use. Modules that a
/// kernel has built in, or lacks, are skipped.
const WANTED: &[&str] = &[
    // libcrc32c requests it by algorithm, so modules.dep does not list it.
    "crc32c_generic",
    "virtio_pci",
    "virtio_net",
    "vmxnet3",
    "igb",
    "e1000e",
    "veth",
    "tun",
    "bridge",
    "bonding",
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
    /// Name as `lsmod` shows it.
    pub(crate) name: String,
    path: PathBuf,
}

impl Module {
    /// The module's bytes, decompressed: busybox cannot load compressed ones.
    pub(crate) fn read(&self) -> Result<Vec<u8>> {
        let context = || format!("cannot read {}", self.path.display());
        match self.path.extension().and_then(|extension| extension.to_str()) {
            Some("ko") => fs::read(&self.path).with_context(context),
            Some("xz") => {
                let mut xz = Command::new(process::need("xz")?);
                let output = xz.args(["--decompress", "--stdout"]).arg(&self.path).output();
                let output = output.with_context(context)?;
                if !output.status.success() {
                    bail!("xz cannot decompress {}", self.path.display());
                }
                Ok(output.stdout)
            }
            _ => bail!("unknown compression of module {}", self.path.display()),
        }
    }
}

/// The wanted modules and their dependencies, each after those it depends on.
pub(crate) fn load_order(kernel: &Kernel) -> Result<Vec<Module>> {
    let directory = kernel.root.join("lib/modules").join(&kernel.release);
    let list = directory.join("modules.dep");
    let text =
        fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
    let modules = order(&text, WANTED).into_iter();
    Ok(modules.map(|path| Module { name: name(path), path: directory.join(path) }).collect())
}

/// Paths in load order, from lines `module: dependencies...`.
fn order<'a>(modules_dep: &'a str, wanted: &[&str]) -> Vec<&'a str> {
    let dependencies: BTreeMap<String, (&str, &str)> = modules_dep
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, needed)| (name(path), (path, needed)))
        .collect();
    let mut seen = BTreeSet::new();
    let mut order = Vec::new();
    for (path, needed) in wanted.iter().filter_map(|name| dependencies.get(*name)) {
        // depmod lists all transitive dependencies, to be loaded from the last to the first.
        for path in needed.split_whitespace().rev().chain([*path]) {
            if seen.insert(path) {
                order.push(path);
            }
        }
    }
    order
}

/// `kernel/net/sched/act_bpf.ko.xz` is `act_bpf`; a dash in a file name is `_` in the kernel.
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
