//! Datagrams over loopback: each raises its own NET_RX softirq, the worst case for the cost of
//! probes.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, UdpSocket},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{pin_to_last, slices::Load};
use crate::load;

/// Bytes of a datagram's payload.
const PAYLOAD: usize = 64;

/// Datagrams sent before the receiver is drained. Reading in the sender's thread wakes no other
/// thread, which keeps the rate steady.
const BATCH: u64 = 32;

/// A sender and a receiver on loopback.
pub struct Loopback {
    sender: UdpSocket,
    receiver: UdpSocket,
    sent: u64,
    received: u64,
}

impl Loopback {
    /// Pins this thread to `cpu`, or to the last one, and opens both sockets.
    ///
    /// # Errors
    ///
    /// When there is no such CPU, or the kernel refuses.
    pub fn new(cpu: Option<usize>) -> Result<Self> {
        match cpu {
            Some(cpu) => load::pin_to(cpu)?,
            None => pin_to_last()?,
        }
        let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        receiver.set_nonblocking(true)?;
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        sender.connect(receiver.local_addr()?)?;
        Ok(Self { sender, receiver, sent: 0, received: 0 })
    }

    fn drain(&mut self) -> Result<()> {
        let mut buffer = [0; PAYLOAD];
        loop {
            match self.receiver.recv(&mut buffer) {
                Ok(_) => self.received += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("receive a datagram"),
            }
        }
    }
}

impl Load for Loopback {
    fn send(&mut self, mut events: u64) -> Result<()> {
        while events > 0 {
            let batch = events.min(BATCH);
            for _ in 0..batch {
                self.sender.send(&[0; PAYLOAD]).context("send a datagram")?;
            }
            self.sent += batch;
            self.drain()?;
            events -= batch;
        }
        Ok(())
    }

    fn outcome(&mut self) -> Result<Value> {
        self.drain()?;
        let (sent, received) = (self.sent, self.received);
        (self.sent, self.received) = (0, 0);
        Ok(json!({ "sent": sent, "received": received }))
    }
}
