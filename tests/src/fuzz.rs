//! Readers of hostile input, each as a function of bytes. `cargo test` runs them on the seeds and on
//! mutations of them; `cargo xtask fuzz` lets libFuzzer search.
//!
//! They must not panic, and what they accept must hold together.

use std::{
    io::Cursor,
    panic,
    path::{Path, PathBuf},
    time::Duration,
};

use latency_user::{
    experiment::journal::JournalEntry,
    file_tree::FileTree,
    kernel::{
        maps::stall_decode,
        types::{btf::Btf, offsets},
    },
    model::series::SeriesKey,
    recording::reader::Reader,
    triage::{self, HostSnapshot},
};
use netlink_bindings::{ethtool, netdev, traits::NetlinkRequest};

/// A reader: its name, the function, and where its seeds are.
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Reads the bytes.
    pub read: fn(&[u8]),
    /// Its seeds.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All readers.
pub const TARGETS: [Target; 7] = [
    Target { name: "recording", read: recording, seeds: recordings },
    Target { name: "btf", read: btf, seeds: types },
    Target { name: "host", read: host, seeds: hosts },
    Target { name: "record", read: record, seeds: records },
    Target { name: "netlink", read: netlink, seeds: messages },
    Target { name: "journal", read: journal, seeds: journals },
    Target { name: "tag", read: tag, seeds: tags },
];

/// The directory with files of tests.
fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// A recording or another program's log.
pub fn recording(bytes: &[u8]) {
    let mut reader =
        Reader::from_input(Path::new("fuzz.hlog"), Box::new(Cursor::new(bytes.to_vec())));
    while let Ok(Some(_)) = reader.next_entry() {}
    assert!(reader.bytes() <= bytes.len() as u64, "it read more than there is");
}

fn recordings() -> Vec<Vec<u8>> {
    let directories = [fixtures(), fixtures().join("logs")];
    let entries = directories.iter().filter_map(|path| path.read_dir().ok()).flatten();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let logs = paths.filter(|path| path.extension().is_some_and(|kind| kind == "hlog"));
    logs.filter_map(|path| std::fs::read(path).ok()).collect()
}

/// The kernel's type information.
pub fn btf(bytes: &[u8]) {
    let Ok(btf) = Btf::parse(bytes.to_vec()) else { return };
    btf.has_function("net_rx_action");
    btf.has_tracepoint("napi_poll");
    for (name, offset) in offsets::resolve(&btf) {
        // No struct of the kernel is longer than a BTF member can say.
        assert!(offset == u32::MAX || offset < 1 << 29, "{name} at {offset}");
    }
}

/// The start of the kernel's own, and a small one: a struct with a member.
fn types() -> Vec<Vec<u8>> {
    let strings = b"\0sk_buff\0len\0unsigned int\0";
    let word = |n: u32| n.to_ne_bytes();
    let types: Vec<[u8; 4]> = [
        [13, 1 << 24, 4, 32].as_slice(),
        // struct sk_buff { unsigned int len; }
        &[1, 4 << 24 | 1, 4, 9, 1, 0],
    ]
    .concat()
    .into_iter()
    .map(word)
    .collect();
    let types = types.concat();
    let header = [
        &0xeb9f_u16.to_ne_bytes()[..],
        &[1, 0],
        &word(24),
        &word(0),
        &word(types.len() as u32),
        &word(types.len() as u32),
        &word(strings.len() as u32),
    ]
    .concat();
    vec![[&header, &types, &strings[..]].concat()]
}

/// The files of a host, which `triage` judges, as `fixtures/hosts` keeps them: each follows a line
/// `-- SAMPLE/PATH --`.
pub fn host(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut trees = [FileTree::default(), FileTree::default()];
    for file in text.split("\n-- ").skip(1) {
        let (path, content) = file.split_once(" --\n").unwrap_or((file, ""));
        let (sample, path) = path.split_once('/').unwrap_or(("1", path));
        trees[usize::from(sample == "2")].insert(path, format!("{content}\n"));
    }
    let [first, second] = trees;
    let host = HostSnapshot::new(first, second, Duration::from_secs(5));
    let interfaces = host.busy_interfaces();
    triage::judge(&host, &interfaces);
}

