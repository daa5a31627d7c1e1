//! Logs of other programs, and output files: what a log holds is what is shown, and no command
//! harms a file that it does not replace.
//!
//! The logs whose names start with `jHiccup` and `tagged` are from HdrHistogram's own tests (public
//! domain), and so are their expected counts.

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use latency_tests::in_process;
use latency_user::model::exit::Exit;
use serde_json::Value;

/// Count, maximum (ns) and p99.9 (ns) of a series. They are known to a bucket of the log, of which
/// those with few digits are a sixteenth wide, and of ours.
type Expected = (u64, f64, f64);

/// A log, and its series.
const READ: [(&str, &[Expected]); 14] = [
    ("jHiccup-2.0.1.logV0", &[(61_256, 1.569_718_271e9, 1.510_998_015e9)]),
    ("jHiccup-2.0.6.logV1", &[(65_964, 1.888_485_375e9, 1.829_765_119e9)]),
    ("jHiccup-2.0.7S.logV2", &[(48_761, 1.796e9, 1.746e9)]),
    ("tagged-Log.logV2", &[(16_145, 1.551e9, 1.543e9), (16_145, 1.551e9, 1.543e9)]),
    ("100s", &[(1003, 100e9, 100e9)]),
    ("5digits", &[(1010, 2e6, 2e6)]),
    ("backwards", &[(3030, 2e6, 2e6)]),
    ("c-monotonic", &[(2020, 2e6, 2e6)]),
    ("concatenated", &[(2020, 2e6, 2e6)]),
    ("crlf-bom", &[(1010, 2e6, 2e6)]),
    ("empty-intervals", &[(1010, 2e6, 2e6)]),
    ("gz", &[(1010, 2e6, 2e6)]),
    ("tag-odd", &[(1010, 2e6, 2e6), (1010, 2e6, 2e6), (1010, 2e6, 2e6)]),
    ("us", &[(1010, 900e6, 900e6)]),
];

/// A log that cannot be read, and what the error says.
const REFUSED: [(&str, &str); 4] = [
    ("0digits", ":4: histogram header has a precision"),
    ("comma-decimals", ":4: expected 4 fields"),
    ("ratio", ":4: histogram header has a conversion ratio"),
    ("v1-cookie", ":4: HdrHistogram V1 encoding"),
];

fn log(name: &str) -> String {
    format!("{}/fixtures/logs/{name}.hlog", env!("CARGO_MANIFEST_DIR"))
}

/// Series that `report --format json` shows, and its warnings.
fn series(path: &str, options: &[&str]) -> (Vec<Value>, String) {
    let line = [&["report", path, "--format", "json"], options].concat();
    let (exit, output) = in_process::run(&line).unwrap();
    assert_eq!(exit, Exit::Ok, "{path}");
    let (json, rest): (Vec<&str>, Vec<&str>) =
        output.lines().partition(|line| line.starts_with('{'));
    let series = json.iter().map(|line| serde_json::from_str(line).unwrap());
    let series = series.filter(|object: &Value| object["kind"] == "foreign_series");
    (series.collect(), rest.join("\n"))
}

fn error(line: &[&str]) -> String {
    format!("{:#}", in_process::run(line).unwrap_err())
}

pub(crate) fn read() {
    for (name, expected) in READ {
        let (found, _) = series(&log(name), &[]);
        assert_eq!(found.len(), expected.len(), "{name}: {found:?}");
        for (found, (count, max, p99_9)) in found.iter().zip(expected) {
            assert_eq!(found["count"], *count, "{name}");
            for (field, expected) in [("max_ns", max), ("p99_9_ns", p99_9)] {
                let ratio = found[field].as_f64().unwrap() / expected;
                assert!((1.0..1.07).contains(&ratio), "{name}: {field} is {}", found[field]);
            }
        }
    }
}

