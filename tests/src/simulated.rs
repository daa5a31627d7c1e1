//! Simulated measurements of large machines: rows in real map memory, and recordings.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    path::Path,
    ptr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use aya::{EbpfLoader, maps::Map};
use latency_common::{
    bucket,
    row::{self, HistogramRow},
    row_layout::{CPU_ROWS, RowLayout},
    slot::{SlotInfo, SlotKind},
    stage::Stage,
};
use latency_user::{
    kernel::maps::mmap::MmapArray,
    model::{
        distribution::Distribution,
        method::Method,
        run::{Run, Sampling, SelectedProbe, Transport},
        series::{Location, Queue, QueueId, Series, attrs::QueueAttrs},
    },
};

/// Threshold of simulated runs, ns.
pub const THRESHOLD_NS: u64 = 1_000_000;

/// Number of random values per row and interval, and how often each is counted: about 150 buckets
/// of a row are in use, as on a machine with thousands of packets per second.
const DRAWS: usize = 200;
const TIMES: u64 = 50;

/// A tracer's rows in a BPF map, and a second mapping to write to them.
pub struct Rows {
    /// The rows, as the tracer reads them.
    pub mapped: MmapArray<HistogramRow>,
    /// The owners of the slots' rows.
    pub slots: MmapArray<SlotInfo>,
    /// The arrangement of the rows.
    pub layout: RowLayout,
    memory: *mut HistogramRow,
    active: Vec<usize>,
    random: u64,
}

impl Rows {
    /// Creates the maps of the eBPF object at `object`, sized for a machine with `cpus` CPUs and
    /// one NIC with `queues` queues, each with an IRQ.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the maps.
    pub fn new(object: &Path, cpus: u32, queues: u32) -> Result<Self> {
        let layout = RowLayout { cpus, rows_per_cpu: CPU_ROWS, slots: 2 * queues };
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("ROWS", layout.rows())
            .map_max_entries("SLOT_INFO", layout.slots)
            .load_file(object)
            .with_context(|| format!("load {}", object.display()))?;
        let slots = ebpf.take_map("SLOT_INFO").context("no map SLOT_INFO")?;
        let memory = writable(&slots, layout.slots as usize * size_of::<SlotInfo>())?;
        for number in 0..layout.slots {
            let slot = slot(number, queues, cpus);
            // SAFETY: inside the mapping, which nobody else writes.
            unsafe { memory.cast::<SlotInfo>().add(number as usize).write(slot) };
        }
        let rows = ebpf.take_map("ROWS").context("no map ROWS")?;
        let memory = writable(&rows, layout.rows() as usize * size_of::<HistogramRow>())?;
        // rx_wait, net_rx and backlog of each CPU; every queue and IRQ.
        let of_cpus = (0..cpus).flat_map(|cpu| [0, 1, 3].map(|row| cpu * CPU_ROWS + row));
        let active = of_cpus.chain(layout.slot_base()..layout.rows()).map(|row| row as usize);
        Ok(Self {
            mapped: MmapArray::new(rows, layout.rows())?,
            slots: MmapArray::new(slots, layout.slots)?,
            layout,
            memory: memory.cast(),
            active: active.collect(),
            random: 0x9e37_79b9_7f4a_7c15,
        })
    }

    /// Adds a second's worth of events to every row in use.
    pub fn advance(&mut self) {
        for at in 0..self.active.len() {
            for _ in 0..DRAWS {
                let ns = duration(&mut self.random);
                // SAFETY: the row lies inside the mapping, which this thread alone writes; the
                // reader is the same thread.
                let row = unsafe { &mut *self.memory.add(self.active[at]) };
                let bucket = bucket::index_of(ns);
                row.groups |= 1 << row::group_of(bucket);
                row.buckets[bucket] += TIMES as u32;
                row.sum_ns += ns * TIMES;
                row.max_ns = row.max_ns.max(ns);
            }
        }
    }

