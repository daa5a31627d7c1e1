//! `cargo xtask layers`: imports in latency-user go one way only.
//!
//! Owns the rules: which room of the crate may import from which, who may use aya, who may
//! print. Reading source text is `source`'s.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};

use crate::workspace;

mod source;

use source::{Finding, What};

/// A room is a top-level module of the crate.
struct Room {
    name: &'static str,
    may_import: &'static [&'static str],
}

const fn room(name: &'static str, may_import: &'static [&'static str]) -> Room {
    Room { name, may_import }
}

/// From the bottom to the top. A room that is not here may not exist.
const ROOMS: &[Room] = &[
    room("model", &["analysis"]),
    room("analysis", &["model"]),
    room("file_tree", &[]),
    room("views", &["model", "analysis"]),
    room("host", &["model", "file_tree"]),
    room("kernel", &["model", "host"]),
    room("recording", &["model", "analysis"]),
    room("collect", &["model", "analysis", "kernel", "host"]),
    room("compare", &["model", "recording"]),
    room("experiment", &["model", "analysis", "host", "kernel", "collect", "recording", "compare"]),
    room("triage", &["model", "analysis", "file_tree", "host", "kernel", "collect"]),
    room("cli", &["model", "host", "kernel", "collect"]),
    room(
        "commands",
        &[
            "model",
            "analysis",
            "views",
            "host",
            "kernel",
            "recording",
            "collect",
            "compare",
            "experiment",
            "triage",
            "cli",
        ],
    ),
    room("main", &["cli", "commands", "model", "views"]),
];
/// aya is the kernel's side door: whoever else needs it asks these.
const MAY_USE_AYA: [&str; 2] = ["kernel", "collect"];
const MAY_PRINT: [&str; 2] = ["views", "main"];

/// One line against the rules.
#[derive(Debug, PartialEq, Eq)]
struct Offence {
    file: PathBuf,
    line: usize,
    why: String,
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.why)
    }
}

pub(crate) fn main() -> Result<ExitCode> {
    let source = workspace::root().join("latency-user/src");
    let mut files = Vec::new();
    rust_files(&source, &mut files)?;
    let mut offences = Vec::new();
    for file in &files {
        let text =
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let relative = file.strip_prefix(&source).unwrap_or(file);
        offences.extend(check(relative, &text));
    }
    for offence in &offences {
        eprintln!("latency-user/src/{offence}");
    }
    println!("layers: {} files, {} against the rules", files.len(), offences.len());
    Ok(if offences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Every `.rs` file under `directory`, in a steady order.
fn rust_files(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        directory.read_dir().with_context(|| format!("cannot read {}", directory.display()))?;
    let mut paths: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            rust_files(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// All offences in one file, named by its path below `src`.
fn check(file: &Path, text: &str) -> Vec<Offence> {
    let offence = |line, why| Offence { file: file.to_path_buf(), line, why };
    let module = module_path(file);
    let Some(name) = module.first() else {
        // The crate's root owns nothing, so it can only declare and re-export.
        return Vec::new();
    };
    let Some(room) = ROOMS.iter().find(|room| room.name == name) else {
        let why = format!("room `{name}` is not in xtask's list: add it there with its imports");
        return vec![offence(1, why)];
    };
    let findings = source::findings(text, module.len());
    findings
        .into_iter()
        .filter_map(|Finding { line, what }| Some(offence(line, against_rules(room, &what)?)))
        .collect()
}

/// Why `room` must not do this; `None` if it may.
fn against_rules(room: &Room, what: &What) -> Option<String> {
    let name = room.name;
    match what {
        What::Imports(other) => {
            let known = ROOMS.iter().any(|room| room.name == other);
            let allowed = other == name || room.may_import.contains(&other.as_str());
            (known && !allowed).then(|| format!("`{name}` must not import from `{other}`"))
        }
        What::UsesAya => {
            (!MAY_USE_AYA.contains(&name)).then(|| format!("`{name}` must not use aya"))
        }
        What::Prints => (!MAY_PRINT.contains(&name)).then(|| format!("`{name}` must not print")),
    }
}

/// `kernel/btf.rs` is `[kernel, btf]`, `kernel/mod.rs` is `[kernel]`, `lib.rs` is empty.
fn module_path(file: &Path) -> Vec<String> {
    let without_extension = file.with_extension("");
    let mut path: Vec<_> =
        without_extension.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if path.last().is_some_and(|last| last == "mod") || path == ["lib"] {
        path.pop();
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whys(file: &str, text: &str) -> Vec<String> {
        check(Path::new(file), text).into_iter().map(|offence| offence.why).collect()
    }

    #[test]
    fn an_import_against_the_direction_is_found_with_its_line() {
        let text = "//! Owns x.\n\nuse crate::{\n    model::Series,\n    views::table,\n};\n";
        let offences = check(Path::new("recording/writer.rs"), text);
        let expected = Offence {
            file: "recording/writer.rs".into(),
            line: 5,
            why: "`recording` must not import from `views`".into(),
        };
        assert_eq!(offences, [expected]);
    }

    #[test]
    fn every_way_to_write_an_import_is_seen() {
        for text in [
            "use crate::collect::Snapshot;",
            "use super::super::collect::Snapshot;",
            "use latency_user::collect;",
            "fn f() { crate::collect::snapshot() }",
            "mod tests { use super::super::super::collect; }",
        ] {
            assert_eq!(whys("views/table.rs", text), ["`views` must not import from `collect`"]);
        }
        assert_eq!(
            whys("model/mod.rs", "use super::{host, kernel::btf};"),
            ["`model` must not import from `host`", "`model` must not import from `kernel`"]
        );
    }

    #[test]
    fn what_the_design_allows_passes() {
        let text = "use crate::{host::proc, model::Run};\nuse super::btf;\nuse aya::Ebpf;\n\
                    mod tests { use super::*; use super::super::hooks; }";
        assert_eq!(whys("kernel/loader.rs", text), [""; 0]);
        assert_eq!(whys("lib.rs", "pub mod model;\npub use crate::model::Run;"), [""; 0]);
        assert_eq!(whys("main.rs", "fn main() { eprintln!(); latency_user::cli::run() }"), [""; 0]);
    }

    #[test]
    fn words_in_comments_and_strings_do_not_count() {
        let text = "//! See crate::views and println!.\n/* use aya::X; /* nested */ */\n\
                    const A: &str = \"crate::cli \\\" aya::\";\nconst B: &str = r#\"\"crate::cli\"#;\n\
                    const Q: char = '\"'; fn f<'a>(x: &'a str) -> crate::model::X<'a> { todo() }";
        assert_eq!(whys("host/proc.rs", text), [""; 0]);
    }

    #[test]
    fn aya_and_printing_are_kept_to_their_rooms() {
        assert_eq!(whys("triage/rules.rs", "use aya::Ebpf;"), ["`triage` must not use aya"]);
        assert_eq!(whys("host/proc.rs", "fn f() { println!(\"x\") }"), ["`host` must not print"]);
        assert_eq!(whys("host/proc.rs", "mod tests { fn f() { println!() } }"), [""; 0]);
    }

    #[test]
    fn a_room_that_nobody_listed_is_an_offence() {
        assert_eq!(whys("utils/mod.rs", "").len(), 1);
    }
}
