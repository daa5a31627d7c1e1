//! Which CPUs may serve a NIC, and on which devices the kernel reads its settings.

use super::snapshot::{HostSnapshot, Unknown};
use crate::host::cpu::cpus;

/// CPUs that may get work of the network: online, and not set apart for other tasks.
pub(super) fn usable(host: &HostSnapshot) -> Result<Vec<u32>, Unknown> {
    let mut usable = host.online()?;
    for file in cpus::SET_APART {
        // Absent: the kernel cannot set CPUs apart. `(null)`: it could, and does not.
        let Ok(text) = host.setting(file) else { continue };
        let Ok(apart) = cpus::parse_list(text) else { continue };
        usable.retain(|cpu| !apart.contains(cpu));
    }
    Ok(usable)
}

/// The usable CPUs near a NIC; all usable ones if its node has none of them.
pub(super) fn near_or_all(host: &HostSnapshot, iface: &str) -> Result<Vec<u32>, Unknown> {
    let usable = usable(host)?;
    let mut near = near(host, iface).unwrap_or_default();
    near.retain(|cpu| usable.contains(cpu));
    Ok(if near.is_empty() { usable } else { near })
}

/// The CPUs of a NIC's NUMA node.
fn near(host: &HostSnapshot, iface: &str) -> Option<Vec<u32>> {
    let node = host.number(&format!("sys/class/net/{iface}/device/numa_node")).ok()?;
    host.nodes().ok()?.remove(&u32::try_from(node).ok()?)
}

/// The interfaces, busiest first, whose RX queues the kernel steers by RPS: those below bonds,
/// bridges, VLANs and macvlans, which pass on packets that were steered already. Each received a
/// tenth of the busiest one's packets or more.
pub(super) fn steered(host: &HostSnapshot, ifaces: &[String]) -> Vec<String> {
    let has_any_device = ifaces.iter().any(|name| host.interface(name).is_ok_and(|i| i.has_device));
    let is_lowest = |name: &str| match host.interface(name) {
        Ok(interface) => match &interface.lower {
            Some(lower) => lower.is_empty(),
            // Captures of older versions do not tell.
            None => interface.has_device || !has_any_device,
        },
        Err(_) => false,
    };
    let mut names: Vec<String> = Vec::new();
    for iface in ifaces {
        lowest(host, iface, 0, &mut names);
    }
    names.retain(|name| is_lowest(name));
    let mut rates: Vec<(String, f64)> = names
        .into_iter()
        .filter_map(|name| host.rx_rate(&name).ok().map(|rate| (name, rate)))
        .filter(|(_, rate)| *rate > 0.0)
        .collect();
    rates.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let most = rates.first().map_or(0.0, |(_, rate)| *rate);
    rates.into_iter().filter(|(_, rate)| rate * 10.0 >= most).map(|(name, _)| name).collect()
}

/// Adds the interfaces at the bottom of a stack of them: `eth0` and `eth1` of `bond0.5`.
fn lowest(host: &HostSnapshot, iface: &str, depth: u32, names: &mut Vec<String>) {
    // The kernel allows eight levels; a capture may claim circles.
    let lower = host.interface(iface).ok().and_then(|interface| interface.lower.clone());
    match lower.filter(|lower| !lower.is_empty() && depth < 8) {
        Some(lower) => lower.iter().for_each(|name| lowest(host, name, depth + 1, names)),
        None if !names.iter().any(|name| name == iface) => names.push(iface.to_owned()),
        None => {}
    }
}
