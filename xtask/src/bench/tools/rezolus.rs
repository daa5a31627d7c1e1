//! Rezolus, with only its sampler that times softirqs: sums for each vector and CPU, no
//! distributions. The sampler is `cpu_usage`, which also needs a kprobe.
//!
//! Debian has no package of it, so it is built from the crate registry, which takes long.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

use super::tool::Tool;
use crate::{process, setup::apt, workspace};

const VERSION: &str = "5.4.0";

/// What its build needs beside cargo: it compiles BPF programs in C.
const BUILD_PACKAGES: [&str; 4] = ["clang", "libelf-dev", "zlib1g-dev", "pkg-config"];

/// Nobody reads its figures: what they cost to read is no part of the comparison.
const CONFIGURATION: &str = "\
[general]
listen = \"127.0.0.1:4241\"
[defaults]
enabled = false
[samplers.cpu_usage]
enabled = true
";

/// Builds it below `target`, unless that was done before.
pub(crate) fn build() -> Result<()> {
    let [program, configuration] = files();
    fs::create_dir_all(directory())
        .with_context(|| format!("cannot create {}", directory().display()))?;
    fs::write(&configuration, CONFIGURATION)
        .with_context(|| format!("cannot write {}", configuration.display()))?;
    if program.is_file() {
        return Ok(());
    }
    apt::install(&BUILD_PACKAGES)?;
    process::step(&format!("building Rezolus {VERSION}; takes many minutes"));
    let mut cargo = workspace::cargo();
    // Its profile keeps debug information: 280 MB, which a virtual machine would have to hold.
    cargo.env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
    cargo.args(["install", "--quiet", "--locked", "--version", VERSION, "--root"]);
    process::run(cargo.arg(directory()).arg("rezolus"))
}

/// Its program and its configuration, both of which it needs to run.
pub(crate) fn files() -> [PathBuf; 2] {
    [directory().join("bin/rezolus"), directory().join("softirqs.toml")]
}

pub(crate) fn tool() -> Tool {
    let [program, configuration] = files();
    Tool {
        name: "Rezolus",
        program: Some(program).filter(|path| path.is_file()),
        arguments: vec![configuration.to_string_lossy().into_owned()],
        package: "rezolus of the crate registry",
        // It tells counts only to who asks for them by HTTP.
        count: |_| None,
    }
}

fn directory() -> PathBuf {
    workspace::root().join("target").join(format!("rezolus-{VERSION}"))
}
