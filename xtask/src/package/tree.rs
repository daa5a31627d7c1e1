//! The files of a package and where they are installed.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};

use crate::{process, workspace};

/// Where packages install the program.
pub(super) const PROGRAM: &str = "usr/bin/latency-user";
/// Its configuration, which packages keep when they are upgraded.
pub(super) const CONFIGURATION: &str = "etc/latency-user.toml";
const DOCUMENTS: &str = "usr/share/doc/latency-user";

/// The daemon's defaults.
const DEFAULT_CONFIGURATION: &str = "\
# Configuration of `latency-user serve`. Its keys are the names of the options in
# `latency-user serve --help`; options on the command line win.
#threshold = \"1ms\"
";

/// The shells that get completions, with the file of each.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/latency-user"),
    ("zsh", "usr/share/zsh/vendor-completions/_latency-user"),
    ("fish", "usr/share/fish/vendor_completions.d/latency-user.fish"),
];

struct File {
    content: Vec<u8>,
    mode: u32,
}

/// Files by their path from the root.
pub(super) struct Tree {
    files: BTreeMap<PathBuf, File>,
}

impl Tree {
    /// Collects the program, its pages by `documents`, completions by `completer`, units and
    /// licences.
    pub(super) fn collect(program: &Path, documents: &Path, completer: &Path) -> Result<Self> {
        let mut tree = Self { files: BTreeMap::new() };
        let content = fs::read(program).with_context(|| format!("read {}", program.display()))?;
        tree.add(PROGRAM, content, 0o755);
        tree.add(CONFIGURATION, DEFAULT_CONFIGURATION.into(), 0o644);
        tree.add_pages(documents)?;
        for (shell, path) in COMPLETIONS {
            tree.add(path, completion(completer, shell)?, 0o644);
        }
        let root = workspace::root();
        let text = |name: &str| {
            let path = root.join(name);
            fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
        };
        for unit in ["latency-user.service", "latency-user.socket"] {
            let unit_text = text(&format!("contrib/systemd/{unit}"))?;
            let installed = unit_text.replace("/usr/local/bin/", "/usr/bin/");
            tree.add(&format!("usr/lib/systemd/system/{unit}"), installed.into(), 0o644);
        }
        for (name, source) in [
            ("README.md", "README.md"),
            ("serve.md", "docs/serve.md"),
            ("alerts.yaml", "contrib/prometheus/alerts.yaml"),
            ("dashboard.json", "contrib/grafana/dashboard.json"),
        ] {
            tree.add(&format!("{DOCUMENTS}/{name}"), text(source)?.into(), 0o644);
        }
        tree.add(&format!("{DOCUMENTS}/sbom.cdx.json"), sbom()?, 0o644);
        tree.add(&format!("{DOCUMENTS}/copyright"), copyright(&text)?.into(), 0o644);
        Ok(tree)
    }

    /// Adds a file.
    pub(super) fn add(&mut self, path: &str, content: Vec<u8>, mode: u32) {
        self.files.insert(path.into(), File { content, mode });
    }

    fn add_pages(&mut self, documents: &Path) -> Result<()> {
        let directory = workspace::root().join("target/man");
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory)?;
        process::run(Command::new(documents).arg(&directory))?;
        for entry in directory.read_dir()? {
            let path = entry?.path();
            let name = path.file_name().context("a page without a name")?.to_string_lossy();
            let mut gzip = Command::new("gzip");
            let packed = gzip.args(["-9n", "--stdout"]).arg(&path).output()?;
            if !packed.status.success() {
                bail!("gzip cannot compress {}", path.display());
            }
            self.add(&format!("usr/share/man/man1/{name}.gz"), packed.stdout, 0o644);
        }
        Ok(())
    }

    /// The paths, sorted.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.keys().map(PathBuf::as_path)
    }

    /// Their size, bytes.
    pub(super) fn size(&self) -> u64 {
        self.files.values().map(|file| file.content.len() as u64).sum()
    }

    /// Writes all files at their paths below `root`, with one time.
    pub(super) fn write(&self, root: &Path, time: u64) -> Result<()> {
        let _ = fs::remove_dir_all(root);
        for (path, file) in &self.files {
            write_file(&root.join(path), file, time)?;
        }
        set_directories(root, time)
    }

    /// Writes what a person wants who unpacks an archive, without the directories of a system.
    pub(super) fn write_flat(&self, directory: &Path, time: u64) -> Result<()> {
        let _ = fs::remove_dir_all(directory);
        for (path, file) in &self.files {
            let name = path.file_name().context("a file without a name")?;
            let name = name.to_string_lossy();
            let kind = match path {
                path if path.starts_with("usr/share/man") => "man",
                path if path.starts_with("usr/lib/systemd") => "systemd",
                path if COMPLETIONS.iter().any(|(_, file)| path == Path::new(file)) => {
                    let shell = COMPLETIONS.iter().find(|(_, file)| path == Path::new(file));
                    let shell = shell.map_or("", |(shell, _)| shell);
                    write_file(&directory.join("completions").join(shell), file, time)?;
                    continue;
                }
                _ => "",
            };
            write_file(&directory.join(kind).join(&*name), file, time)?;
        }
        set_directories(directory, time)
    }
}

