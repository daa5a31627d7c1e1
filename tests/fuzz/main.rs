//! Readers of hostile input on seeds and mutations of them, the same ones in each run. What a longer
//! search found is kept in `corpus/`, a directory for each reader.

use std::{fs, path::Path};

use latency_tests::fuzz::{TARGETS, Target, try_out};

/// Mutations of each reader's seeds.
const MUTATIONS: u64 = 5000;

fn find(name: &str) -> Target {
    TARGETS.into_iter().find(|target| target.name == name).expect("a target")
}

/// The seeds of a reader, and what was found before.
fn seeds(target: &Target) -> Vec<Vec<u8>> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target.name);
    let mut paths: Vec<_> = fs::read_dir(corpus)
        .into_iter()
        .flatten()
        .map(|entry| entry.expect("a file").path())
        .collect();
    paths.sort();
    let found = paths.iter().map(|path| fs::read(path).expect("a file"));
    let seeds: Vec<Vec<u8>> = (target.seeds)().into_iter().chain(found).collect();
    assert!(!seeds.is_empty(), "{} has no seeds", target.name);
    seeds
}

/// Numbers that are often wrong: limits of integers, in the byte order of this machine.
const NUMBERS: [u64; 8] = [0, 1, 0x7f, 0xff, 0x7fff, 0xffff_ffff, 0x7fff_ffff, u64::MAX];

/// Changes a few bytes, cuts, repeats, or joins two seeds.
fn mutate(seeds: &[Vec<u8>], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = seeds[random.usize(..seeds.len())].clone();
    for _ in 0..random.usize(1..8) {
        if bytes.is_empty() {
            return bytes;
        }
        let at = random.usize(..bytes.len());
        let length = random.usize(1..=16.min(bytes.len() - at));
        match random.u8(..8) {
            0 => bytes[at] ^= 1 << random.u8(..8),
            1 => bytes[at] = random.u8(..),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..at + length)),
            4 => {
                let again = bytes[at..at + length].to_vec();
                bytes.splice(at..at, again);
            }
            5 => {
                let number = NUMBERS[random.usize(..NUMBERS.len())];
                let text = number.to_string().into_bytes();
                bytes.splice(at..at + length, text);
            }
            6 => {
                let number = NUMBERS[random.usize(..NUMBERS.len())].to_ne_bytes();
                bytes.splice(at..at + length, number[..length.min(8)].to_vec());
            }
            _ => {
                let other = &seeds[random.usize(..seeds.len())];
                let from = random.usize(..=other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
    bytes
}

fn check(name: &str) {
    let target = find(name);
    let seeds = seeds(&target);
    let run = |what: String, bytes: &[u8]| {
        if let Err(panic) = try_out(target.read, bytes) {
            let file = std::env::temp_dir().join(format!("latency-user-fuzz-{name}"));
            fs::write(&file, bytes).expect("a temporary file");
            panic!("{name}: {what}: {panic}: {}", file.display());
        }
    };
    for (at, seed) in seeds.iter().enumerate() {
        run(format!("seed {at}"), seed);
    }
    for number in 0..MUTATIONS {
        let mut random = fastrand::Rng::with_seed(number);
        run(format!("mutation {number}"), &mutate(&seeds, &mut random));
    }
}

#[test]
fn recordings_do_not_panic() {
    check("recording");
}

#[test]
fn types_do_not_panic_or_lie_outside() {
    check("btf");
}

#[test]
fn hosts_do_not_panic() {
    check("host");
}

#[test]
fn records_do_not_panic() {
    check("record");
}

#[test]
fn netlink_messages_do_not_panic() {
    check("netlink");
}

#[test]
fn journals_do_not_panic() {
    check("journal");
}

#[test]
fn tags_do_not_panic_and_read_back() {
    check("tag");
}

/// The kernel's own types with one byte changed: an offset that differs lies within its struct, and
/// most changes change none.
#[test]
fn changed_types_yield_no_offset_outside_of_a_struct() {
    use latency_user::kernel::types::{btf, offsets};
    let bytes = fs::read(btf::VMLINUX).expect("a kernel with type information, as README requires");
    let right = offsets::resolve(&btf::Btf::parse(bytes.clone()).expect("the kernel's types"));
    let mut random = fastrand::Rng::with_seed(7);
    let mut same = 0;
    for _ in 0..20 {
        let mut changed = bytes.clone();
        let at = random.usize(..changed.len());
        changed[at] ^= 1 << random.u8(..8);
        let Ok(types) = btf::Btf::parse(changed) else { continue };
        let found = offsets::resolve(&types);
        same += usize::from(found == right);
        for (name, offset) in found {
            assert!(offset == u32::MAX || offset < 1 << 16, "{name} at {offset}: byte {at}");
        }
    }
    // A change of a type's kind or length makes all behind it unreadable, which is refused.
    assert!(same >= 10, "{same} of 20");
}
