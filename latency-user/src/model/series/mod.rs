//! Series: what a distribution belongs to.
//!
//! A series is a stage and the location where it was timed. Two series are the same exactly when
//! their tags are ([`tag`]); what else is known of a queue is kept separately ([`attrs`]).

pub mod attrs;
pub mod labels;
pub mod tag;

use latency_common::stage::Stage;

use self::{attrs::QueueAttrs, labels::Labels};
use super::distribution::Distribution;

/// The identity of a series: a stage together with the CPU, queue, IRQ or vector.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesId {
    /// What was timed.
    pub stage: Stage,
    /// Where.
    pub at: Location,
}

/// Where a stage was timed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Location {
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
        /// Index into [`VECTOR_NAMES`](latency_common::stage::VECTOR_NAMES).
        vector: u32,
        /// The CPU that ran it.
        cpu: u32,
    },
    /// One of the above on another machine: recordings of several hosts that were merged.
    OnHost {
        /// Name of the host.
        host: String,
        /// Where on that host.
        at: Box<Self>,
    },
}

/// A NAPI instance, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Queue {
    /// An instance of a network device that has a NAPI id.
    Device {
        /// Name of the interface.
        iface: String,
        /// Inode of the interface's network namespace, when it is not the one of this process.
        netns: Option<u32>,
        /// Which of the interface's instances.
        id: QueueId,
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

/// What identifies an instance among those of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum QueueId {
    /// By the RX queue that it serves.
    Rx(u32),
    /// By the kernel's NAPI id, where the RX queue is not known.
    Napi(u32),
}

/// What a distribution in a file belongs to.
///
/// ```
/// use latency_user::model::series::SeriesKey;
///
/// let key = SeriesKey::of_tag("stage=napi_poll;if=eth0;q=2");
/// assert!(key.known().is_some_and(|id| id.stage.name() == "napi_poll"));
/// assert!(key.has_parts("if=eth0"));
/// // Another program's tag is kept as it is.
/// assert_eq!(SeriesKey::of_tag("reads").known(), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SeriesKey {
    /// A series of this program.
    Known(SeriesId),
    /// A series with this tag, written by another program or another version.
    Foreign(String),
}

/// One series with what it recorded in an interval or a run. `K` is [`SeriesId`] for live data and
/// [`SeriesKey`] for files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series<K = SeriesId> {
    /// Its identity.
    pub id: K,
    /// What else is known of its queue.
    pub attrs: QueueAttrs,
    /// Its durations.
    pub distribution: Distribution,
}

impl Series {
    /// A series without further attributes.
    pub fn new(stage: Stage, at: Location, distribution: Distribution) -> Self {
        Self { id: SeriesId { stage, at }, attrs: QueueAttrs::default(), distribution }
    }

    /// The labels of its location.
    pub fn labels(&self) -> Labels {
        Labels::new(&self.id.at, &self.attrs)
    }
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

impl SeriesKey {
    /// The series of this program; `None`: it is foreign.
    pub fn known(&self) -> Option<&SeriesId> {
        match self {
            Self::Known(id) => Some(id),
            Self::Foreign(_) => None,
        }
    }

    /// The same series on `host`, unless it names a host already.
    #[must_use]
    pub fn on_host(self, host: &str) -> Self {
        match self {
            Self::Known(SeriesId { at: Location::OnHost { .. }, .. }) => self,
            Self::Known(SeriesId { stage, at }) => {
                let at = Location::OnHost { host: host.to_owned(), at: Box::new(at) };
                Self::Known(SeriesId { stage, at })
            }
            Self::Foreign(tag) => Self::Foreign(tag::with_host(tag, host)),
        }
    }

    /// Whether the tag has every part of `wanted`: `stage=napi_poll;if=eth0` selects the queues
    /// of eth0.
    pub fn has_parts(&self, wanted: &str) -> bool {
        let tag = self.tag();
        wanted.split(';').all(|part| tag.split(';').any(|other| other == part))
    }
}
