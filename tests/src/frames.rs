//! Sends UDP packets as raw Ethernet frames: no address, route or neighbour needed.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result};

/// Bytes of a frame: Ethernet 14, IPv4 20, UDP 8, payload 22; the minimum of Ethernet.
const LENGTH: usize = 64;

/// Sends frames over one device.
pub struct Sender {
    socket: OwnedFd,
    address: libc::sockaddr_ll,
    frame: [u8; LENGTH],
}

impl Sender {
    /// Sends from `device` with address `from` to `to`.
    ///
    /// # Errors
    ///
    /// When there is no such device, or the kernel refuses a packet socket.
    pub fn new(device: &str, from: &[u8; 6], to: &[u8; 6]) -> Result<Self> {
        let name = CString::new(device)?;
        // SAFETY: the string is NUL-terminated.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        if index == 0 {
            return Err(io::Error::last_os_error()).with_context(|| format!("device {device}"));
        }
        // Protocol 0: the socket receives nothing.
        // SAFETY: no memory is touched.
        let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0) };
        if socket < 0 {
            return Err(io::Error::last_os_error()).context("open a packet socket");
        }
        // SAFETY: the kernel just returned this descriptor; nobody else owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        // SAFETY: all zero is a valid address.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = index as i32;
        address.sll_halen = 6;
        address.sll_addr[..6].copy_from_slice(to);
        Ok(Self { socket, address, frame: frame(from, to) })
    }

    /// Sends one UDP packet from port `source`, which selects the flow, to port `destination`.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the frame.
    pub fn send(&mut self, source: u16, destination: u16) -> Result<()> {
        self.frame[34..36].copy_from_slice(&source.to_be_bytes());
        self.frame[36..38].copy_from_slice(&destination.to_be_bytes());
        // SAFETY: the frame and the address are valid for the call.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                self.frame.as_ptr().cast(),
                LENGTH,
                0,
                (&raw const self.address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error()).context("send a frame");
        }
        Ok(())
    }
}

fn frame(from: &[u8; 6], to: &[u8; 6]) -> [u8; LENGTH] {
    let mut frame = [0; LENGTH];
    frame[..6].copy_from_slice(to);
    frame[6..12].copy_from_slice(from);
    frame[12..14].copy_from_slice(&0x0800_u16.to_be_bytes());
    let ip = &mut frame[14..34];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&((LENGTH - 14) as u16).to_be_bytes());
    ip[8] = 64;
    ip[9] = libc::IPPROTO_UDP as u8;
    ip[12..16].copy_from_slice(&[198, 51, 100, 1]);
    ip[16..20].copy_from_slice(&[198, 51, 100, 2]);
    let sum = ip.chunks(2).map(|b| u32::from(u16::from_be_bytes([b[0], b[1]]))).sum::<u32>();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    frame[38..40].copy_from_slice(&((LENGTH - 34) as u16).to_be_bytes());
    frame
}
