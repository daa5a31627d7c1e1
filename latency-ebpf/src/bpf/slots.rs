//! Finds the row of a NAPI instance or hard IRQ, and assigns a slot when first seen.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_log_ebpf::warn;
use latency_common::{
    cpu_state::{CACHED_NAPIS, CachedNapi},
    row_layout::CpuRow,
    slot::{IFNAMSIZ, SlotInfo, SlotKey, SlotKind},
    stage::Stage,
};

use super::{
    atomic::{add, fetch_add, has_fetch},
    config,
    cpu::Cpu,
    maps::{SLOT_BY_KEY, SLOT_CURSOR, SLOT_INFO},
    offsets::{self, read_bytes, read_field},
};

/// The id of the NAPI instance at address `napi`; `None`: it cannot be read.
#[inline(always)]
pub(crate) fn napi_id(napi: u64) -> Option<u32> {
    read_field(napi, &offsets::NAPI_ID)
}

/// The row of the NAPI instance at address `napi`, whose id is what `id` returns.
#[inline(always)]
pub(crate) fn napi_row(
    ctx: &impl aya_ebpf::EbpfContext,
    cpu: &mut Cpu,
    napi: u64,
    id: impl FnOnce(u64) -> Option<u32>,
) -> u32 {
    if napi == cpu.state.backlog_napi {
        return cpu.row(CpuRow::Backlog);
    }
    let id = id(napi).unwrap_or(0);
    cpu.state.napi_id = id;
    let cached = cached(cpu, id);
    if id != 0 && napi == cached.address && id == cached.id {
        return cached.row;
    }
    find_napi_row(ctx, cpu, napi, id)
}

/// Slow path of [`napi_row`]: this CPU does not remember the instance.
#[inline(always)]
fn find_napi_row(ctx: &impl aya_ebpf::EbpfContext, cpu: &mut Cpu, napi: u64, id: u32) -> u32 {
    let device = read_field::<u64>(napi, &offsets::NAPI_DEV).unwrap_or(0);
    if device == 0 {
        cpu.state.backlog_napi = napi;
        return cpu.row(CpuRow::Backlog);
    }
    let key = match id {
        0 => SlotKey {
            kind: SlotKind::NapiWithoutId as u32,
            id: read_field(device, &offsets::DEV_IFINDEX).unwrap_or(0),
            cpu: cpu.id,
            netns: device_netns(device),
        },
        id => SlotKey { kind: SlotKind::Napi as u32, id, cpu: 0, netns: 0 },
    };
    let row = match look_up(&key) {
        Some(row) => row,
        None => {
            let info = device_info(device, napi, key.kind, id, cpu.id);
            match assign_slot(&key, &info) {
                Some(row) => row,
                None => {
                    if count_full(cpu, Stage::NapiPoll) {
                        warn!(ctx, "no slot is left for NAPI instance {}", id);
                    }
                    return cpu.row(CpuRow::NapiOther);
                }
            }
        }
    };
    *cached(cpu, id) = CachedNapi { address: napi, id, row, votes: 0, reserved: 0 };
    row
}

/// Where the row of the NAPI instance `id` may be remembered.
#[inline(always)]
fn cached(cpu: &mut Cpu, id: u32) -> &mut CachedNapi {
    &mut cpu.state.napis[id as usize % CACHED_NAPIS]
}

/// How often each CPU notes the IRQ of the NAPI instance that it polls.
const IRQ_VOTES: u32 = 64;

/// Notes the hard IRQ that scheduled the NAPI instance of `row`, the first one polled in a run of
/// NET_RX, whose row was looked up last. The IRQ is known if it alone raised the run, in its handler.
#[inline(always)]
pub(crate) fn note_irq(cpu: &mut Cpu, row: u32) {
    let irq_plus_one = cpu.state.run_irq_plus_one;
    if irq_plus_one == 0 {
        return;
    }
    // Polls of backlogs are in rows before the slots.
    let Some(info) =
        row.checked_sub(config::SLOT_BASE.load()).and_then(|slot| SLOT_INFO.get_ptr_mut(slot))
    else {
        return;
    };
    let cached = cached(cpu, cpu.state.napi_id);
    if cached.votes >= IRQ_VOTES {
        return;
    }
    cached.votes += 1;
    // SAFETY: the pointer comes from a map lookup. Two CPUs that write at once may lose a vote.
    let info = unsafe { &mut *info };
    if info.irq_seen == 0 {
        info.irq_seen = irq_plus_one;
    }
    if info.irq_seen == irq_plus_one {
        info.irq_votes += 1;
    } else {
        info.irq_conflicts += 1;
    }
}

/// The row of hard IRQ `irq` on this CPU.
#[inline(always)]
pub(crate) fn irq_row(ctx: &impl aya_ebpf::EbpfContext, cpu: &mut Cpu, irq: u32) -> u32 {
    if irq.wrapping_add(1) == cpu.state.cached_irq_plus_one {
        return cpu.state.cached_irq_row;
    }
    let key = SlotKey { kind: SlotKind::Irq as u32, id: irq, cpu: cpu.id, netns: 0 };
    let info = SlotInfo {
        kind: key.kind,
        id: irq,
        cpu: cpu.id,
        netns: 0,
        ifindex: 0,
        rx_queue_seen: 0,
        rx_queue_conflicts: 0,
        irq_seen: 0,
        irq_votes: 0,
        irq_conflicts: 0,
        reserved: 0,
        weight: 0,
        name: [0; IFNAMSIZ],
    };
    let Some(row) = look_up(&key).or_else(|| assign_slot(&key, &info)) else {
        if count_full(cpu, Stage::Irq) {
            warn!(ctx, "no slot is left for hard IRQ {}", irq);
        }
        return cpu.row(CpuRow::IrqOther);
    };
    cpu.state.cached_irq_plus_one = irq.wrapping_add(1);
    cpu.state.cached_irq_row = row;
    row
}

