//! Compiles the eBPF object and hands it to the loader, which carries it inside the binary.

use std::{env, error::Error, fs, path::Path};

#[path = "../xtask/src/build_ebpf.rs"]
mod build_ebpf;

const PACKAGE: &str = "latency-ebpf";

fn main() -> Result<(), Box<dyn Error>> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for source in ["latency-ebpf", "latency-common", "xtask/src/build_ebpf.rs", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", workspace.join(source).display());
    }
    let objects = build_ebpf::build(&workspace, &[PACKAGE])?;
    fs::copy(objects.join(PACKAGE), Path::new(&env::var("OUT_DIR")?).join(PACKAGE))?;
    Ok(())
}