fn hosts() -> Vec<Vec<u8>> {
    let mut paths = Vec::new();
    let mut directories = vec![fixtures().join("hosts")];
    while let Some(directory) = directories.pop() {
        for entry in directory.read_dir().into_iter().flatten().filter_map(Result::ok) {
            let path = entry.path();
            if path.is_dir() { directories.push(path) } else { paths.push(path) }
        }
    }
    paths.sort();
    paths.iter().filter_map(|path| std::fs::read(path).ok()).collect()
}

/// A record of the ring buffer of stalls.
pub fn record(bytes: &[u8]) {
    let _ = stall_decode::parse(bytes);
}

fn records() -> Vec<Vec<u8>> {
    (0..8).map(|kind| [vec![kind], vec![0; 511]].concat()).collect()
}

/// Answers of the kernel on queues, NAPI instances, rings and channels.
pub fn netlink(bytes: &[u8]) {
    let of_netdev = netdev::Request::new;
    let queue = answer(&of_netdev().op_queue_get_dump(), bytes);
    let _ = (queue.get_type(), queue.get_id(), queue.get_napi_id());
    let instance = answer(&of_netdev().op_napi_get_dump(), bytes);
    let _ = (instance.get_id(), instance.get_irq());
    let counts = answer(&of_netdev().op_qstats_get_dump(), bytes);
    let _ = (counts.get_queue_type(), counts.get_queue_id(), counts.get_rx_packets());
    let of_ethtool = ethtool::Request::new;
    let rings = answer(&of_ethtool().op_rings_get_do(), bytes);
    let _ = (rings.get_rx(), rings.get_rx_max(), rings.get_tx(), rings.get_tx_max());
    let channels = answer(&of_ethtool().op_channels_get_do(), bytes);
    let _ = (channels.get_rx_count(), channels.get_combined_count(), channels.get_combined_max());
}

fn answer<'a, R: NetlinkRequest>(_: &R, bytes: &'a [u8]) -> R::ReplyType<'a> {
    R::decode_reply(bytes)
}

/// Attributes of a number each, with and without a header of generic netlink.
fn messages() -> Vec<Vec<u8>> {
    let attributes: Vec<u8> = (1..9_u16)
        .flat_map(|kind| {
            let head = [8_u16.to_ne_bytes(), kind.to_ne_bytes()].concat();
            [head, u32::from(kind).to_ne_bytes().to_vec()].concat()
        })
        .collect();
    vec![attributes.clone(), [vec![1, 1, 0, 0], attributes].concat()]
}

/// The journal of an experiment. Reads nothing but the text.
pub fn journal(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(entry) = JournalEntry::parse(&text) {
        entry.unknown();
    }
}

fn journals() -> Vec<Vec<u8>> {
    let header = r#"{"boot":"a","pid":7,"started_at":"2026-01-01T00:00:00.000Z","requested":["sysctl:net.core.busy_poll=1"],"saved":[{"knob":{"path":"/proc/sys/net/core/busy_poll","netns":null,"form":"words"},"old":"0","requested":"1"}],"step":"untouched"}"#;
    let step = r#"{"step":"written","effective":[{"knob":{"path":"/proc/sys/net/core/busy_poll","netns":null,"form":"words"},"value":"1"}]}"#;
    vec![format!("{header}\n{step}\n").into_bytes()]
}

/// The tag of a series.
pub fn tag(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let key = SeriesKey::of_tag(&text);
    assert_eq!(SeriesKey::of_tag(&key.tag()), key, "{text:?}");
}

fn tags() -> Vec<Vec<u8>> {
    [
        "stage=net_rx;cpu=3",
        "stage=napi_poll;if=eth0;q=2",
        "stage=napi_poll;if=a%2cb;napi=8193;netns=4026531840",
        "stage=irq;irq=31;name=eth0-rx-1;cpu=0;host=web-17",
        "stage=softirq;vector=TIMER;cpu=1",
        "jitter",
    ]
    .map(|tag| tag.as_bytes().to_vec())
    .into()
}

/// Reads `bytes`, and returns what a panic said.
///
/// # Errors
///
/// When it panics.
pub fn try_out(read: fn(&[u8]), bytes: &[u8]) -> Result<(), String> {
    panic::catch_unwind(|| read(bytes)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default()
    })
}
