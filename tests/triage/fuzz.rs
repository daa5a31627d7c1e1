//! Hosts with a file that was spoilt: a rule may say *unknown*, or anything; it must not panic.

use std::{fs, path::PathBuf};

use latency_user::triage;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::captured;

/// Something to put in the place of a part of a file.
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
fn spoilt_files_never_panic() {
    for captured in captured::all() {
        let files = files(captured.path().to_path_buf());
        let index = any::<prop::sample::Index>;
        let strategy = (index(), index(), 0_usize..30, noise());
        let config = Config { cases: 24, failure_persistence: None, ..Config::default() };
        TestRunner::new(config)
            .run(&strategy, |(file, at, length, noise)| {
                let file = file.get(&files);
                let sound = fs::read(file).unwrap();
                let at = at.index(sound.len() + 1);
                let end = (at + length).min(sound.len());
                let spoilt = [&sound[..at], &noise[..], &sound[end..]].concat();
                fs::write(file, spoilt).unwrap();
                // A capture that is none is refused; the rest is judged.
                if let Ok(host) = triage::load(captured.path()) {
                    triage::judge(&host, &host.busy_interfaces());
                    triage::judge(&host, &["eth0".into(), "é !".into()]);
                }
                fs::write(file, sound).unwrap();
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{}: {error}", captured.place));
    }
}
