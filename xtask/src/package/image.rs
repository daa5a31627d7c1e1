//! A container image in the OCI layout, as one archive: the program alone. Made without a daemon.
//!
//! The formats are those of the OCI image specification, version 1.1.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{
    About, SUMMARY, tar,
    tree::{PROGRAM, Tree},
};
use crate::process;

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub(super) fn make(about: &About, tree: &Tree, directory: &Path) -> Result<PathBuf> {
    let top = directory.join("image");
    let files = top.join("files");
    tree.write(&files, about.time)?;
    // Its licences stay: they must come with every copy.
    for left_out in [
        "etc",
        "usr/lib",
        "usr/share/man",
        "usr/share/bash-completion",
        "usr/share/zsh",
        "usr/share/fish",
    ] {
        fs::remove_dir_all(files.join(left_out))?;
    }
    super::tree::set_directories(&files, about.time)?;
    let layout = top.join("layout");
    let blobs = Blobs { directory: layout.join("blobs/sha256") };
    fs::create_dir_all(&blobs.directory)?;

    let plain = top.join("layer.tar");
    tar(&files, about.time, &[], &plain)?;
    let diff_id = sha256(&plain)?;
    process::run(Command::new("gzip").arg("-9n").arg(&plain))?;
    let layer = blobs.add(&top.join("layer.tar.gz"), LAYER)?;
    let architecture = about.architecture.debian();
    let created = created(about.time)?;
    let config = json!({
        "architecture": architecture, "os": "linux", "created": created,
        "config": { "Entrypoint": [format!("/{PROGRAM}")], "Cmd": ["serve"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{diff_id}")] },
        "history": [{ "created": created, "comment": "the static program" }],
    });
    let config = blobs.add_json(&config, &top, CONFIG)?;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer],
        "annotations": {
            "org.opencontainers.image.title": "latency-user",
            "org.opencontainers.image.description": SUMMARY,
            "org.opencontainers.image.version": about.version,
            "org.opencontainers.image.licenses": "(MIT OR Apache-2.0) AND (MIT OR GPL-2.0-only)",
        },
    });
    let mut manifest = blobs.add_json(&manifest, &top, MANIFEST)?;
    manifest["platform"] = json!({ "architecture": architecture, "os": "linux" });
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": about.version });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest] });
    fs::write(layout.join("index.json"), serde_json::to_vec(&index)?)?;
    fs::write(layout.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let name = format!("latency-user-{}-{architecture}.oci.tar", about.version);
    let path = directory.join(name);
    tar(&layout, about.time, &[], &path)?;
    fs::remove_dir_all(&top)?;
    Ok(path)
}

/// Content by its hash.
struct Blobs {
    directory: PathBuf,
}

impl Blobs {
    /// Moves a file in and returns its descriptor.
    fn add(&self, file: &Path, kind: &str) -> Result<Value> {
        let digest = sha256(file)?;
        let size = file.metadata()?.len();
        fs::rename(file, self.directory.join(&digest))?;
        Ok(json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": size }))
    }

    fn add_json(&self, value: &Value, directory: &Path, kind: &str) -> Result<Value> {
        let file = directory.join("blob");
        fs::write(&file, serde_json::to_vec(value)?)?;
        self.add(&file, kind)
    }
}

fn sha256(file: &Path) -> Result<String> {
    let line = process::capture(Command::new("sha256sum").arg(file))?;
    Ok(line.split_whitespace().next().context("sha256sum printed nothing")?.to_owned())
}

/// RFC 3339.
fn created(time: u64) -> Result<String> {
    let mut date = Command::new("date");
    date.args(["--utc", "+%Y-%m-%dT%H:%M:%SZ", &format!("--date=@{time}")]);
    Ok(process::capture(&mut date)?.trim().to_owned())
}
