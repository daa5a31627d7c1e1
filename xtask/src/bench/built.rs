//! The programs and eBPF objects that the benchmark runs: built now, or by an earlier run.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::{
    architecture::Architecture,
    build, build_ebpf,
    workspace::{self, TESTS_PACKAGE},
};

/// Paths of programs and eBPF objects.
pub(crate) struct Built {
    pub(super) latency_user: PathBuf,
    pub(super) load: PathBuf,
    pub(super) noop: PathBuf,
    pub(super) rows: PathBuf,
    pub(super) serve: PathBuf,
    pub(super) files: PathBuf,
    pub(super) object: PathBuf,
    pub(super) noop_object: PathBuf,
    pub(super) injector: PathBuf,
}

impl Built {
    pub(super) fn build() -> Result<Self> {
        let objects = workspace::build_ebpf()?;
        let tests = |name| build::release_binary(TESTS_PACKAGE, name);
        Ok(Self {
            latency_user: build::release_binary("latency-user", "latency-user")?,
            load: tests("bench-load")?,
            noop: tests("bench-noop")?,
            rows: tests("bench-rows")?,
            serve: tests("bench-serve")?,
            files: tests("bench-files")?,
            object: objects.join("latency-ebpf"),
            noop_object: objects.join("bench-noop-ebpf"),
            injector: objects.join("stall-injector-ebpf"),
        })
    }

    /// Finds what [`Self::build`] built in an earlier run.
    pub(super) fn find() -> Result<Self> {
        let host = Architecture::host()?;
        let release = build::release_directory(host);
        let objects = build_ebpf::objects(&workspace::root(), host.rust());
        let built = Self {
            latency_user: release.join("latency-user"),
            load: release.join("bench-load"),
            noop: release.join("bench-noop"),
            rows: release.join("bench-rows"),
            serve: release.join("bench-serve"),
            files: release.join("bench-files"),
            object: objects.join("latency-ebpf"),
            noop_object: objects.join("bench-noop-ebpf"),
            injector: objects.join("stall-injector-ebpf"),
        };
        if let Some(missing) = built.files().into_iter().find(|file| !file.is_file()) {
            bail!("{} was not built", missing.display());
        }
        Ok(built)
    }

    pub(super) fn files(&self) -> [&PathBuf; 9] {
        let Self { latency_user, load, noop, rows, serve, files, object, noop_object, injector } =
            self;
        [latency_user, load, noop, rows, serve, files, object, noop_object, injector]
    }
}
