//! Packets in batches, as a NIC delivers them: 64 in each NAPI poll of a veth device.
//!
//! The kernel divides one large datagram into 64 packets just before the device, and sends them
//! without letting a softirq run in between.

use std::{
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{pin_to_last, slices::Load};
use crate::{tool, veth};

/// Packets of a batch: the budget of a NAPI poll, and the most that Linux allows in a datagram that
/// it divides.
pub const BATCH: u64 = 64;

/// Bytes of a packet's payload.
const PAYLOAD: u16 = 64;

const SENDER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// Nobody's address: packets end after the receiver's poll.
const RECEIVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const PORT: u16 = 9;

/// A sender of batches over a veth pair.
pub struct Batches {
    socket: UdpSocket,
    sent: u64,
    before: u64,
}

impl Batches {
    /// Pins this thread to the last CPU, creates a veth pair with one queue and opens the socket.
    ///
    /// # Errors
    ///
    /// When the kernel, `ip` or `ethtool` refuses.
    pub fn new() -> Result<Self> {
        pin_to_last()?;
        veth::make(1)?;
        // Otherwise the datagram would pass the pair undivided.
        tool::run(&format!("ethtool -K {} tx-udp-segmentation off", veth::SENDER))?;
        tool::run(&format!("ip address add {SENDER}/24 dev {}", veth::SENDER))?;
        let address = veth::address_of_receiver()?;
        tool::run(&format!(
            "ip neighbour replace {RECEIVER} lladdr {address} nud permanent dev {}",
            veth::SENDER
        ))?;
        let socket = UdpSocket::bind((SENDER, 0))?;
        socket.connect((RECEIVER, PORT))?;
        divide(&socket)?;
        Ok(Self { socket, sent: 0, before: veth::arrived()? })
    }
}

/// Makes the kernel divide each datagram of `socket` into packets.
fn divide(socket: &UdpSocket) -> Result<()> {
    let size = libc::c_int::from(PAYLOAD);
    // SAFETY: the value is valid for the call and its length is its size.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw const size).cast(),
            size_of_val(&size) as libc::socklen_t,
        )
    };
    if set != 0 {
        return Err(std::io::Error::last_os_error()).context("divide datagrams into packets");
    }
    Ok(())
}

impl Load for Batches {
    /// Sends whole batches: at least `events` packets.
    fn send(&mut self, events: u64) -> Result<()> {
        for _ in 0..events.div_ceil(BATCH) {
            self.socket.send(&[0; BATCH as usize * PAYLOAD as usize]).context("send a batch")?;
            self.sent += BATCH;
        }
        Ok(())
    }

    fn outcome(&mut self) -> Result<Value> {
        let arrived = veth::arrived()?;
        let outcome = json!({ "sent": self.sent, "received": arrived - self.before });
        (self.sent, self.before) = (0, arrived);
        Ok(outcome)
    }
}
