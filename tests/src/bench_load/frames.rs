//! Frames over a veth pair whose receiver has NAPI queues: many queues, stalls of known duration, or
//! some short stalls among many frames.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::{pin_to_last, slices::Load};
use crate::{
    frames::Sender,
    injector::{Injector, MARKED_PORT},
    veth,
};

/// Duration of a stall of [`Stalls`]: above the tracer's default threshold.
pub const STALL: Duration = Duration::from_micros(1200);

/// Duration of a stall of [`SomeStalls`]: 10,000 a second leave most of a CPU to other frames.
pub const SHORT_STALL: Duration = Duration::from_micros(20);

/// Flows per queue: enough for their hashes to reach all queues.
const FLOWS_PER_QUEUE: u16 = 16;

/// A port that the injector does not mark.
const PLAIN_PORT: u16 = 9;

/// The first source port of the flows.
const FIRST_FLOW: u16 = 1024;

/// Frames spread over the receiver's queues.
pub struct Queues {
    sender: Sender,
    flows: u16,
    next: u16,
    sent: u64,
    before: u64,
}

impl Queues {
    /// Pins this thread to the last CPU and creates a veth pair with `queues` queues.
    ///
    /// # Errors
    ///
    /// When the kernel, `ip` or `ethtool` refuses.
    pub fn new(queues: u16) -> Result<Self> {
        pin_to_last()?;
        veth::make(queues.into())?;
        let flows = queues.saturating_mul(FLOWS_PER_QUEUE);
        Ok(Self { sender: veth::sender()?, flows, next: 0, sent: 0, before: veth::arrived()? })
    }
}

impl Load for Queues {
    fn send(&mut self, events: u64) -> Result<()> {
        for _ in 0..events {
            self.sender.send(FIRST_FLOW + self.next, PLAIN_PORT)?;
            self.next = (self.next + 1) % self.flows;
        }
        self.sent += events;
        Ok(())
    }

    fn outcome(&mut self) -> Result<Value> {
        let arrived = veth::arrived()?;
        let outcome = json!({ "sent": self.sent, "received": arrived - self.before });
        (self.sent, self.before) = (0, arrived);
        Ok(outcome)
    }
}

/// Frames of one flow, each delayed inside NET_RX for [`STALL`].
pub struct Stalls {
    sender: Sender,
    injector: Injector,
    sent: u64,
}

impl Stalls {
    /// Pins this thread to the last CPU, creates a veth pair with one queue and attaches the
    /// injector.
    ///
    /// # Errors
    ///
    /// When the kernel, `ip` or `ethtool` refuses, or `STALL_INJECTOR` names no object.
    pub fn new() -> Result<Self> {
        pin_to_last()?;
        veth::make(1)?;
        let injector = Injector::attach(STALL)?;
        Ok(Self { sender: veth::sender()?, injector, sent: 0 })
    }
}

impl Load for Stalls {
    fn send(&mut self, events: u64) -> Result<()> {
        self.injector.stall(&mut self.sender, FIRST_FLOW, events)?;
        self.sent += events;
        Ok(())
    }

    fn outcome(&mut self) -> Result<Value> {
        // `stall` has waited until the injector had counted each frame.
        let outcome = json!({ "sent": self.sent, "received": self.sent });
        self.sent = 0;
        Ok(outcome)
    }
}

/// Frames of one flow of which some are delayed for [`SHORT_STALL`].
pub struct SomeStalls {
    sender: Sender,
    injector: Injector,
    /// One frame of so many is delayed; 0: none.
    one_of: u64,
    sent: u64,
    delayed_before: u64,
}

impl SomeStalls {
    /// Pins this thread to the last CPU, creates a veth pair with one queue and attaches the
    /// injector. One frame of `one_of` is delayed; 0: none.
    ///
    /// # Errors
    ///
    /// When the kernel, `ip` or `ethtool` refuses, or `STALL_INJECTOR` names no object.
    pub fn new(one_of: u64) -> Result<Self> {
        pin_to_last()?;
        veth::make(1)?;
        let injector = Injector::attach(SHORT_STALL)?;
        Ok(Self { sender: veth::sender()?, injector, one_of, sent: 0, delayed_before: 0 })
    }
}

impl Load for SomeStalls {
    fn send(&mut self, events: u64) -> Result<()> {
        for _ in 0..events {
            self.sent += 1;
            let is_delayed = self.one_of != 0 && self.sent.is_multiple_of(self.one_of);
            self.sender.send(FIRST_FLOW, if is_delayed { MARKED_PORT } else { PLAIN_PORT })?;
        }
        Ok(())
    }

    /// `stalls`: frames that the injector delayed.
    fn outcome(&mut self) -> Result<Value> {
        let delayed = self.injector.delayed()?;
        let stalls = delayed - self.delayed_before;
        let outcome = json!({ "sent": self.sent, "received": self.sent, "stalls": stalls });
        (self.sent, self.delayed_before) = (0, delayed);
        Ok(outcome)
    }
}