pub(crate) fn refused() {
    for (name, words) in REFUSED {
        let error = error(&["report", &log(name)]);
        assert!(error.contains(words), "{name}: {error}");
    }
    let directory = tempfile::tempdir().unwrap();
    for (text, words) in [("", ":1: the file is empty"), ("\0\0\0\0", ":1: expected 4 fields")] {
        let path = directory.path().join("x.hlog");
        fs::write(&path, text).unwrap();
        let path = path.to_str().unwrap();
        for line in [&["report", path][..], &["merge", path, "--output", "/dev/null"]] {
            let error = error(line);
            assert!(error.contains(words), "{line:?} {text:?}: {error}");
        }
    }
}

pub(crate) fn warned() {
    for (name, options, words) in [
        ("100s", &[][..], "3 values above 68.7 s"),
        ("us", &[], "values are in us"),
        ("cut-b64", &[], "the last line is cut short: 67 bytes"),
    ] {
        let (_, warnings) = series(&log(name), options);
        assert!(warnings.contains(words), "{name}: {warnings}");
    }
    let (found, warnings) = series(&log("us"), &["--unit", "ns"]);
    assert!(found[0]["max_ns"].as_u64().unwrap() < 1_000_000 && !warnings.contains("in us"));
}

/// Our own recording whose comments another tool dropped: all of its series are shown, and merging
/// it keeps its stalls and invents no host.
pub(crate) fn without_comments() {
    let directory = tempfile::tempdir().unwrap();
    let of = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let own = format!("{}/fixtures/collapse-v2.hlog", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(&own).unwrap();
    let rest: Vec<&str> = text.lines().filter(|line| !line.starts_with("#[latency-user")).collect();
    fs::write(of("s.hlog"), rest.join("\n") + "\n").unwrap();
    let (found, _) = series(&of("s.hlog"), &[]);
    let tags: std::collections::BTreeSet<&str> = rest
        .iter()
        .filter_map(|line| line.strip_prefix("Tag=")?.split_once(',').map(|(tag, _)| tag))
        .collect();
    assert_eq!(found.len(), tags.len());
    let stalls = |found: &[Value]| -> u64 {
        found.iter().map(|series| series["over_threshold"].as_u64().unwrap()).sum()
    };
    assert!(stalls(&found) > 0);

    in_process::run(&["merge", &of("s.hlog"), &of("s.hlog"), "--output", &of("two.hlog")]).unwrap();
    let (merged, _) = series(&of("two.hlog"), &[]);
    assert_eq!((merged.len(), stalls(&merged)), (found.len(), 2 * stalls(&found)));
    in_process::run(&["merge", &of("s.hlog"), &own, "--output", &of("both.hlog")]).unwrap();
    let (merged, _) = series(&of("both.hlog"), &[]);
    assert_eq!((merged.len(), stalls(&merged)), (found.len(), stalls(&found)));
    let text = fs::read_to_string(of("both.hlog")).unwrap();
    assert!(text.contains(" and other logs\""), "a host of its own");
}

/// No command harms its input or an old output, by whatever name.
pub(crate) fn outputs() {
    let directory = tempfile::tempdir().unwrap();
    let of = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let input = of("a.hlog");
    fs::copy(format!("{}/fixtures/collapse-v2.hlog", env!("CARGO_MANIFEST_DIR")), &input).unwrap();
    let before = fs::read(&input).unwrap();
    fs::hard_link(&input, of("hard.hlog")).unwrap();
    symlink(&input, of("soft.hlog")).unwrap();
    for output in ["a.hlog", "hard.hlog", "soft.hlog"] {
        for format in ["table", "json", "csv", "hgrm", "html", "folded"] {
            let error = error(&["report", &input, "--format", format, "--output", &of(output)]);
            assert!(error.ends_with("is both an input and the output"), "{error}");
        }
        let error = error(&["merge", &input, "--output", &of(output)]);
        assert!(error.ends_with("is both an input and the output"), "{error}");
    }
    assert_eq!(fs::read(&input).unwrap(), before);

    let old = of("old.html");
    fs::write(&old, "old").unwrap();
    for line in [
        &["report", "/nonexistent", "--format", "html", "--output", &old][..],
        &["report", &input, "/nonexistent", "--output", &old],
        &["merge", &input, "/nonexistent", "--output", &old],
    ] {
        error(line);
        assert_eq!(fs::read_to_string(&old).unwrap(), "old", "{line:?}");
    }
    in_process::run(&["report", &input, "--format", "html", "--output", &old]).unwrap();
    assert!(fs::read_to_string(&old).unwrap().trim_end().ends_with("</html>"));
    let mut names: Vec<PathBuf> =
        fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| !["hlog", "html"].iter().any(|kind| path.extension().unwrap() == *kind));
    assert_eq!(names, [] as [PathBuf; 0]);
}

