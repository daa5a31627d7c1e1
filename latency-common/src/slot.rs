//! Rows: which index of the row array belongs to what.
//!
//! The array starts with a fixed block of rows for every CPU. Behind the blocks lie the slots:
//! rows that the kernel side hands out when it first sees a NAPI instance or a hard IRQ.

use crate::stage::{Stage, VECTORS};

/// Rows that every CPU has. The order is the order inside a CPU's block.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuRow {
    /// Stage `rx_wait`.
    RxWait = 0,
    /// Stage `net_rx`.
    NetRx = 1,
    /// Stage `tcp_collapse`.
    TcpCollapse = 2,
    /// Polls of the CPU's backlog, which belongs to no device.
    Backlog = 3,
    /// Polls of NAPI instances that found no free slot.
    NapiOther = 4,
    /// Hard IRQs that found no free slot.
    IrqOther = 5,
}

/// Rows in a CPU's block when the stage `softirq` is off.
pub const CPU_ROWS: u32 = 6;

/// Rows in a CPU's block when the stage `softirq` is on: one more per vector.
pub const CPU_ROWS_WITH_VECTORS: u32 = CPU_ROWS + VECTORS;

/// What the kernel side asks the slot table for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlotKey {
    /// A [`SlotKind`].
    pub kind: u32,
    /// NAPI id; for instances without one, the interface index; for hard IRQs, the number.
    pub id: u32,
    /// The CPU for kinds that are kept per CPU, otherwise 0.
    pub cpu: u32,
    /// Inode of the device's network namespace for NAPI instances without an id, otherwise 0.
    pub netns: u32,
}

const _: () = assert!(size_of::<SlotKey>() == 16);

/// What a slot counts.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotKind {
    /// A NAPI instance with an id. It is polled on one CPU at a time, but released before the
    /// end of a poll is seen, so two CPUs may write its row at once.
    Napi = 1,
    /// The NAPI instances without an id of one device on one CPU: transmit-only instances and
    /// those of tunnels.
    NapiWithoutId = 2,
    /// A hard IRQ on one CPU.
    Irq = 3,
    /// Nothing: two CPUs asked for a slot for the same at once, and the other one's is used.
    Nothing = 4,
}

impl TryFrom<u32> for SlotKind {
    type Error = u32;

    /// The kind with this discriminant, or the number itself when there is none.
    fn try_from(value: u32) -> Result<Self, u32> {
        match value {
            1 => Ok(Self::Napi),
            2 => Ok(Self::NapiWithoutId),
            3 => Ok(Self::Irq),
            4 => Ok(Self::Nothing),
            other => Err(other),
        }
    }
}

/// Length of an interface name with its closing zero (`IFNAMSIZ`).
pub const IFNAMSIZ: usize = 16;

/// Who a slot was handed to. Written once by the kernel side; `rx_queue_seen` and
/// `rx_queue_conflicts` are written while the identity probe is attached.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotInfo {
    /// A [`SlotKind`]; 0: the slot is free, or being handed out.
    pub kind: u32,
    /// As in [`SlotKey::id`].
    pub id: u32,
    /// As in [`SlotKey::cpu`].
    pub cpu: u32,
    /// Inode of the device's network namespace; 0: unknown.
    pub netns: u32,
    /// Index of the interface; 0: unknown.
    pub ifindex: u32,
    /// `queue_mapping` that packets of this NAPI instance carried, plus one; 0: none seen.
    pub rx_queue_seen: u32,
    /// Packets that carried another `queue_mapping` than `rx_queue_seen`.
    pub rx_queue_conflicts: u32,
    /// Packets that a poll of it may process (`napi_struct.weight`); 0: unknown.
    pub weight: u32,
    /// Name of the interface when the slot was handed out.
    pub name: [u8; IFNAMSIZ],
}

const _: () = assert!(size_of::<SlotInfo>() == 48);

/// What a row index stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowOwner {
    /// A row of a CPU's block.
    Cpu {
        /// The CPU.
        cpu: u32,
        /// Which row of its block.
        row: CpuRow,
    },
    /// A softirq vector on a CPU.
    Vector {
        /// The CPU.
        cpu: u32,
        /// The vector.
        vector: u32,
    },
    /// The slot with this number.
    Slot(u32),
}

/// The arrangement of the row array for one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowLayout {
    /// Possible CPUs, numbered from 0.
    pub cpus: u32,
    /// Rows in a CPU's block: [`CPU_ROWS`] or [`CPU_ROWS_WITH_VECTORS`].
    pub rows_per_cpu: u32,
    /// Slots behind the blocks.
    pub slots: u32,
}

impl RowLayout {
    /// Rows in the array.
    pub const fn rows(&self) -> u32 {
        self.slot_base() + self.slots
    }

    /// Index of the first slot's row.
    pub const fn slot_base(&self) -> u32 {
        self.cpus * self.rows_per_cpu
    }

    /// What the row at `index` stands for.
    pub const fn owner(&self, index: u32) -> RowOwner {
        if index >= self.slot_base() {
            return RowOwner::Slot(index - self.slot_base());
        }
        let cpu = index / self.rows_per_cpu;
        let row = match index % self.rows_per_cpu {
            0 => CpuRow::RxWait,
            1 => CpuRow::NetRx,
            2 => CpuRow::TcpCollapse,
            3 => CpuRow::Backlog,
            4 => CpuRow::NapiOther,
            5 => CpuRow::IrqOther,
            vector => return RowOwner::Vector { cpu, vector: vector - CPU_ROWS },
        };
        RowOwner::Cpu { cpu, row }
    }
}

impl CpuRow {
    /// The stage whose intervals the row counts.
    pub const fn stage(self) -> Stage {
        match self {
            Self::RxWait => Stage::RxWait,
            Self::NetRx => Stage::NetRx,
            Self::TcpCollapse => Stage::TcpCollapse,
            Self::Backlog | Self::NapiOther => Stage::NapiPoll,
            Self::IrqOther => Stage::Irq,
        }
    }
}
