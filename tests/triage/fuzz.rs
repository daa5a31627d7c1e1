//! Hosts with a corrupted file: a rule may give any answer, but must not panic.

use std::{fs, path::PathBuf};

use latency_user::triage;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::captured;

/// Bytes that replace a part of a file.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..8),
        Just(b"18446744073709551615".to_vec()),
        Just(b"-9223372036854775808".to_vec()),
        Just(b"4294967295".to_vec()),
        Just(b" ".to_vec()),
        Just(b"\n".to_vec()),
    ]
}

fn files(directory: PathBuf) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

#[test]
fn corrupted_files_never_panic() {
    for captured in captured::all() {
        let files = files(captured.path().to_path_buf());
        let index = any::<prop::sample::Index>;
        let strategy = (index(), index(), 0_usize..30, noise());
        let config = Config { cases: 24, failure_persistence: None, ..Config::default() };
        TestRunner::new(config)
            .run(&strategy, |(file, at, length, noise)| {
                let file = file.get(&files);
                let original = fs::read(file).unwrap();
                let at = at.index(original.len() + 1);
                let end = (at + length).min(original.len());
                let corrupted = [&original[..at], &noise[..], &original[end..]].concat();
                fs::write(file, corrupted).unwrap();
                // An invalid capture is refused; any other is judged.
                if let Ok(host) = triage::load(captured.path()) {
                    triage::judge(&host, &host.busy_interfaces());
                    triage::judge(&host, &["eth0".into(), "é !".into()]);
                }
                fs::write(file, original).unwrap();
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{}: {error}", captured.place));
    }
}
