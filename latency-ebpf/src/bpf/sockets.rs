//! Reads TCP sockets: their addresses and receive queues.

use aya_ebpf::EbpfContext;
use latency_common::{
    collapse_call::{CollapseCall, SocketBefore},
    stall_record::{CollapseRecord, NO_ROW, RecordKind},
};

use super::{
    cpu::Cpu,
    offsets::{self, field_address, read_bytes, read_field},
    slots::{napi_id, napi_row},
};

/// `AF_INET6`.
const INET6: u16 = 10;

/// Receive queue and limits of the socket at address `sock`. Fields that this kernel does not have
/// are 0.
#[inline(always)]
pub(crate) fn state(sock: u64) -> SocketBefore {
    let field = |offset| read_field::<u32>(sock, offset).unwrap_or(0);
    let received = field(&offsets::TCP_RCV_NXT);
    SocketBefore {
        rmem_alloc: field(&offsets::SK_RMEM_ALLOC),
        rcvbuf: field(&offsets::SK_RCVBUF),
        rcv_ssthresh: field(&offsets::TCP_RCV_SSTHRESH),
        window_clamp: field(&offsets::TCP_WINDOW_CLAMP),
        queue_len: field(&offsets::SK_QUEUE_LEN),
        payload_bytes: received.wrapping_sub(field(&offsets::TCP_COPIED_SEQ)),
    }
}

/// The row of the NAPI instance being polled; [`NO_ROW`] outside of polls, and if the probe sees
/// only the end of polls.
#[inline(always)]
pub(crate) fn polled_row(ctx: &impl EbpfContext, cpu: &mut Cpu) -> u32 {
    let napi = cpu.state.poll_napi;
    if cpu.state.poll_start_ns == 0 || napi == 0 {
        return NO_ROW;
    }
    napi_row(ctx, cpu, napi, napi_id)
}

/// Writes the record of a finished call and its socket.
#[inline(always)]
pub(crate) fn describe(
    record: *mut CollapseRecord,
    cpu: u32,
    call: &CollapseCall,
    end_ns: u64,
    poll_row: u32,
) {
    let sock = call.sock;
    let family = read_field::<u16>(sock, &offsets::SK_FAMILY).unwrap_or(0);
    let (local, remote) = if family == INET6 {
        let address = |offset| read_bytes::<16>(sock, offset);
        (address(&offsets::SK_V6_RCV_SADDR), address(&offsets::SK_V6_DADDR))
    } else {
        let address = |offset| widened(read_bytes::<4>(sock, offset));
        (address(&offsets::SK_RCV_SADDR), address(&offsets::SK_DADDR))
    };
    let remote_port = u16::from_be(read_field::<u16>(sock, &offsets::SK_DPORT).unwrap_or(0));
    let described = CollapseRecord {
        kind: RecordKind::Collapse as u32,
        cpu,
        end_ns,
        duration_ns: end_ns.saturating_sub(call.start_ns),
        inode: inode(sock).unwrap_or(0),
        netns: netns(sock).unwrap_or(0),
        family: u32::from(family),
        local_port: u32::from(read_field::<u16>(sock, &offsets::SK_NUM).unwrap_or(0)),
        remote_port: u32::from(remote_port),
        local,
        remote,
        before: call.before,
        rmem_alloc_after: read_field::<u32>(sock, &offsets::SK_RMEM_ALLOC).unwrap_or(0),
        out_of_order: call.out_of_order,
        poll_row,
        reserved: 0,
    };
    // SAFETY: the caller passes a ring-buffer entry that is not submitted yet.
    unsafe { record.write(described) };
}

/// Pads an IPv4 address to 16 bytes.
#[inline(always)]
fn widened(address: [u8; 4]) -> [u8; 16] {
    let mut wide = [0; 16];
    wide[0] = address[0];
    wide[1] = address[1];
    wide[2] = address[2];
    wide[3] = address[3];
    wide
}

/// Inode of the network namespace.
#[inline(always)]
fn netns(sock: u64) -> Option<u32> {
    read_field(read_field(sock, &offsets::SK_NET)?, &offsets::NET_INUM)
}

/// Inode of the socket, as processes see it. `None`: closed by the process.
#[inline(always)]
fn inode(sock: u64) -> Option<u64> {
    let socket = read_field::<u64>(sock, &offsets::SK_SOCKET).filter(|socket| *socket != 0)?;
    read_field(field_address(socket, &offsets::SOCKET_INODE)?, &offsets::INODE_NUMBER)
}
