//! `cargo xtask licences`: cargo-deny on what deny.toml allows: licences, sources and versions of
//! dependencies. Advisories are left out: they need a database from elsewhere.

use std::process::ExitCode;

use anyhow::Result;

use crate::{process, workspace};

/// The version that is installed where there is none.
const VERSION: &str = "0.20.2";

pub(crate) fn main() -> Result<ExitCode> {
    if process::capture(workspace::cargo().args(["deny", "--version"])).is_err() {
        process::step(&format!("cargo install cargo-deny {VERSION} (about a minute)"));
        let mut install = workspace::cargo();
        // Unoptimised, it compiles in a fifth of the time and checks in seconds.
        install.args(["install", "cargo-deny", "--version", VERSION, "--locked", "--debug"]);
        process::run(install.arg("--quiet"))?;
    }
    let mut deny = workspace::cargo();
    deny.args(["deny", "--locked", "--log-level", "error", "check", "bans", "licenses", "sources"]);
    process::run(&mut deny)?;
    Ok(ExitCode::SUCCESS)
}
