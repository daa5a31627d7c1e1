//! Slow calls of `tcp_collapse` are reported with their socket; missed program runs are reported.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::fd::AsRawFd,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use aya::programs::KProbe;
use latency_tests::{counters, load, load::Collapse, namespace, release};
use latency_user::model::stall::collapse::Collapse as Record;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    injector::Injector,
    suite::{Where, trial, trial_since},
    tracing::{Tracing, kinds},
};

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    // Arm masks interrupts while a probe runs, so no other can be missed meanwhile.
    let may_miss = cfg!(target_arch = "x86_64");
    [
        trial("sockets::a_collapsed_ipv4_socket_is_named", Where::Vm, &["ip"], ipv4),
        trial("sockets::a_collapsed_ipv6_socket_is_named", Where::Vm, &["ip"], ipv6),
        may_miss
            .then(|| {
                trial_since((5, 17), "sockets::missed_probes_are_reported", Where::Vm, &[], missed)
            })
            .flatten(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn ipv4() -> Result<()> {
    namespace::run(|| named(Ipv4Addr::LOCALHOST.into()))
}

fn ipv6() -> Result<()> {
    namespace::run(|| {
        for device in ["all", "lo"] {
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6"), "0")?;
        }
        named(Ipv6Addr::LOCALHOST.into())
    })
}

/// Memory of a socket as its own process can read it.
struct Socket {
    rcvbuf: u64,
    rmem_alloc: u64,
    payload: u64,
}

impl Socket {
    fn read(socket: &TcpStream) -> Result<Self> {
        // The first two elements are `SK_MEMINFO_RMEM_ALLOC` and `SK_MEMINFO_RCVBUF`.
        let mut info = [0_u32; 9];
        let mut length = size_of_val(&info) as libc::socklen_t;
        // SAFETY: the buffer and its length are valid for the call.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_MEMINFO,
                info.as_mut_ptr().cast(),
                &mut length,
            )
        };
        ensure!(result == 0, "SO_MEMINFO: {}", io::Error::last_os_error());
        let mut payload: libc::c_int = 0;
        // SAFETY: FIONREAD writes one int.
        let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &mut payload) };
        ensure!(result == 0, "FIONREAD: {}", io::Error::last_os_error());
        Ok(Self {
            rcvbuf: info[1].into(),
            rmem_alloc: info[0].into(),
            payload: u64::try_from(payload)?,
        })
    }

    fn ratio(&self) -> f64 {
        self.payload as f64 / self.rmem_alloc.max(1) as f64
    }
}