/// Every log can be compared with itself.
pub(crate) fn compared() {
    for (name, _) in READ {
        let (exit, output) = in_process::run(&["compare", &log(name), &log(name)]).unwrap();
        assert_eq!(exit, Exit::Ok, "{name}: {output}");
    }
}

/// A report that is killed while it replaces a page leaves the old page or the new one. If it had just
/// given the new one a name, the next report removes that.
pub(crate) fn killed() {
    let Some(binary) = std::env::var_os("LATENCY_USER") else { return };
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("page.html");
    let input = format!("{}/fixtures/collapse-v2.hlog", env!("CARGO_MANIFEST_DIR"));
    let (mut old, mut new) = (0, 0);
    for round in 0..40 {
        fs::write(&page, "old").unwrap();
        let mut child = std::process::Command::new(&binary)
            .args(["report", &input, "--format", "html", "--output"])
            .arg(&page)
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(round));
        child.kill().unwrap();
        child.wait().unwrap();
        let text = fs::read_to_string(&page).unwrap();
        match text.as_str() {
            "old" => old += 1,
            text => {
                assert!(
                    text.trim_end().ends_with("</html>"),
                    "half a page of {} bytes",
                    text.len()
                );
                new += 1;
            }
        }
        let names = fs::read_dir(directory.path()).unwrap().count();
        assert!(names <= 2, "round {round}: {names} files");
    }
    in_process::run(&["report", &input, "--output", page.to_str().unwrap()]).unwrap();
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "a file is left");
    assert!(old > 0, "{old} old, {new} new");
}

/// Pairs of recordings and their verdicts: a fix that leaves a stage without events, one more stall
/// in a stage that has none afterwards, more load with the same stalls per second, other units.
const PAIRS: [(&str, &str, &str); 6] = [
    ("van_a", "van_b", "improved"),
    ("van_c", "van_b", "improved"),
    ("van_b", "van_a", "worse"),
    ("load19_a", "load19_b", "no_difference_shown"),
    ("foreign_a", "foreign_b", "no_difference_shown"),
    ("f_ns", "f_us", "not_comparable"),
];

pub(crate) fn verdicts() {
    let directory = format!("{}/fixtures/verdicts", env!("CARGO_MANIFEST_DIR"));
    for (before, after, expected) in PAIRS {
        let [before, after] = [before, after].map(|name| format!("{directory}/{name}.hlog"));
        let line = ["compare", &before, &after, "--format", "json"];
        let (_, output) = in_process::run(&line).unwrap();
        let json = output.lines().find(|line| line.starts_with('{')).unwrap();
        let found: Value = serde_json::from_str(json).unwrap();
        assert_eq!(found["verdict"], expected, "{before} {after}: {}", found["sentence"]);
        let sentence = found["sentence"].as_str().unwrap();
        // An interval beside it would exclude 1.
        assert!(expected != "no_difference_shown" || !sentence.contains("times"), "{sentence}");
        let codes: Vec<&str> = found["notes"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|note| note["code"].as_str())
            .collect();
        let changed = matches!(expected, "improved" | "worse");
        assert_eq!(codes.contains(&"cause-not-shown"), changed, "{codes:?}");
        assert_eq!(codes.contains(&"units-differ"), expected == "not_comparable", "{codes:?}");
    }
}
