//! `cargo xtask layers`: checks the import directions between the layers of latency-user, and that
//! no files of any crate import from each other.
//!
//! Owns the rules: which layer may import from which, which may use aya, which may print, and that
//! the documents state the same order. `source` scans the source text, `circles` finds circles.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};

use crate::workspace;

mod circles;
mod source;

use source::{Finding, What};

/// A layer: a top-level module of the crate.
struct Layer {
    name: &'static str,
    may_import: &'static [&'static str],
}

const fn layer(name: &'static str, may_import: &'static [&'static str]) -> Layer {
    Layer { name, may_import }
}

/// From the bottom to the top: a layer imports from those before it only. Every top-level module
/// must be listed.
const LAYERS: &[Layer] = &[
    layer("model", &[]),
    layer("analysis", &["model"]),
    layer("file_tree", &[]),
    layer("host", &["model", "file_tree"]),
    layer("kernel", &["model", "host"]),
    layer("recording", &["model", "analysis"]),
    layer("collect", &["model", "analysis", "host", "kernel"]),
    layer("measure", &["model", "analysis", "host", "recording", "collect"]),
    layer("compare", &["model", "recording"]),
    layer(
        "experiment",
        &["model", "analysis", "host", "recording", "collect", "measure", "compare"],
    ),
    layer("triage", &["model", "file_tree", "host", "kernel", "measure"]),
    layer("views", &["model"]),
    layer("serve", &["model", "analysis", "host", "recording", "measure", "triage", "views"]),
    layer("cli", &["model", "host", "kernel", "recording", "collect"]),
    layer(
        "commands",
        &[
            "model",
            "host",
            "kernel",
            "recording",
            "collect",
            "measure",
            "compare",
            "experiment",
            "triage",
            "views",
            "serve",
            "cli",
        ],
    ),
    layer("main", &["cli", "commands", "model"]),
];
/// Layers that may use aya; the others go through them.
const MAY_USE_AYA: [&str; 2] = ["kernel", "collect"];
const MAY_PRINT: [&str; 2] = ["views", "main"];

/// One violation of the rules.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    file: PathBuf,
    line: usize,
    why: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.why)
    }
}

/// Crates whose files must not import from each other in circles.
const CRATES: [&str; 4] = ["latency-common", "latency-ebpf", "latency-user", "xtask"];

/// Where the order of the layers is stated for readers.
const ARCHITECTURE: &str = "ARCHITECTURE.md";
const CRATE_ROOT: &str = "latency-user/src/lib.rs";

