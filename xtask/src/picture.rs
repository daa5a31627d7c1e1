//! `cargo xtask picture`: the picture of the demo's page that README shows.
//!
//! Owns what is taken of the page and where it goes. The page comes from `cargo xtask demo`.

use std::{
    fs,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{demo, process, setup, workspace};

/// Below the workspace's root.
const PICTURE: &str = "docs/demo.png";

/// Width and height, which are those of the part that is shown.
const SIZE: &str = "--window-size=1000,1700";

/// Of the page, its verdict and what lies between these: the course of stalls over time.
const FROM: &str = "<h2>Before: ";
const TO: &str = "<h2>Percentiles";

pub(crate) fn main() -> Result<ExitCode> {
    setup::ensure(setup::Level::Test)?;
    let root = workspace::root();
    let page = demo::page(&root);
    ensure!(page.exists(), "{} is missing: run `cargo xtask demo` first", page.display());
    let picture = root.join(PICTURE);
    let directory = root.join("target/picture");
    fs::create_dir_all(&directory)?;
    let part = directory.join("part.html");
    let text = fs::read_to_string(&page).with_context(|| format!("read {}", page.display()))?;
    let shown = part_of(&text).with_context(|| format!("{}: not a demo's page", page.display()))?;
    fs::write(&part, shown)?;
    let mut chromium = Command::new(process::need("chromium")?);
    chromium
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", SIZE])
        .args(["--no-first-run", "--disable-background-networking", "--disable-sync"])
        .arg(format!("--user-data-dir={}", directory.join("profile").display()))
        .arg(format!("--screenshot={}", picture.display()))
        .arg(format!("file://{}", part.display()))
        .stdin(Stdio::null());
    process::capture(&mut chromium)?;
    process::step(&format!("picture: {}", picture.display()));
    Ok(ExitCode::SUCCESS)
}

/// The page with only its verdict and figures over time.
fn part_of(page: &str) -> Option<String> {
    let (head, rest) = page.split_once("</h1>")?;
    let (_, rest) = rest.split_once(FROM)?;
    let (figures, _) = rest.split_once(TO)?;
    Some(format!("{head}</h1>{FROM}{figures}"))
}
