//! The load of the case study: a proxy that forwards small messages at a steady rate over two TCP
//! connections, one of whose receivers has stopped reading, plus a steady stream of datagrams.
//!
//! A message goes to the receiver that does not read as long as its buffer accepts it, and to the
//! other one otherwise. The rate of messages is therefore independent of receive buffer sizes; the
//! sizes decide how many messages pile up at the receiver that does not read.

use std::{
    fs,
    io::{Error, ErrorKind, Read},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{load, namespace};

/// Period of sending messages and datagrams. A late thread catches up, but not by more than
/// `MOST_LATE`: the load of one window must not move into the next.
const EVERY: Duration = Duration::from_millis(1);
const MOST_LATE: Duration = Duration::from_millis(200);

const MESSAGES: u32 = 100;
const DATAGRAMS: u32 = 30;

/// A message. The kernel charges 832 bytes more for its segment (Linux 6.18).
const MESSAGE: [u8; 160] = [0; 160];

/// Bytes that a receiver reads before it stops, in pieces that are segments of their own. By then
/// its window is as large as its buffer allows, and it advertises more bytes than the buffer holds
/// in segments as small as messages. With larger pieces the kernel would advertise so much that not
/// even a collapse frees enough space, and it would drop segments.
const READ: usize = 32_000_000;
const PIECE: [u8; 4096] = [0; 4096];

/// How long a receiver that does not read lives before it is replaced: connections keep the receive
/// buffers they started with.
pub const CONNECTION: Duration = Duration::from_secs(1);

/// Rounds of messages between acknowledgements of the receiver that does not read. An acknowledged
/// segment can be merged with the next ones as they arrive, and those need no collapse. But if
/// thousands wait for one delayed acknowledgement, freeing them takes the sender milliseconds in
/// `tcp_ack`: a stall that no receive buffer size fixes.
const ACKNOWLEDGE: u32 = 2;

/// A connection over loopback.
struct Connection {
    sender: TcpStream,
    receiver: TcpStream,
}

/// Runs the load until `until` returns true, with the namespace's current receive buffer sizes.
///
/// # Errors
///
/// In the machine's own network namespace, and when the kernel refuses the setup.
pub fn run(until: &(impl Fn() -> bool + Sync)) -> Result<()> {
    ensure!(namespace::is_private()?, "this load runs only in a network namespace of its own");
    // A receiver that does not read acknowledges its last segments late. Nothing is lost, but tail
    // loss probes would be counted as retransmitted segments.
    let path = "/proc/sys/net/ipv4/tcp_early_retrans";
    fs::write(path, "0").with_context(|| format!("write {path}"))?;
    thread::scope(|scope| {
        let datagrams = scope.spawn(|| datagrams(until));
        let sent = messages(until);
        datagrams.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        sent
    })
}

fn messages(until: &impl Fn() -> bool) -> Result<()> {
    let mut reading = Connection::new()?;
    let mut pace = Pace::new();
    while !until() {
        let mut stuck = Connection::new()?;
        stuck.read_at_first()?;
        let end = Instant::now() + CONNECTION;
        for round in 1.. {
            if Instant::now() > end || until() {
                break;
            }
            for _ in 0..MESSAGES {
                if !stuck.send()? {
                    ensure!(reading.send()?, "the reading receiver accepts nothing");
                }
            }
            if round % ACKNOWLEDGE == 0 {
                stuck.acknowledge()?;
            }
            reading.drain()?;
            pace.wait();
        }
    }
    Ok(())
}

fn datagrams(until: &impl Fn() -> bool) -> Result<()> {
    let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    receiver.set_nonblocking(true)?;
    let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    sender.connect(receiver.local_addr()?)?;
    let mut buffer = [0; 512];
    let mut pace = Pace::new();
    while !until() {
        for _ in 0..DATAGRAMS {
            sender.send(&buffer).context("send a datagram")?;
            // A datagram may still be in flight.
            let _ = receiver.recv(&mut buffer);
        }
        pace.wait();
    }
    Ok(())
}

/// A steady pace of the calling thread.
struct Pace {
    next: Instant,
}

impl Pace {
    /// Gives the thread real-time priority, so that it keeps its pace on a busy machine. Without
    /// the privilege it keeps its pace only on an idle one.
    fn new() -> Self {
        let priority = libc::sched_param { sched_priority: 1 };
        // SAFETY: the parameter is valid for the call; 0 is the calling thread.
        unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &priority) };
        Self { next: Instant::now() }
    }

    fn wait(&mut self) {
        let now = Instant::now();
        self.next += EVERY;
        self.next = now.checked_sub(MOST_LATE).map_or(self.next, |least| self.next.max(least));
        thread::sleep(self.next.saturating_duration_since(now));
    }
}

impl Connection {
    fn new() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen on loopback")?;
        let sender = TcpStream::connect(listener.local_addr()?).context("connect to loopback")?;
        let (receiver, _) = listener.accept()?;
        // Each message must be sent at once as its own segment. BBR, the default on some machines,
        // keeps so few in flight that messages are sent together.
        sender.set_nodelay(true)?;
        load::congestion_control(&sender, "reno")?;
        sender.set_nonblocking(true)?;
        receiver.set_nonblocking(true)?;
        Ok(Self { sender, receiver })
    }

    /// Opens the receiver's window. From then on the window is closed when a message has to wait.
    fn read_at_first(&mut self) -> Result<()> {
        let mut sent = 0;
        while sent < READ {
            sent += self.write(&PIECE)?;
            self.drain()?;
        }
        option(&self.sender, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, 1)
    }

    /// Sends a message, or the part of it that fits. Returns whether anything was sent.
    fn send(&mut self) -> Result<bool> {
        Ok(self.write(&MESSAGE)? > 0)
    }

    /// Sends as much as the kernel accepts now, as a segment that nothing is appended to.
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        // SAFETY: the bytes are valid for the call, and the length is theirs.
        let sent = unsafe {
            let (start, length) = (bytes.as_ptr().cast(), bytes.len());
            libc::send(self.sender.as_raw_fd(), start, length, libc::MSG_EOR)
        };
        match usize::try_from(sent) {
            Ok(sent) => Ok(sent),
            Err(_) => match Error::last_os_error() {
                error if error.kind() == ErrorKind::WouldBlock => Ok(0),
                error => Err(error).context("send a message"),
            },
        }
    }

    /// Makes the kernel acknowledge everything that has arrived, although nobody has read it.
    fn acknowledge(&self) -> Result<()> {
        option(&self.receiver, libc::IPPROTO_TCP, libc::TCP_QUICKACK, 1)
    }

    /// Reads everything that has arrived.
    fn drain(&mut self) -> Result<()> {
        let mut buffer = [0; 64 << 10];
        loop {
            match self.receiver.read(&mut buffer) {
                Ok(read) if read == buffer.len() => {}
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("read messages"),
            }
        }
    }
}

fn option(
    socket: &TcpStream,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> Result<()> {
    let length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the value is valid for the call, and the length is that of the value.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length)
    };
    ensure!(result == 0, "socket option {name}: {}", Error::last_os_error());
    Ok(())
}
