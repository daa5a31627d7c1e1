//! Captures: saves a host's samples as an archive, and loads a host from an unpacked archive.

use std::{io::Write, path::Path, time::Duration};

use anyhow::{Context, Result};
use flate2::{Compression, write::GzEncoder};
use serde::{Deserialize, Serialize};

use super::{snapshot::HostSnapshot, sources};
use crate::{
    file_tree::{FileTree, read_regular},
    model::{
        failure::Failure,
        schema::{Envelope, SCHEMA_VERSION},
    },
};

/// Name of a capture's metadata file.
const ABOUT: &str = "capture.json";

/// Samples closer together show no rate.
const LEAST_NS: u64 = 1_000_000;

/// Metadata of a capture.
#[derive(Debug, Serialize, Deserialize)]
struct About {
    /// Time between the samples, ns.
    duration_ns: u64,
    /// Version of the program that made the capture.
    version: String,
}

/// Only for reading: `Envelope` writes this field.
#[derive(Deserialize)]
struct Version {
    schema_version: u32,
}

/// Writes a host to `out` as a `.tar.gz`: `capture.json`, and its samples in `1` and `2`.
///
/// # Errors
///
/// When `out` cannot be written.
pub fn save(host: &HostSnapshot, out: impl Write) -> Result<()> {
    let mut archive = tar::Builder::new(GzEncoder::new(out, Compression::default()));
    let about = About {
        duration_ns: u64::try_from(host.elapsed.as_nanos()).unwrap_or(u64::MAX),
        version: env!("CARGO_PKG_VERSION").into(),
    };
    let about = serde_json::to_string_pretty(&Envelope::new("capture", &about))?;
    append(&mut archive, ABOUT, &about)?;
    for (number, sample) in [("1", &host.first), ("2", &host.second)] {
        for (path, text) in sample.stored()? {
            append(&mut archive, &format!("{number}/{path}"), &text)?;
        }
    }
    archive.into_inner()?.finish()?.flush().context("write the capture")
}

/// Adds a file with fixed owner, time and mode: the real ones would reveal who captured, and when.
fn append(archive: &mut tar::Builder<impl Write>, path: &str, text: &str) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    archive
        .append_data(&mut header, path, text.as_bytes())
        .with_context(|| format!("put {path} into the capture"))
}

/// Reads a host from the directory into which a capture was unpacked.
///
/// # Errors
///
/// When `directory` holds no capture, or a capture of a newer program.
pub fn load(directory: &Path) -> Result<HostSnapshot> {
    let path = directory.join(ABOUT);
    let read = read_regular(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let text = read.map_err(|error| {
        Failure::new(format!(
            "no capture in {}: read {}: {error}",
            directory.display(),
            path.display()
        ))
        .hint("make one with `latency-user capture --output FILE.tar.gz`, and unpack it there")
    })?;
    let place = || format!("parse {}", path.display());
    let version: Version = serde_json::from_str(&text).with_context(place)?;
    if version.schema_version > SCHEMA_VERSION {
        anyhow::bail!(
            "{}: expected schema version {SCHEMA_VERSION} at most, found {}",
            path.display(),
            version.schema_version
        );
    }
    let about: About = serde_json::from_str(&text).with_context(place)?;
    if about.duration_ns < LEAST_NS {
        anyhow::bail!(
            "{}: expected samples at least 1 ms apart, found {} ns",
            path.display(),
            about.duration_ns
        );
    }
    let patterns = sources::patterns();
    let sample = |number: &str| FileTree::load(&directory.join(number), &patterns);
    Ok(HostSnapshot::new(sample("1")?, sample("2")?, Duration::from_nanos(about.duration_ns)))
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Read};

    use flate2::read::GzDecoder;

    use super::*;
    use crate::{
        host::nic::directory::{Nic, NicDirectory},
        triage::{SampleConfig, sample},
    };

    struct NoNics;

    impl NicDirectory for NoNics {
        fn nic(&mut self, name: &str) -> Nic {
            serde_json::from_value(serde_json::json!({ "name": name })).unwrap()
        }
    }

    #[test]
    fn a_capture_holds_exactly_the_samples() {
        let duration = Duration::from_millis(1);
        let config = SampleConfig { duration, trace: false, max_overhead: None, daemon: None };
        let host = sample(Path::new("/"), &mut NoNics, &config);
        let mut packed = Vec::new();
        save(&host, &mut packed).unwrap();
        let directory = tempfile::tempdir().unwrap();
        tar::Archive::new(GzDecoder::new(&packed[..])).unpack(directory.path()).unwrap();
        let copy = load(directory.path()).unwrap();
        assert_eq!((&copy.first, &copy.second), (&host.first, &host.second));
        assert_eq!(copy.elapsed, host.elapsed);

        let secrets = secrets();
        let mut archive = tar::Archive::new(GzDecoder::new(&packed[..]));
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            assert_eq!((entry.header().mtime().unwrap(), entry.header().uid().unwrap()), (0, 0));
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            for secret in &secrets {
                assert!(!text.contains(secret.as_str()), "{secret} in {:?}", entry.path());
            }
        }
    }

    /// The host's name and the hardware addresses of its interfaces.
    fn secrets() -> Vec<String> {
        let mut secrets = vec![crate::host::kernel::hostname(Path::new("/")).unwrap()];
        for interface in fs::read_dir("/sys/class/net").unwrap() {
            let path = interface.unwrap().path().join("address");
            secrets.extend(fs::read_to_string(path).map(|text| text.trim().to_owned()));
        }
        // Skip names and addresses that may match a counter by chance.
        secrets.retain(|secret| secret.len() > 3 && !secret.starts_with("00:00:00:00:00:00"));
        secrets
    }

    #[test]
    fn a_directory_without_a_capture_is_refused_with_a_hint() {
        let directory = tempfile::tempdir().unwrap();
        let error = load(directory.path()).err().unwrap();
        assert!(error.downcast_ref::<Failure>().unwrap().hint.is_some());
        fs::write(directory.path().join(ABOUT), r#"{"schema_version":99}"#).unwrap();
        let error = load(directory.path()).err().unwrap().to_string();
        assert!(error.ends_with("expected schema version 2 at most, found 99"), "{error}");
    }
}
