//! Stages: what is timed.

/// A stage. The discriminants index [`crate::cpu_state::CpuState::ledger`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// From the raise of NET_RX to its entry: how long packets waited for the CPU.
    RxWait = 0,
    /// One run of `net_rx_action`.
    NetRx = 1,
    /// One NAPI poll.
    NapiPoll = 2,
    /// One hard-IRQ handler.
    Irq = 3,
    /// One call of `tcp_collapse`.
    TcpCollapse = 4,
    /// One run of a softirq vector other than NET_RX.
    Softirq = 5,
}

/// Number of stages.
pub const STAGES: usize = 6;

impl Stage {
    /// All stages in the order in which a packet passes them, the optional one last.
    pub const ALL: [Self; STAGES] =
        [Self::Irq, Self::RxWait, Self::NetRx, Self::NapiPoll, Self::TcpCollapse, Self::Softirq];

    /// The stage's name in commands, tags and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RxWait => "rx_wait",
            Self::NetRx => "net_rx",
            Self::NapiPoll => "napi_poll",
            Self::Irq => "irq",
            Self::TcpCollapse => "tcp_collapse",
            Self::Softirq => "softirq",
        }
    }

    /// The stage with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.name() == name)
    }

    /// The stage's bit in a set of stages.
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }
}

impl TryFrom<u32> for Stage {
    type Error = u32;

    /// The stage with this discriminant, or the number itself when there is none.
    fn try_from(value: u32) -> Result<Self, u32> {
        match value {
            0 => Ok(Self::RxWait),
            1 => Ok(Self::NetRx),
            2 => Ok(Self::NapiPoll),
            3 => Ok(Self::Irq),
            4 => Ok(Self::TcpCollapse),
            5 => Ok(Self::Softirq),
            other => Err(other),
        }
    }
}

/// Number of softirq vectors (`NR_SOFTIRQS`).
pub const VECTORS: u32 = 10;

/// The vector of network receive (`NET_RX_SOFTIRQ`).
///
/// <https://elixir.bootlin.com/linux/v6.12/source/include/linux/interrupt.h#L550>
pub const NET_RX_VECTOR: u32 = 3;

/// Names of the softirq vectors, as in `/proc/softirqs`.
pub const VECTOR_NAMES: [&str; VECTORS as usize] =
    ["HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU"];
