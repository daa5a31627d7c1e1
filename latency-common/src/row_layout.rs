//! Row layout: what each index of the row array stands for.
//!
//! The array starts with a fixed block of rows for every CPU. The slots follow: rows that the
//! kernel side assigns when it first sees a NAPI instance or a hard IRQ.

use crate::stage::{Stage, VECTORS};

/// Rows that every CPU has, in the order of a CPU's block.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuRow {
    /// Stage `rx_wait`.
    RxWait = 0,
    /// Stage `net_rx`.
    NetRx = 1,
    /// Stage `tcp_collapse`.
    TcpCollapse = 2,
    /// Polls of the CPU's backlog, which has no device.
    Backlog = 3,
    /// Polls of NAPI instances without a slot.
    NapiOther = 4,
    /// Hard IRQs without a slot.
    IrqOther = 5,
}

/// Rows in a CPU's block when the stage `softirq` is off.
pub const CPU_ROWS: u32 = 6;

/// Rows in a CPU's block when the stage `softirq` is on: one more per vector.
pub const CPU_ROWS_WITH_VECTORS: u32 = CPU_ROWS + VECTORS;

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
    /// Slots after the blocks.
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
    /// The stage whose events the row counts.
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
