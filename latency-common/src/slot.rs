//! Slots: rows that the kernel side assigns to NAPI instances and hard IRQs when first seen.

/// Key of the slot table.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlotKey {
    /// A [`SlotKind`].
    pub kind: u32,
    /// NAPI id; the interface index for instances without an id; the IRQ number for hard IRQs.
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
    /// A NAPI instance with an id. It is polled on one CPU at a time, but released before the probe
    /// sees the end of the poll, so two CPUs may write its row at once.
    Napi = 1,
    /// All NAPI instances without an id of one device on one CPU: transmit-only instances and
    /// tunnels.
    NapiWithoutId = 2,
    /// A hard IRQ on one CPU.
    Irq = 3,
    /// Abandoned: another CPU registered the same key first; its slot is used.
    Abandoned = 4,
}

impl TryFrom<u32> for SlotKind {
    type Error = u32;

    /// The kind with this discriminant, or the number itself when there is none.
    fn try_from(value: u32) -> Result<Self, u32> {
        match value {
            1 => Ok(Self::Napi),
            2 => Ok(Self::NapiWithoutId),
            3 => Ok(Self::Irq),
            4 => Ok(Self::Abandoned),
            other => Err(other),
        }
    }
}

/// Length of an interface name with its terminating NUL (`IFNAMSIZ`).
pub const IFNAMSIZ: usize = 16;

/// What a slot is assigned to. Written once by the kernel side; `rx_queue_seen` and
/// `rx_queue_conflicts` are updated while the packet probe is attached, the fields of the IRQ at
/// the first polls of each CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotInfo {
    /// A [`SlotKind`]; 0: the slot is free, or being assigned.
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
    /// Packets whose `queue_mapping` differed from `rx_queue_seen`.
    pub rx_queue_conflicts: u32,
    /// The hard IRQ whose handler scheduled this NAPI instance, plus one; 0: not known.
    pub irq_seen: u32,
    /// How often that was seen.
    pub irq_votes: u32,
    /// How often another IRQ was seen.
    pub irq_conflicts: u32,
    /// Explicit padding.
    pub reserved: u32,
    /// Maximum packets per poll (`napi_struct.weight`); 0: unknown.
    pub weight: u32,
    /// Name of the interface when the slot was assigned.
    pub name: [u8; IFNAMSIZ],
}

const _: () = assert!(size_of::<SlotInfo>() == 64);
