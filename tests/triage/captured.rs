//! Hosts of `fixtures/hosts/RULE/NAME.host`: all files of a capture in one text file.
//!
//! It starts with a `#` line that describes the host. If the rule must find something, the lines
//! `next: COMMAND` and `undo: COMMAND` follow; `-` means no command. Each file follows a line
//! `-- PATH --`.

use std::{fs, path::Path};

use latency_user::{
    model::finding::Triage,
    triage::{self, HostSnapshot},
};
use tempfile::TempDir;

/// A host on disk.
pub(crate) struct Captured {
    /// The rule that it tests.
    pub(crate) rule: String,
    /// The rule's expected answer: the file name up to the first `-`.
    pub(crate) expected: String,
    /// The commands that a finding must name.
    pub(crate) next: Option<String>,
    pub(crate) undo: Option<String>,
    /// `RULE/NAME.host`, for messages.
    pub(crate) place: String,
    directory: TempDir,
}

impl Captured {
    /// The root directory of its files.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Loads it.
    pub(crate) fn host(&self) -> HostSnapshot {
        triage::load(self.path()).unwrap_or_else(|error| panic!("{}: {error:#}", self.place))
    }

    /// Judges it as `latency-user triage` does.
    pub(crate) fn judge(&self) -> Triage {
        let host = self.host();
        triage::judge(&host, &host.busy_interfaces())
    }
}

/// All hosts, by rule and name.
pub(crate) fn all() -> Vec<Captured> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/hosts");
    let mut hosts = Vec::new();
    for rule in names(&root) {
        for name in names(&root.join(&rule)) {
            let text = fs::read_to_string(root.join(&rule).join(&name)).unwrap();
            hosts.push(unpack(&rule, &name, &text));
        }
    }
    hosts
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

pub(crate) fn unpack(rule: &str, name: &str, text: &str) -> Captured {
    let place = format!("{rule}/{name}");
    let stem = name.strip_suffix(".host").unwrap_or_else(|| panic!("{place}: not a .host"));
    let directory = tempfile::tempdir().unwrap();
    let mut parts = text.split("\n-- ");
    let header = parts.next().unwrap_or_default();
    let field = |name: &str| {
        let line = header.lines().find_map(|line| line.strip_prefix(name));
        line.filter(|value| *value != "-").map(str::to_owned)
    };
    let captured = Captured {
        rule: rule.to_owned(),
        expected: stem.split('-').next().unwrap_or_default().to_owned(),
        next: field("next: "),
        undo: field("undo: "),
        place,
        directory,
    };
    for part in parts {
        let (path, text) = part.split_once(" --\n").unwrap_or((part.trim_end_matches(" --"), ""));
        let path = captured.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // Splitting at the next file's line removed the final newline.
        fs::write(path, format!("{}\n", text.trim_end_matches('\n'))).unwrap();
    }
    captured
}
