//! A veth pair whose receiving end has several NAPI queues.

use anyhow::{Context, Result};

use crate::{frames::Sender, injector::Injector, release, tool};

/// The receiving end.
pub const RECEIVER: &str = "va";
/// The sending end.
pub const SENDER: &str = "vb";

/// Creates the pair in this thread's namespace, with `queues` queues on either end.
///
/// GRO on the receiver makes it use NAPI, with one instance per queue; before Linux 5.13, a program of
/// XDP does. GSO must be off on the sender for packets to take that path.
///
/// # Errors
///
/// When `ip` or `ethtool` fails, or the kernel refuses the program.
pub fn make(queues: u32) -> Result<()> {
    tool::run(&format!(
        "ip link add {RECEIVER} numrxqueues {queues} numtxqueues {queues} type veth \
         peer name {SENDER} numrxqueues {queues} numtxqueues {queues}"
    ))?;
    tool::run(&format!("ethtool -K {RECEIVER} gro on"))?;
    tool::run(&format!("ethtool -K {SENDER} gso off tso off"))?;
    tool::run(&format!("ip link set {RECEIVER} up"))?;
    tool::run(&format!("ip link set {SENDER} up"))?;
    if release::is_before(5, 13) {
        Injector::let_pass(RECEIVER)?;
    }
    Ok(())
}

/// A sender of frames over the pair.
///
/// # Errors
///
/// When the devices do not exist, or the kernel refuses a packet socket.
pub fn sender() -> Result<Sender> {
    sender_to(RECEIVER)
}

/// A sender of frames over the pair to another device on its receiving end, such as a macvlan.
///
/// # Errors
///
/// As [`sender`].
pub fn sender_to(device: &str) -> Result<Sender> {
    Sender::new(SENDER, &mac(SENDER)?, &mac(device)?)
}

/// Packets received by each RX queue of the receiver, as counted by its driver.
///
/// # Errors
///
/// When `ethtool` fails or prints something else.
pub fn packets_by_queue() -> Result<Vec<u64>> {
    let mut packets = Vec::new();
    for line in tool::run(&format!("ethtool -S {RECEIVER}"))?.lines() {
        let Some((name, value)) = line.trim().split_once(": ") else { continue };
        let queue =
            name.strip_prefix("rx_queue_").and_then(|rest| rest.strip_suffix("_xdp_packets"));
        if queue.is_some() {
            packets.push(value.parse().with_context(|| format!("read {line:?} of ethtool"))?);
        }
    }
    Ok(packets)
}

/// Packets received by all RX queues of the receiver.
///
/// # Errors
///
/// As [`packets_by_queue`].
pub fn arrived() -> Result<u64> {
    Ok(packets_by_queue()?.iter().sum())
}

/// The receiver's Ethernet address, as text.
///
/// # Errors
///
/// When the device does not exist.
pub fn address_of_receiver() -> Result<String> {
    address(RECEIVER)
}

fn address(device: &str) -> Result<String> {
    let path = format!("/sys/class/net/{device}/address");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    Ok(text.trim().to_owned())
}

fn mac(device: &str) -> Result<[u8; 6]> {
    let text = address(device)?;
    let bytes: Result<Vec<u8>, _> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect();
    bytes?.try_into().map_err(|bytes| anyhow::anyhow!("{device}: {bytes:?} is not an address"))
}
