//! Debian packages, by dpkg-deb.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{
    About, DESCRIPTION, SUMMARY,
    tree::{CONFIGURATION, Tree, set_directories},
};
use crate::process;

/// The units are installed and not enabled.
const POSTINST: &str = "\
#!/bin/sh
set -e
if [ \"$1\" = configure ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
    # Upgraded: a daemon that runs goes on as the new version.
    systemctl try-restart latency-user.service || true
fi
";
const PRERM: &str = "\
#!/bin/sh
set -e
if [ \"$1\" = remove ] && [ -d /run/systemd/system ]; then
    systemctl disable --now latency-user.service latency-user.socket || true
fi
";
const POSTRM: &str = "\
#!/bin/sh
set -e
if [ \"$1\" = purge ]; then
    rm -rf /var/lib/latency-user
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
fi
";

/// What lintian says of a program that is meant to be static, and of scripts without debhelper.
const OVERRIDES: &str = "\
# It runs on any distribution, and has no use for the C library's plug-ins.
latency-user: statically-linked-binary [usr/bin/latency-user]
latency-user: shared-library-lacks-prerequisites [usr/bin/latency-user]
# The scripts are written by hand; they do what debhelper's would.
latency-user: maintainer-script-calls-systemctl *
";

pub(super) fn make(about: &About, tree: &Tree, directory: &Path) -> Result<PathBuf> {
    let root = directory.join("deb");
    tree.write(&root, about.time)?;
    let overrides = root.join("usr/share/lintian/overrides");
    fs::create_dir_all(&overrides)?;
    fs::write(overrides.join("latency-user"), OVERRIDES)?;
    write_changelog(&root, about)?;
    let control = root.join("DEBIAN");
    fs::create_dir_all(&control)?;
    let architecture = about.architecture.debian();
    let text = format!(
        "Package: latency-user\nVersion: {}\nArchitecture: {architecture}\n\
         Maintainer: {}\nSection: net\nPriority: optional\nInstalled-Size: {}\n\
         Description: {SUMMARY}\n {}\n",
        about.version,
        about.maintainer,
        tree.size() / 1024,
        DESCRIPTION.join("\n "),
    );
    fs::write(control.join("control"), text)?;
    fs::write(control.join("conffiles"), format!("/{CONFIGURATION}\n"))?;
    write_sums(&root)?;
    for (name, script) in [("postinst", POSTINST), ("prerm", PRERM), ("postrm", POSTRM)] {
        let path = control.join(name);
        fs::write(&path, script)?;
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755))?;
    }
    set_directories(&root, about.time)?;
    let path = directory.join(format!("latency-user_{}_{architecture}.deb", about.version));
    let mut build = Command::new(process::need("dpkg-deb")?);
    build.env("SOURCE_DATE_EPOCH", about.time.to_string());
    build.args(["--root-owner-group", "-Zxz", "--build"]).arg(&root).arg(&path);
    process::capture(&mut build)?;
    fs::remove_dir_all(&root)?;
    Ok(path)
}

fn write_changelog(root: &Path, about: &About) -> Result<()> {
    let mut date = Command::new("date");
    date.env("LC_ALL", "C").args(["--utc", "--rfc-email", &format!("--date=@{}", about.time)]);
    let text = format!(
        "latency-user ({}) unstable; urgency=medium\n\n  * See CHANGELOG.md of the source.\n\n \
         -- {}  {}",
        about.version,
        about.maintainer,
        process::capture(&mut date)?
    );
    let path = root.join("usr/share/doc/latency-user/changelog");
    fs::write(&path, text)?;
    process::run(Command::new("gzip").args(["-9n"]).arg(&path))
}

fn write_sums(root: &Path) -> Result<()> {
    let mut find = Command::new("find");
    find.current_dir(root).args(["etc", "usr", "-type", "f"]);
    let found = process::capture(&mut find)?;
    let mut files: Vec<&str> = found.lines().collect();
    files.sort_unstable();
    let mut sums = Command::new("md5sum");
    let text = process::capture(sums.current_dir(root).args(files))
        .context("sums of a package's files")?;
    Ok(fs::write(root.join("DEBIAN/md5sums"), text)?)
}
