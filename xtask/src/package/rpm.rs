//! RPM packages, by rpmbuild.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{
    About, DESCRIPTION, SUMMARY,
    tree::{CONFIGURATION, Tree},
};
use crate::process;

pub(super) fn make(about: &About, tree: &Tree, directory: &Path) -> Result<PathBuf> {
    let top = std::path::absolute(directory.join("rpm"))?;
    let files = top.join("files");
    tree.write(&files, about.time)?;
    let spec = top.join("latency-user.spec");
    fs::write(&spec, spec_of(about, tree, &files))?;
    let architecture = about.architecture.rust();
    let mut build = Command::new(process::need("rpmbuild")?);
    build.env("SOURCE_DATE_EPOCH", about.time.to_string()).env("LC_ALL", "C");
    build.args(["-bb", "--target", &format!("{architecture}-linux")]);
    for define in [
        format!("_topdir {}", top.display()),
        "_buildhost localhost".to_owned(),
        "use_source_date_epoch_as_buildtime 1".to_owned(),
        "clamp_mtime_to_source_date_epoch 1".to_owned(),
        // Strips and searches nothing: the program is done.
        "__os_install_post %{nil}".to_owned(),
        "debug_package %{nil}".to_owned(),
        "_build_id_links none".to_owned(),
    ] {
        build.args(["--define", &define]);
    }
    process::capture(build.arg(&spec))?;
    let name = format!("latency-user-{}-1.{architecture}.rpm", about.version);
    let built = top.join("RPMS").join(architecture).join(&name);
    let path = directory.join(&name);
    fs::rename(&built, &path).with_context(|| format!("rpmbuild left no {}", built.display()))?;
    fs::remove_dir_all(&top)?;
    Ok(path)
}

fn spec_of(about: &About, tree: &Tree, files: &Path) -> String {
    let mut list = String::new();
    for path in tree.paths() {
        if path == Path::new(CONFIGURATION) {
            list.push_str("%config(noreplace) ");
        } else if path.starts_with("usr/share/doc") {
            list.push_str("%doc ");
        }
        list.push_str(&format!("/{}\n", path.display()));
    }
    format!(
        "Name: latency-user\nVersion: {}\nRelease: 1\nSummary: {SUMMARY}\n\
         License: (MIT OR Apache-2.0) AND (MIT OR GPL-2.0-only)\nAutoReqProv: no\n\
         %description\n{}\n\
         %install\nmkdir -p %{{buildroot}}\ncp -a {}/. %{{buildroot}}/\n\
         %post\n[ -d /run/systemd/system ] && systemctl daemon-reload || :\n\
         %preun\nif [ $1 = 0 ] && [ -d /run/systemd/system ]; then\n    \
         systemctl disable --now latency-user.service latency-user.socket || :\nfi\n\
         %postun\n[ -d /run/systemd/system ] && systemctl daemon-reload || :\n\
         %files\n{list}",
        about.version,
        DESCRIPTION.join("\n"),
        files.display()
    )
}
