//! Requests and responses between two network namespaces over a veth pair: one request at a time,
//! each timed.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::{cpus, slices::Load};
use crate::{load, namespace, tool};

const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const PORT: u16 = 7;

/// Bytes of a request and of a response.
const MESSAGE: usize = 64;

/// A response that takes longer counts as lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// A client whose server echoes, in another network namespace.
pub struct Pair {
    client: Client,
    latencies: Histogram<u64>,
}

enum Client {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

impl Pair {
    /// Creates the devices and the server, whose device is in a namespace of its own. `protocol` is
    /// `tcp` or `udp`. Pins this thread to the last CPU and the server to the first.
    ///
    /// # Errors
    ///
    /// When the kernel or `ip` refuses.
    pub fn new(protocol: &str) -> Result<Self> {
        let tcp = match protocol {
            "tcp" => true,
            "udp" => false,
            other => bail!("protocol {other:?}: tcp or udp"),
        };
        load::pin_to(cpus() - 1)?;
        // Up to a minute, with three significant digits.
        let latencies = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
        Ok(Self { client: make(tcp)?, latencies })
    }
}

impl Load for Pair {
    fn send(&mut self, events: u64) -> Result<()> {
        for _ in 0..events {
            let started = Instant::now();
            self.client.exchange()?;
            self.latencies.saturating_record(started.elapsed().as_nanos() as u64);
        }
        Ok(())
    }

    fn outcome(&mut self) -> Result<Value> {
        let histogram: Vec<(u64, u64)> = self
            .latencies
            .iter_recorded()
            .map(|value| (value.value_iterated_to(), value.count_at_value()))
            .collect();
        let count = self.latencies.len();
        self.latencies.reset();
        Ok(json!({ "sent": count, "received": count, "histogram": histogram }))
    }
}

impl Client {
    fn exchange(&mut self) -> Result<()> {
        let mut message = [1; MESSAGE];
        match self {
            Self::Tcp(stream) => {
                stream.write_all(&message).context("send a request")?;
                stream.read_exact(&mut message).context("wait for a response")
            }
            Self::Udp(socket) => {
                socket.send(&message).context("send a request")?;
                socket.recv(&mut message).map(drop).context("wait for a response")
            }
        }
    }
}

/// Creates the veth pair, the server in a namespace of its own, and the client in this thread's.
fn make(tcp: bool) -> Result<Client> {
    tool::run("ip link add va type veth peer name vb")?;
    let (thread_id, server_thread) = mpsc::channel();
    let (moved, is_moved) = mpsc::channel();
    let (ready, is_ready) = mpsc::channel();
    thread::spawn(move || {
        let ready_for_errors = ready.clone();
        let served: Result<()> = namespace::run(move || {
            // SAFETY: the call takes nothing and cannot fail.
            thread_id.send(unsafe { libc::gettid() })?;
            is_moved.recv()?;
            tool::run(&format!("ip addr add {SERVER}/24 dev vb"))?;
            tool::run("ip link set vb up")?;
            serve(tcp, &ready)
        });
        if let Err(error) = served {
            // Nobody receives it if the server ended because the client is gone.
            let _ = ready_for_errors.send(Err(error));
        }
    });
    let server_thread = server_thread.recv().context("the server's namespace was not created")?;
    tool::run(&format!("ip link set vb netns {server_thread}"))?;
    moved.send(()).context("the server is gone")?;
    tool::run(&format!("ip addr add {CLIENT}/24 dev va"))?;
    tool::run("ip link set va up")?;
    is_ready.recv().context("the server is gone")??;
    let server = SocketAddr::from((SERVER, PORT));
    if tcp {
        let stream = TcpStream::connect_timeout(&server, PATIENCE).context("connect")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        return Ok(Client::Tcp(stream));
    }
    let socket = UdpSocket::bind((CLIENT, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(Client::Udp(socket))
}

/// Runs the echo server on the first CPU.
fn serve(tcp: bool, ready: &mpsc::Sender<Result<()>>) -> Result<()> {
    load::pin_to(0)?;
    let mut message = [0; MESSAGE];
    if tcp {
        let listener = TcpListener::bind((SERVER, PORT))?;
        ready.send(Ok(()))?;
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        loop {
            stream.read_exact(&mut message)?;
            stream.write_all(&message)?;
        }
    }
    let socket = UdpSocket::bind((SERVER, PORT))?;
    ready.send(Ok(()))?;
    loop {
        let (length, from) = socket.recv_from(&mut message)?;
        socket.send_to(&message[..length], from)?;
    }
}