/// Counts an event that goes into a catch-all row; true for the first one on a CPU.
#[inline(always)]
fn count_full(cpu: &mut Cpu, stage: Stage) -> bool {
    let counter = &mut cpu.ledger(stage).table_full;
    *counter += 1;
    *counter == 1
}

/// The row of a key that has a slot.
#[inline(always)]
fn look_up(key: &SlotKey) -> Option<u32> {
    // SAFETY: elements are never removed or replaced.
    unsafe { SLOT_BY_KEY.get(key) }.map(|slot| config::SLOT_BASE.load() + *slot)
}

/// Assigns a slot to `key` and returns its row; `None`: no slot is left.
///
/// Two CPUs may register the same key at once: the first one's slot is used, and the other's is
/// abandoned.
#[inline(always)]
fn assign_slot(key: &SlotKey, info: &SlotInfo) -> Option<u32> {
    // SAFETY: the pointer comes from a map lookup; all CPUs add to it atomically.
    let cursor = unsafe { &mut *SLOT_CURSOR.get_ptr_mut(0)? };
    let slots = u64::from(config::SLOTS.load());
    if *cursor >= slots {
        return None; // Checked before the add: a full table must not contend for the cache line.
    }
    let slot = if has_fetch() { fetch_add(cursor, 1) } else { claim(cursor)? };
    if slot >= slots {
        return None;
    }
    let slot = slot as u32;
    SLOT_INFO.set(slot, info, 0).ok()?;
    if SLOT_BY_KEY.insert(key, &slot, u64::from(BPF_NOEXIST)).is_err() {
        // SAFETY: the pointer comes from a map lookup, and the slot is ours.
        unsafe { (*SLOT_INFO.get_ptr_mut(slot)?).kind = SlotKind::Abandoned as u32 };
        return look_up(key);
    }
    Some(config::SLOT_BASE.load() + slot)
}

/// How many CPUs may claim a slot at once.
const CLAIMERS: u64 = 128;
/// The kind of their keys, which no slot has.
const CLAIM: u32 = u32::MAX;

/// Claims the next slot, on kernels that cannot add and tell the previous value: a key can be
/// inserted only once. The claimed slots are always the first ones, and `cursor` their number or
/// less.
#[inline(always)]
fn claim(cursor: &mut u64) -> Option<u64> {
    let first = *cursor;
    for slot in first..first + CLAIMERS {
        let key = SlotKey { kind: CLAIM, id: slot as u32, cpu: 0, netns: 0 };
        if SLOT_BY_KEY.insert(key, 0, u64::from(BPF_NOEXIST)).is_ok() {
            add(cursor, 1);
            return Some(slot);
        }
    }
    None
}

/// Describes the NAPI instance at address `napi` and its device.
#[inline(always)]
fn device_info(device: u64, napi: u64, kind: u32, id: u32, cpu: u32) -> SlotInfo {
    SlotInfo {
        kind,
        id,
        cpu,
        netns: device_netns(device),
        ifindex: read_field(device, &offsets::DEV_IFINDEX).unwrap_or(0),
        rx_queue_seen: 0,
        rx_queue_conflicts: 0,
        irq_seen: 0,
        irq_votes: 0,
        irq_conflicts: 0,
        reserved: 0,
        weight: read_field(napi, &offsets::NAPI_WEIGHT).unwrap_or(0),
        name: read_bytes::<IFNAMSIZ>(device, &offsets::DEV_NAME),
    }
}

/// Inode of the network namespace of the device at address `device`; 0: unknown.
#[inline(always)]
fn device_netns(device: u64) -> u32 {
    read_field::<u64>(device, &offsets::DEV_NET)
        .and_then(|net| read_field::<u32>(net, &offsets::NET_INUM))
        .unwrap_or(0)
}

/// Notes which RX queue a packet of NAPI instance `napi_id` came from.
#[inline(always)]
pub(crate) fn note_rx_queue(napi_id: u32, queue_mapping: u16) {
    let key = SlotKey { kind: SlotKind::Napi as u32, id: napi_id, cpu: 0, netns: 0 };
    // SAFETY: as in `look_up`.
    let Some(slot) = (unsafe { SLOT_BY_KEY.get(&key) }) else {
        return; // Its first poll has not ended yet: a later packet is used.
    };
    let Some(info) = SLOT_INFO.get_ptr_mut(*slot) else {
        return;
    };
    // SAFETY: the pointer comes from a map lookup. Two CPUs that write at once may lose a
    // conflict; the next packet reports it again.
    let info = unsafe { &mut *info };
    let seen = u32::from(queue_mapping) + 1;
    if info.rx_queue_seen == 0 {
        info.rx_queue_seen = seen;
    } else if info.rx_queue_seen != seen {
        info.rx_queue_conflicts += 1;
    }
}