pub(crate) fn main() -> Result<ExitCode> {
    let root = workspace::root();
    let mut files = 0;
    let mut problems = Vec::new();
    for name in CRATES {
        let source = root.join(name).join("src");
        let texts = read(&source)?;
        files += texts.len();
        if name == "latency-user" {
            let violations = texts.iter().flat_map(|(file, text)| check(file, text));
            problems.extend(violations.map(|violation| format!("{name}/src/{violation}")));
        }
        let texts = texts.iter().map(|(file, text)| (file.as_path(), text.as_str()));
        for circle in circles::find(texts) {
            let files: Vec<_> = circle.iter().map(|file| file.display().to_string()).collect();
            problems.push(format!("{name}/src: import each other: {}", files.join(", ")));
        }
    }
    for (file, order) in [(ARCHITECTURE, order()), (CRATE_ROOT, order_in_docs())] {
        let text = fs::read_to_string(root.join(file)).with_context(|| format!("read {file}"))?;
        if !text.contains(&order) {
            problems.push(format!("{file}: the order of the layers is not as in xtask: {order}"));
        }
    }
    for problem in &problems {
        eprintln!("{problem}");
    }
    println!("layers: {files} files, {} violations", problems.len());
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The order of the layers as ARCHITECTURE.md states it.
fn order() -> String {
    let names: Vec<&str> = LAYERS.iter().map(|layer| layer.name).collect();
    format!("`{}`", names.join(" < "))
}

/// The order of the layers as the crate's documentation lists its modules.
fn order_in_docs() -> String {
    let modules = LAYERS.iter().filter(|layer| layer.name != "main");
    modules.map(|layer| format!("//! - [`{}`]\n", layer.name)).collect()
}

/// Every `.rs` file under `source`, by its path below it.
fn read(source: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut files = Vec::new();
    rust_files(source, &mut files)?;
    let read = |file: PathBuf| {
        let text =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok((file.strip_prefix(source).unwrap_or(&file).to_path_buf(), text))
    };
    files.into_iter().map(read).collect()
}

/// Collects every `.rs` file under `directory`, in a stable order.
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

/// All violations in one file, given by its path below `src`.
fn check(file: &Path, text: &str) -> Vec<Violation> {
    let violation = |line, why| Violation { file: file.to_path_buf(), line, why };
    let module = module_path(file);
    let Some(name) = module.first() else {
        // The crate root has no code: it only declares and re-exports modules.
        return Vec::new();
    };
    let Some(layer) = LAYERS.iter().find(|layer| layer.name == name) else {
        let why = format!(
            "module `{name}` is not in xtask's list of layers: add it there with its imports"
        );
        return vec![violation(1, why)];
    };
    let findings = source::findings(text, module.len());
    findings
        .into_iter()
        .filter_map(|Finding { line, what }| Some(violation(line, against_rules(layer, &what)?)))
        .collect()
}

/// Which rule `layer` violates by this; `None` if it is allowed.
fn against_rules(layer: &Layer, what: &What) -> Option<String> {
    let name = layer.name;
    match what {
        What::Imports(other) => {
            let known = LAYERS.iter().any(|layer| layer.name == other);
            let allowed = other == name || layer.may_import.contains(&other.as_str());
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
        check(Path::new(file), text).into_iter().map(|violation| violation.why).collect()
    }

    #[test]
    fn an_import_in_the_wrong_direction_is_found_with_its_line() {
        let text = "//! Owns x.\n\nuse crate::{\n    model::Series,\n    views::table,\n};\n";
        let violations = check(Path::new("recording/writer.rs"), text);
        let expected = Violation {
            file: "recording/writer.rs".into(),
            line: 5,
            why: "`recording` must not import from `views`".into(),
        };
        assert_eq!(violations, [expected]);
    }

    #[test]
    fn every_form_of_import_is_found() {
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
    fn allowed_imports_pass() {
        let text = "use crate::{host::proc, model::Run};\nuse super::btf;\nuse aya::Ebpf;\n\
                    mod tests { use super::*; use super::super::hooks; }";
        assert_eq!(whys("kernel/loader.rs", text), [""; 0]);
        assert_eq!(whys("lib.rs", "pub mod model;\npub use crate::model::Run;"), [""; 0]);
        assert_eq!(whys("main.rs", "fn main() { eprintln!(); latency_user::cli::run() }"), [""; 0]);
    }

    #[test]
    fn comments_and_literals_are_ignored() {
        let text = "//! See crate::views and println!.\n/* use aya::X; /* nested */ */\n\
                    const A: &str = \"crate::cli \\\" aya::\";\nconst B: &str = r#\"\"crate::cli\"#;\n\
                    const Q: char = '\"'; fn f<'a>(x: &'a str) -> crate::model::X<'a> { todo() }";
        assert_eq!(whys("host/proc.rs", text), [""; 0]);
    }

    #[test]
    fn aya_and_printing_are_restricted_to_their_layers() {
        assert_eq!(whys("triage/rules.rs", "use aya::Ebpf;"), ["`triage` must not use aya"]);
        assert_eq!(whys("host/proc.rs", "fn f() { println!(\"x\") }"), ["`host` must not print"]);
        assert_eq!(whys("host/proc.rs", "mod tests { fn f() { println!() } }"), [""; 0]);
    }

    #[test]
    fn a_layer_imports_from_those_before_it() {
        for (at, layer) in LAYERS.iter().enumerate() {
            for import in layer.may_import {
                let before = LAYERS[..at].iter().any(|other| other.name == *import);
                assert!(before, "{} imports {import}", layer.name);
            }
        }
    }

    #[test]
    fn an_unlisted_module_is_a_violation() {
        assert_eq!(whys("utils/mod.rs", "").len(), 1);
    }
}
