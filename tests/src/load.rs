//! Loads, bounded in time and size.

use std::{
    io::{ErrorKind, Write},
    mem,
    net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{namespace, tool};

/// The case study's receive buffer sizes: minimum, default and maximum of `net.ipv4.tcp_rmem`.
pub const LARGE_RMEM: &str = "4096 5242880 33554432";
/// The sizes that fixed it.
pub const SMALL_RMEM: &str = "4096 1048576 2097152";

/// A TCP connection over loopback whose receiver never reads: its queue fills with tiny segments,
/// and the kernel collapses it again and again.
pub struct Collapse {
    sender: TcpStream,
    /// The receiving end.
    pub receiver: TcpStream,
    sent: u64,
}

impl Collapse {
    /// Connects over `loopback`, an address of the loopback device, with `rmem` as `tcp_rmem`.
    ///
    /// # Errors
    ///
    /// In the machine's own network namespace, and when the kernel refuses the setup.
    pub fn connect(rmem: &str, loopback: IpAddr) -> Result<Self> {
        ensure!(
            namespace::is_private()?,
            "this load sets net.ipv4.tcp_rmem: it runs only in a network namespace of its own"
        );
        let path = "/proc/sys/net/ipv4/tcp_rmem";
        std::fs::write(path, rmem).with_context(|| format!("write {rmem:?} to {path}"))?;
        tool::run("ip link set lo up")?;
        Self::connect_as_is(loopback)
    }

    /// Connects over `loopback` with the namespace's current receive buffer sizes.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the setup.
    pub fn connect_as_is(loopback: IpAddr) -> Result<Self> {
        let listener = TcpListener::bind((loopback, 0)).context("listen on loopback")?;
        let sender = TcpStream::connect(listener.local_addr()?).context("connect to loopback")?;
        let (receiver, _) = listener.accept()?;
        sender.set_nodelay(true)?;
        // Each byte must be sent as its own segment. BBR, the default on some machines, keeps so
        // few in flight that bytes are sent together.
        congestion_control(&sender, "reno")?;
        sender.set_write_timeout(Some(Duration::from_millis(100)))?;
        Ok(Self { sender, receiver, sent: 0 })
    }

    /// Sends single bytes until `until` returns true or `longest` has passed. Returns the number of
    /// bytes sent so far.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to send.
    pub fn send(&mut self, longest: Duration, mut until: impl FnMut() -> bool) -> Result<u64> {
        let end = Instant::now() + longest;
        while Instant::now() < end && !until() {
            // Checking the clock and `until` for each byte would slow the load down.
            for _ in 0..256 {
                match self.sender.write(&[0]) {
                    Ok(bytes) => self.sent += bytes as u64,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error).context("send a byte"),
                }
            }
        }
        Ok(self.sent)
    }
}

/// Connects a [`Collapse`] over IPv4 and sends.
///
/// # Errors
///
/// As [`Collapse`].
pub fn tcp_collapse(rmem: &str, longest: Duration, until: impl FnMut() -> bool) -> Result<u64> {
    Collapse::connect(rmem, Ipv4Addr::LOCALHOST.into())?.send(longest, until)
}

pub(crate) fn congestion_control(socket: &TcpStream, name: &str) -> Result<()> {
    // SAFETY: the name is valid for the call, and the length is that of the name.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_CONGESTION,
            name.as_ptr().cast(),
            name.len() as libc::socklen_t,
        )
    };
    ensure!(result == 0, "congestion control {name}: {}", std::io::Error::last_os_error());
    Ok(())
}

/// Sends `packets` UDP datagrams of 64 bytes over loopback: one NET_RX softirq each. Nobody reads
/// them; datagrams that do not fit the receiver's buffer are dropped after NET_RX has run.
///
/// # Errors
///
/// When the kernel refuses sockets.
pub fn udp(packets: u64) -> Result<()> {
    let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    sender.connect(receiver.local_addr()?)?;
    for _ in 0..packets {
        sender.send(&[0; 64]).context("send a datagram")?;
    }
    Ok(())
}

/// Keeps the calling thread on one CPU.
///
/// # Errors
///
/// When there is no such CPU.
pub fn pin_to(cpu: usize) -> Result<()> {
    pin(0, cpu)
}

/// Keeps a thread on one CPU; 0 is the calling thread.
///
/// # Errors
///
/// When there is no such CPU or thread.
pub fn pin(thread: i32, cpu: usize) -> Result<()> {
    // SAFETY: an empty set is all zero; CPU_SET writes inside it.
    let set = unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        set
    };
    // SAFETY: the set is valid for the call.
    let result = unsafe { libc::sched_setaffinity(thread, size_of::<libc::cpu_set_t>(), &set) };
    ensure!(result == 0, "run on CPU {cpu}: {}", std::io::Error::last_os_error());
    Ok(())
}