    /// Number of rows in use.
    pub fn active(&self) -> usize {
        self.active.len()
    }
}

/// `count` series of an interval, alternating between CPUs and queues.
pub fn series(count: u32, random: &mut u64) -> Vec<Series> {
    let mut all: Vec<Series> = (0..count)
        .map(|number| {
            let mut distribution = Distribution::default();
            for _ in 0..DRAWS {
                let ns = duration(random);
                for _ in 0..TIMES {
                    distribution.record(ns, THRESHOLD_NS, 1);
                }
            }
            match number % 2 {
                0 => Series::new(Stage::NetRx, Location::Cpu(number / 2), distribution),
                _ => queue(number / 2, distribution),
            }
        })
        .collect();
    all.sort_by(|a, b| a.id.cmp(&b.id));
    all
}

/// The header of a run that started `after` a fixed time.
pub fn run(cpus: u32, after: Duration) -> Run {
    let probe = |stage| SelectedProbe {
        stage,
        method: Some(Method::Tracepoint),
        at: "simulated".into(),
        notes: Vec::new(),
    };
    Run {
        host: "simulated".into(),
        kernel: "simulated".into(),
        started_at: humantime::format_rfc3339_millis(started_at() + after).to_string(),
        duration_s: 0.0,
        ifaces: Vec::new(),
        threshold_ns: THRESHOLD_NS,
        transport: Transport::Maps,
        probes: vec![probe(Stage::NetRx), probe(Stage::NapiPoll)],
        sampling: Sampling::default(),
        cpus,
        version: env!("CARGO_PKG_VERSION").into(),
    }
}

/// When simulated runs start.
pub fn started_at() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn queue(number: u32, distribution: Distribution) -> Series {
    let queue = Queue::Device { iface: "eth0".into(), netns: None, id: QueueId::Rx(number) };
    let attrs = QueueAttrs { napi_id: Some(500 + number), irq: Some(100 + number), named_by: None };
    Series { attrs, ..Series::new(Stage::NapiPoll, Location::Queue(queue), distribution) }
}

/// Around 2 us, one in some thousands over 100 us: roughly log-normal, like runs of NET_RX.
fn duration(random: &mut u64) -> u64 {
    // The sum of twelve uniform numbers is approximately normal, with a variance of one.
    let normal: f64 = (0..12).map(|_| uniform(random)).sum::<f64>() - 6.0;
    (2000.0 * (1.1 * normal).exp()) as u64
}

/// xorshift: reproducible random numbers in [0, 1).
fn uniform(state: &mut u64) -> f64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 11) as f64 / (1_u64 << 53) as f64
}

/// Queues first, then their IRQs.
fn slot(number: u32, queues: u32, cpus: u32) -> SlotInfo {
    let mut name = [0; 16];
    name[..4].copy_from_slice(b"eth0");
    let cpu = number % cpus;
    if number < queues {
        let (kind, id) = (SlotKind::Napi as u32, 500 + number);
        return SlotInfo { kind, id, ifindex: 2, weight: 64, name, ..SlotInfo::default() };
    }
    SlotInfo { kind: SlotKind::Irq as u32, id: 1000 + number, cpu, ..SlotInfo::default() }
}

/// Maps the values of `map` for writing, for as long as the process lives.
fn writable(map: &Map, bytes: usize) -> Result<*mut libc::c_void> {
    let Map::Array(map) = map else { anyhow::bail!("not an array map") };
    let (access, fd) = (libc::PROT_READ | libc::PROT_WRITE, map.fd().as_fd().as_raw_fd());
    // SAFETY: a new mapping at an address that the kernel chooses.
    let memory = unsafe { libc::mmap(ptr::null_mut(), bytes, access, libc::MAP_SHARED, fd, 0) };
    ensure!(memory != libc::MAP_FAILED, "map rows: {}", io::Error::last_os_error());
    Ok(memory)
}
