//! Series: what a distribution belongs to, and the tag that names it in a recording.

use std::fmt;

use latency_common::stage::{Stage, VECTOR_NAMES};

/// A stage together with the CPU, queue, IRQ or vector that it was timed on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Series {
    /// What was timed.
    pub stage: Stage,
    /// Where.
    pub owner: Owner,
}

/// Where a stage was timed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// On this CPU.
    Cpu(u32),
    /// A NAPI instance.
    Queue(Queue),
    /// A hard IRQ on a CPU.
    Irq {
        /// Its number; `None`: the IRQs for which no slot was left.
        number: Option<u32>,
        /// Its name in `/proc/interrupts`, when it is there.
        name: Option<String>,
        /// The CPU that handled it.
        cpu: u32,
    },
    /// A softirq vector on a CPU.
    Vector {
        /// Index into [`VECTOR_NAMES`].
        vector: u32,
        /// The CPU that ran it.
        cpu: u32,
    },
    /// One of the above on another machine: recordings of several hosts that were merged.
    OnHost {
        /// Name of the host.
        host: String,
        /// Where on that host.
        owner: Box<Self>,
    },
}

/// What is known of a NAPI instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Queue {
    /// An instance of a network device that has a NAPI id.
    Device {
        /// Name of the interface.
        iface: String,
        /// Inode of the interface's network namespace, when it is not the one of this process.
        netns: Option<u32>,
        /// Number of the RX queue, when it is known.
        queue: Option<u32>,
        /// The kernel's id of the instance; 0: not known, as in old recordings.
        napi_id: u32,
        /// The hard IRQ that schedules it, when it is known.
        irq: Option<u32>,
    },
    /// Instances of a device that have no id, on one CPU: they transmit, or belong to a tunnel.
    WithoutId {
        /// Name of the interface.
        iface: String,
        /// As in [`Queue::Device`].
        netns: Option<u32>,
        /// The CPU that polled them.
        cpu: u32,
    },
    /// The backlog of a CPU: loopback, veth without GRO, RPS.
    Backlog {
        /// The CPU.
        cpu: u32,
    },
    /// Instances that found the slot table full, on one CPU.
    NoSlot {
        /// The CPU that polled them.
        cpu: u32,
    },
}

impl Queue {
    /// The interface, for queues that have one.
    pub fn iface(&self) -> Option<&str> {
        match self {
            Self::Device { iface, .. } | Self::WithoutId { iface, .. } => Some(iface),
            Self::Backlog { .. } | Self::NoSlot { .. } => None,
        }
    }

    /// The network namespace, when it is not the one of this process.
    pub fn netns(&self) -> Option<u32> {
        match self {
            Self::Device { netns, .. } | Self::WithoutId { netns, .. } => *netns,
            Self::Backlog { .. } | Self::NoSlot { .. } => None,
        }
    }
}

impl Series {
    /// The tag of this series in a recording: `stage=net_rx;cpu=3`, `stage=napi_poll;if=eth0;q=2`.
    ///
    /// Tags hold no comma, no white space and no control character; in names such bytes, `;`, `=`
    /// and `%` are written as `%` and two hexadecimal digits.
    pub fn tag(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stage={}{}", self.stage.name(), self.owner)
    }
}

/// The part of a tag behind the stage.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu(cpu) => write!(f, ";cpu={cpu}"),
            Self::Vector { vector, cpu } => {
                let name = VECTOR_NAMES.get(*vector as usize).unwrap_or(&"?");
                write!(f, ";vector={name};cpu={cpu}")
            }
            Self::Irq { number, name, cpu } => {
                match number {
                    Some(number) => write!(f, ";irq={number}")?,
                    None => write!(f, ";irq=other")?,
                }
                if let Some(name) = name {
                    write!(f, ";name={}", Escaped(name))?;
                }
                write!(f, ";cpu={cpu}")
            }
            Self::Queue(Queue::Device { iface, netns, queue, napi_id, .. }) => {
                write!(f, ";if={}", Escaped(iface))?;
                if let Some(netns) = netns {
                    write!(f, ";netns={netns}")?;
                }
                match queue {
                    Some(queue) => write!(f, ";q={queue}"),
                    None => write!(f, ";q=napi-{napi_id}"),
                }
            }
            Self::Queue(Queue::WithoutId { iface, netns, cpu }) => {
                write!(f, ";if={}", Escaped(iface))?;
                if let Some(netns) = netns {
                    write!(f, ";netns={netns}")?;
                }
                write!(f, ";q=no-id;cpu={cpu}")
            }
            Self::Queue(Queue::Backlog { cpu }) => write!(f, ";q=backlog;cpu={cpu}"),
            Self::Queue(Queue::NoSlot { cpu }) => write!(f, ";q=other;cpu={cpu}"),
            Self::OnHost { host, owner } => write!(f, "{owner};host={}", Escaped(host)),
        }
    }
}

/// A name with the bytes that a tag cannot hold written as `%xx`.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.bytes() {
            if byte.is_ascii_graphic() && !matches!(byte, b',' | b';' | b'=' | b'%') {
                write!(f, "{}", byte as char)?;
            } else {
                write!(f, "%{byte:02x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_name_stage_and_owner() {
        let cpu = Series { stage: Stage::NetRx, owner: Owner::Cpu(3) };
        assert_eq!(cpu.tag(), "stage=net_rx;cpu=3");
        let queue = Queue::Device {
            iface: "eth0".into(),
            netns: None,
            queue: Some(2),
            napi_id: 515,
            irq: Some(31),
        };
        let queue = Series { stage: Stage::NapiPoll, owner: Owner::Queue(queue) };
        assert_eq!(queue.tag(), "stage=napi_poll;if=eth0;q=2");
    }

    #[test]
    fn names_are_escaped() {
        let irq = Owner::Irq { number: Some(9), name: Some("a b,c;d=é".into()), cpu: 0 };
        let tag = Series { stage: Stage::Irq, owner: irq }.tag();
        assert_eq!(tag, "stage=irq;irq=9;name=a%20b%2cc%3bd%3d%c3%a9;cpu=0");
    }
}