fn named(loopback: IpAddr) -> Result<()> {
    let mut load = Collapse::connect(load::LARGE_RMEM, loopback)?;
    let local: SocketAddr = load.receiver.local_addr()?;
    let remote = load.receiver.peer_addr()?;
    let inode = std::fs::read_link(format!("/proc/self/fd/{}", load.receiver.as_raw_fd()))?;
    let before = Socket::read(&load.receiver)?;
    let tracing = Tracing::start(&["--collapse-threshold", "1ns", "--max-stalls", "1000000"])?;
    let receiver = load.receiver.try_clone()?;
    let mut states: Vec<Socket> = Vec::new();
    let mut collapsed = 0;
    load.send(Duration::from_secs(120), || {
        states.extend(Socket::read(&receiver));
        // The buffer grows to its limit before anything is collapsed.
        collapsed = counters::netstat("TcpExt", "TCPRcvCollapsed").unwrap_or(0);
        collapsed > 0
    })?;
    let after = Socket::read(&load.receiver)?;
    let objects = tracing.objects()?;

    let records: Vec<Record> = kinds(&objects, "collapse")
        .map(|object| Ok(serde_json::from_value(object.clone())?))
        .collect::<Result<_>>()?;
    ensure!(!records.is_empty(), "no record, {collapsed} packets collapsed");
    let netns = std::fs::read_link("/proc/thread-self/ns/net")?;
    for record in &records {
        ensure!((record.socket.local, record.socket.remote) == (local, remote), "{record:?}");
        ensure!(inode.to_string_lossy().contains(&record.socket.inode.to_string()), "{record:?}");
        ensure!(netns.to_string_lossy().contains(&record.socket.netns.to_string()), "{record:?}");
        let owner = record.owner.as_ref().context("no owner")?;
        ensure!(owner.pid == std::process::id() && !owner.comm.is_empty(), "{owner:?}");
        let state = &record.before;
        ensure!((before.rcvbuf..=after.rcvbuf).contains(&state.rcvbuf), "{state:?}");
        ensure!(u64::from(state.payload_bytes) <= after.payload, "{state:?}");
        // The kernel collapses because the buffer is full.
        ensure!(state.rmem_alloc * 2 > state.rcvbuf && state.queue_len > 0, "{state:?}");
        ensure!(record.rmem_alloc_after <= state.rmem_alloc, "{record:?}");
    }
    // The process saw the same ratio of payload to memory as the kernel: the buffer is fullest when
    // it is collapsed.
    let fullest =
        states.iter().max_by_key(|state| state.rmem_alloc).context("the socket was never read")?;
    let nearest = records
        .iter()
        .filter_map(|record| Some(record.before.payload_ratio? / fullest.ratio()))
        .min_by(|a, b| (a - 1.0).abs().total_cmp(&(b - 1.0).abs()))
        .context("no ratio")?;
    ensure!((0.9..1.1).contains(&nearest), "{nearest} of {}: {records:?}", fullest.ratio());
    let summary = objects.last().context("no summary")?;
    let socket = &summary["stalls"]["sockets"][0];
    ensure!(socket["calls"].as_u64() == Some(records.len() as u64), "{socket}");
    ensure!(summary["ledger"]["balanced"] == true, "{}", summary["ledger"]);
    Ok(())
}

/// While another kprobe occupies the CPU, the kernel runs none of our probes there.
fn missed() -> Result<()> {
    namespace::run(|| {
        std::fs::write("/sys/class/net/lo/queues/rx-0/rps_cpus", "1")?;
        let mut hog = Injector::load(Duration::from_millis(30))?;
        let program: &mut KProbe = hog.program_mut("hog").context("no hog")?.try_into()?;
        program.load()?;
        program.attach("__x64_sys_getppid", 0)?;
        let tracing = Tracing::start(&["--stages", "net_rx", "--probes", "kprobe"])?;
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let packets = scope.spawn(|| {
                load::pin_to(1)?;
                while !done.load(Ordering::Relaxed) {
                    load::udp(13)?;
                    thread::sleep(Duration::from_millis(1));
                }
                anyhow::Ok(())
            });
            let pinned = load::pin_to(0);
            for _ in 0..31 {
                // SAFETY: the call takes nothing and cannot fail.
                unsafe { libc::getppid() };
            }
            done.store(true, Ordering::Relaxed);
            packets.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).and(pinned)
        })?;
        let summary = tracing.summary()?;
        let programs = summary["ledger"]["programs"].as_array().context("no programs")?;
        // Others are the sampler's and, where softirqs are preemptible, the scheduler's.
        let is_probe = |name: &Value| name.as_str().is_some_and(|name| name.ends_with("probe"));
        let probes: Vec<&Value> =
            programs.iter().filter(|program| is_probe(&program["program"])).collect();
        ensure!(probes.len() == 2, "{programs:?}");
        // Older kernels do not report misses; the summary then has null instead of 0.
        if release::is_before(6, 7) {
            ensure!(probes.iter().all(|probe| probe["missed"].is_null()), "{probes:?}");
            return Ok(());
        }
        // Where softirqs are tasks, none runs inside the program that occupies the CPU.
        let missed = |probe: &&&Value| match release::is_preempt_rt() {
            true => probe["missed"] == 0,
            false => probe["missed"].as_u64() > Some(0),
        };
        ensure!(probes.iter().all(|probe| missed(&probe)), "{probes:?}");
        Ok(())
    })
}