fn write_file(path: &Path, file: &File, time: u64) -> Result<()> {
    let parent = path.parent().context("a file without a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    fs::write(path, &file.content).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(path, PermissionsExt::from_mode(file.mode))?;
    let written = fs::File::options().write(true).open(path)?;
    Ok(written.set_modified(UNIX_EPOCH + Duration::from_secs(time))?)
}

/// Sets the modes and times of directories, from the innermost to the outermost.
pub(super) fn set_directories(directory: &Path, time: u64) -> Result<()> {
    for entry in directory.read_dir()? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            set_directories(&entry.path(), time)?;
        }
    }
    fs::set_permissions(directory, PermissionsExt::from_mode(0o755))?;
    let opened = fs::File::open(directory)?;
    Ok(opened.set_modified(UNIX_EPOCH + Duration::from_secs(time))?)
}

/// The script that asks the program for completions.
fn completion(program: &Path, shell: &str) -> Result<Vec<u8>> {
    let directory = program.parent().context("a program without a directory")?;
    let mut command = Command::new("latency-user");
    // By its name, as people start it.
    command.env("PATH", directory).env("COMPLETE", shell);
    let output = command.output().with_context(|| format!("completions of {shell}"))?;
    if !output.status.success() || output.stdout.is_empty() {
        bail!("no completions for {shell}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}

/// Who may copy what: Debian's machine-readable form.
fn copyright(text: &dyn Fn(&str) -> Result<String>) -> Result<String> {
    let indented = |licence: String| {
        let lines = licence.lines().map(|line| match line.trim_end() {
            "" => " .".to_owned(),
            line => format!(" {line}"),
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    let crates = crates()?;
    let mut others = String::new();
    for (name, version, licence) in crates.iter().filter(|(_, _, licence)| !licence.is_empty()) {
        others.push_str(&format!(" {name} {version}: {licence}\n"));
    }
    Ok(format!(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\
         Upstream-Name: latency-user\n\
         Comment: The program contains its eBPF object, which alone is under MIT or GPL-2, because\n \
         the kernel lends its GPL-only functions to such programs, and these Rust crates:\n{others}\n\
         Files: *\n\
         Copyright: 2026 The latency-user developers\n\
         License: Expat or Apache-2.0\n\n\
         Files: latency-ebpf/*\n\
         Copyright: 2026 The latency-user developers\n\
         License: Expat or GPL-2\n\n\
         License: Expat\n{}\n\n\
         License: Apache-2.0\n{}\n\n\
         License: GPL-2\n On Debian systems, the text is in /usr/share/common-licenses/GPL-2.\n",
        indented(text("LICENSE-MIT")?),
        " On Debian systems, the text is in /usr/share/common-licenses/Apache-2.0.",
    ))
}

/// The bill of materials in CycloneDX's form: what the program was built from.
fn sbom() -> Result<Vec<u8>> {
    let components: Vec<_> = crates()?
        .into_iter()
        .map(|(name, version, licence)| {
            serde_json::json!({
                "type": "library",
                "name": name,
                "version": version,
                "purl": format!("pkg:cargo/{name}@{version}"),
                "licenses": [{ "expression": licence.replace('/', " OR ") }],
            })
        })
        .collect();
    let document = serde_json::json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": { "type": "application", "name": "latency-user" } },
        "components": components,
    });
    Ok(serde_json::to_vec_pretty(&document)?)
}

/// The crates that latency-user is linked from, with versions and licences.
fn crates() -> Result<Vec<(String, String, String)>> {
    let mut cargo = workspace::cargo();
    cargo.args(["tree", "--package", "latency-user", "--edges", "normal", "--prefix", "none"]);
    cargo.args(["--format", "{p}|{l}"]);
    let lines = process::capture(&mut cargo)?;
    let mut crates = Vec::new();
    for line in lines.lines() {
        let (package, licence) = line.split_once('|').context("a line of cargo tree")?;
        let licence = licence.trim_end_matches("(*)").trim();
        let mut words = package.split_whitespace();
        let (Some(name), Some(version)) = (words.next(), words.next()) else { continue };
        let is_ours = name.starts_with("latency-");
        if !is_ours {
            let version = version.trim_start_matches('v');
            crates.push((name.to_owned(), version.to_owned(), licence.to_owned()));
        }
    }
    crates.sort();
    crates.dedup();
    Ok(crates)
}
