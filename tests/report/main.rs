//! Reports of recordings: version 1 is still readable, pages are self-contained, and another
//! HdrHistogram implementation agrees.

#![allow(clippy::unwrap_used, reason = "tests may panic")]
#![allow(clippy::print_stderr, reason = "a skip says why, before the harness counts it")]

mod other_logs;
mod verdicts;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Error, Result, ensure};
use latency_common::stage::Stage;
use latency_tests::{axe, in_process, python, tool};
use latency_user::{
    model::{
        distribution::Distribution,
        exit::Exit,
        interval::Interval,
        run::{Run, Sampling, Transport},
        series::{Location, Queue, QueueId, Series},
    },
    recording::{loaded::LoadedRecording, writer::Writer},
    views::html,
};
use libtest_mimic::{Arguments, Trial};
use serde_json::Value;

/// Recordings written by the first version. Do not regenerate them.
const VERSION_1: [&str; 2] = ["idle-v1.hlog", "collapse-v1.hlog"];

fn main() {
    let arguments = Arguments::from_args();
    // Do not install anything just to list the tests.
    let skips = |needs: fn() -> Result<()>| match arguments.list {
        true => None,
        false => needs().err(),
    };
    let trials = [
        trial("version_1_reads_back_with_its_original_summary", None, version_1),
        trial("a_recording_made_on_arm_reads_as_it_was_told_there", None, arm),
        trial("logs_of_other_programs_are_read", None, other_logs::read),
        trial("what_is_no_log_is_refused", None, other_logs::refused),
        trial("what_a_log_says_of_itself_is_heeded", None, other_logs::warned),
        trial("a_recording_without_comments_is_a_log", None, other_logs::without_comments),
        trial("no_output_harms_another_file", None, other_logs::outputs),
        trial("each_log_is_compared_with_itself", None, other_logs::compared),
        trial("pairs_get_their_verdicts", None, other_logs::verdicts),
        trial("published_tables_are_possibly_improved", skips(hdrhistogram), verdicts::published),
        trial(
            "simulated_verdicts_are_rarely_wrong",
            skips(|| verdicts::program().map(drop)),
            verdicts::simulated,
        ),
        trial("merged_intervals_are_sums_of_a_grid", skips(hdrhistogram), merged),
        trial("a_killed_report_leaves_a_whole_page", None, other_logs::killed),
        trial("pages_are_self_contained", None, pages_are_self_contained),
        trial("an_hour_of_64_cpus_and_64_queues_fits_into_500_kb", None, hour_fits),
        trial("chromium_logs_nothing_about_a_page", skips(chromium), chromium_is_silent),
        trial(
            "axe_finds_no_violation_in_light_or_dark_pages",
            skips(axe_core),
            axe_finds_no_violation,
        ),
        trial(
            "a_log_of_python_hdrhistogram_is_read_with_the_same_percentiles",
            skips(hdrhistogram),
            second_implementation,
        ),
    ];
    libtest_mimic::run(&arguments, trials.into()).exit();
}

/// A test that is skipped, with a message, when `lacks` is the error for what is missing.
fn trial(name: &str, lacks: Option<Error>, body: fn()) -> Trial {
    if let Some(lacks) = &lacks {
        eprintln!("skipped: {name}: {lacks:#}");
    }
    let ignored = lacks.is_some();
    Trial::test(name, move || {
        body();
        Ok(())
    })
    .with_ignored_flag(ignored)
}

fn chromium() -> Result<()> {
    ensure!(tool::exists("chromium"), "chromium is not installed");
    Ok(())
}

fn axe_core() -> Result<()> {
    chromium()?;
    axe::script().map(drop)
}

fn hdrhistogram() -> Result<()> {
    python::with_packages().map(drop)
}

/// Recordings of the same time, of hosts whose clocks and intervals do not line up.
fn merged() {
    let python = python::with_packages().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let mut files = Vec::new();
    for (host, start_ms, length_ms) in [(0, 4_006, 1_000), (1, 17_480, 1_000), (2, 9_731, 2_100)] {
        let started_at =
            std::time::UNIX_EPOCH + Duration::from_millis(1_767_323_000_000 + start_ms);
        let file = path(&format!("{host}.hlog"));
        let mut writer = Writer::create(Path::new(&file)).unwrap();
        let run = Run {
            host: format!("h{host}"),
            started_at: humantime::format_rfc3339_millis(started_at).to_string(),
            ..run(1)
        };
        writer.start(&run).unwrap();
        for at in 0..53 {
            let series = (0..2).map(|cpu| {
                let mut distribution = Distribution::default();
                for n in 0..(7 * at + host) % 11 + cpu {
                    distribution.record((1_009 * (n + 1) * (at + 1)) << host, 1_000_000, n);
                }
                Series::new(Stage::NetRx, Location::Cpu(cpu as u32), distribution)
            });
            let length = Duration::from_millis(length_ms);
            let interval = Interval::new(length * at as u32, length, series.collect());
            writer.interval(&interval).unwrap();
        }
        files.push(file);
    }
    for (width, least) in [("1", 90), ("7", 15)] {
        let output = path("sum.hlog");
        let mut line = vec!["merge", "--interval"];
        let interval = format!("{width}s");
        line.extend([&*interval, "--output", &output]);
        line.extend(files.iter().map(String::as_str));
        in_process::run(&line).unwrap();
        let found = Command::new(&python)
            .args([python::script("sum_cells.py").to_str().unwrap(), width, &output])
            .args(&files)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(found.status.success(), "{}", text(&found.stderr));
        let cells: u32 = text(&found.stdout).trim().parse().unwrap();
        assert!(cells >= least, "{cells} cells of {width} s");
        // A sum is comparable: it has its course over time.
        let compared =
            in_process::run(&["compare", &output, &output, "--format", "json"]).unwrap().1;
        let line = compared.lines().find(|line| line.starts_with('{')).unwrap();
        let compared: Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (&compared["verdict"], &compared["weak"]),
            (&"no_difference_shown".into(), &false.into())
        );
    }
    let twice = path("twice.hlog");
    let again = ["merge", &files[0], &files[0], "--output", &twice];
    let program = std::env::var_os("LATENCY_USER");
    if let Some(program) = program {
        let output = Command::new(program).args(again).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(message.contains("is it merged twice?"), "{message}");
    }
}

/// Runs `latency-user report` and returns its output.
fn report(files: &[&Path], format: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("output");
    let mut line = vec!["report"];
    line.extend(files.iter().map(|file| file.to_str().unwrap()));
    line.extend(["--format", format, "--output", output.to_str().unwrap()]);
    assert_eq!(in_process::run(&line).unwrap().0, Exit::Ok);
    fs::read_to_string(output).unwrap()
}

/// Fields of version 1 that have been renamed since, with their new names.
const RENAMED: [(&str, &str); 4] = [
    ("begins", "started"),
    ("open", "in_progress"),
    ("begins_without_end", "unmatched_start"),
    ("ends_without_begin", "unmatched_end"),
];

/// Asserts that `new` has every value of `old`; `new` may have more.
fn assert_contains(new: &Value, old: &Value, at: &str) {
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => {
            for (key, value) in old {
                if key == "schema_version" {
                    assert_eq!((&new[key], value), (&2.into(), &1.into()), "{at}");
                    continue;
                }
                if key == "note" {
                    let notes = new["notes"].as_array().into_iter().flatten();
                    let mut notes = notes.filter(|note| note["text"] == *value);
                    assert!(notes.next().is_some(), "{at}.notes lacks {value}");
                    continue;
                }
                let renamed = RENAMED.iter().find(|(old, _)| old == key);
                let key = renamed.map_or(key.as_str(), |(_, new)| new);
                let found = new.get(key).unwrap_or_else(|| panic!("{at}.{key} is missing"));
                assert_contains(found, value, &format!("{at}.{key}"));
            }
        }
        (Value::Array(new), Value::Array(old)) => {
            assert_eq!(new.len(), old.len(), "{at}");
            for (n, (new, old)) in new.iter().zip(old).enumerate() {
                assert_contains(new, old, &format!("{at}[{n}]"));
            }
        }
        _ => assert_eq!(new, old, "{at}"),
    }
}

fn version_1() {
    for name in VERSION_1 {
        let path = python::script(name);
        let text = fs::read_to_string(&path).unwrap();
        let summary = text.lines().last().unwrap().strip_prefix("#[latency-user]").unwrap();
        let summary: Value = serde_json::from_str(summary).unwrap();
        let reported: Value = serde_json::from_str(&report(&[&path], "json")).unwrap();
        assert_contains(&reported, &summary, name);
    }
}

/// Made on Linux 6.12 for 64-bit Arm, with what `trace --format json` said there in the end.
fn arm() {
    let told = fs::read_to_string(python::script("arm64.json")).unwrap();
    let told: Value = serde_json::from_str(&told).unwrap();
    let reported = report(&[&python::script("arm64.hlog")], "json");
    let reported: Value = serde_json::from_str(reported.lines().last().unwrap()).unwrap();
    for part in ["run", "series", "stalls", "ledger"] {
        assert_eq!(reported[part], told[part], "{part}");
    }
}

fn assert_self_contained(page: &str) {
    for reference in ["http:", "https:", "//", "<script", "src=", "href=", "@import", "url("] {
        assert!(!page.contains(reference), "the page has {reference:?}");
    }
}

fn pages_are_self_contained() {
    let files = VERSION_1.map(python::script);
    let both: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    for files in [&both[..1], &both[1..], &both[..]] {
        let page = report(files, "html");
        assert_self_contained(&page);
        assert!(page.contains("<h1"));
        assert_eq!(page.matches("<figure>").count(), page.matches("The numbers of: ").count());
        assert_eq!(page.matches("role=\"img\"").count(), page.matches("<figure>").count());
    }
    let page = report(&both[1..], "html");
    assert!(page.contains("<h1 class=\"bad\">NET_RX stalled 99 times"));
    for part in ["longest duration by CPU over time", "durations by percentile", "<polyline"] {
        assert!(page.contains(part), "{part}");
    }
}

fn run(cpus: u32) -> Run {
    Run {
        host: "big".into(),
        kernel: "6.12.0".into(),
        started_at: "2026-01-02T03:04:05.006Z".into(),
        duration_s: 0.0,
        ifaces: Vec::new(),
        threshold_ns: 1_000_000,
        transport: Transport::Maps,
        probes: Vec::new(),
        sampling: Sampling::default(),
        cpus,
        version: "0.1.0".into(),
    }
}

/// Records 64 CPUs and 64 queues for an hour, in intervals of a minute: intervals of a second would
/// not give the page more columns.
fn hour(path: &Path) {
    let run = Run { duration_s: 3600.0, ..run(64) };
    let mut writer = Writer::create(path).unwrap();
    writer.start(&run).unwrap();
    for minute in 0..60_u64 {
        let mut series = Vec::new();
        for n in 0..64_u32 {
            let queue =
                Queue::Device { iface: "enp65s0f0np0".into(), netns: None, id: QueueId::Rx(n) };
            let locations = [
                (Stage::RxWait, Location::Cpu(n)),
                (Stage::NetRx, Location::Cpu(n)),
                (Stage::NapiPoll, Location::Queue(queue)),
            ];
            for (nth, (stage, at)) in locations.into_iter().enumerate() {
                let mut distribution = Distribution::default();
                for k in 0..40_u64 {
                    // Every cell differs from its neighbours: the largest possible page.
                    let mix = (minute * 7919 + u64::from(n) * 104_729 + k * 1299 + nth as u64 * 31)
                        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    distribution.record(1000 << (mix % 15), run.threshold_ns, 1);
                }
                series.push(Series::new(stage, at, distribution));
            }
        }
        let duration = Duration::from_secs(60);
        let start = duration * u32::try_from(minute).unwrap();
        writer.interval(&Interval::new(start, duration, series)).unwrap();
    }
}

fn hour_fits() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hour.hlog");
    hour(&path);
    let page = report(&[&path], "html");
    eprintln!("page of an hour of 64 CPUs and 64 queues: {} bytes", page.len());
    assert!(page.len() < 500_000, "{} bytes", page.len());
}

fn chromium_is_silent() {
    let file = python::script(VERSION_1[1]);
    for page in [report(&[&file], "html"), live_page(&file)] {
        let output = browse(&page, &[]);
        assert!(output.status.success(), "chromium ended with {}", output.status);
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(!log.contains("CONSOLE"), "{log}");
        let page = String::from_utf8_lossy(&output.stdout);
        assert!(page.contains("<polyline") && page.contains("</table>"), "{page}");
    }
}

/// The page of the daemon, as if its last minutes were this recording.
fn live_page(file: &Path) -> String {
    let recording = LoadedRecording::read(file).unwrap();
    let (summary, series) = recording.totals.summary().unwrap();
    let totals = &recording.totals.totals;
    let culprits = totals.stalls.culprits();
    let recent = html::Recording {
        name: "host, the last minutes".to_owned(),
        summary: &summary,
        series: &series,
        timeline: &recording.timeline,
        stalls: totals.stalls.longest(),
        collapses: totals.stalls.slowest(),
        culprits: &culprits,
        time: totals.stalls.time(),
        settings: None,
        notes: &[],
    };
    let kept = ["host-2026-01-02T03-04-05-stall", "host-2026-01-02T04-04-05-signal"].map(|name| {
        let size = "81 kB".to_owned();
        html::Kept { href: format!("recordings/{name}"), size, name: name.to_owned() }
    });
    let notes = vec!["Intervals are not kept: no space left on device".to_owned()];
    let live = html::Live { refresh_s: Some(30), notes, kept: kept.into() };
    let mut page = Vec::new();
    html::live_page(&recent, &live, &mut page).unwrap();
    String::from_utf8(page).unwrap()
}

/// Opens a page in chromium, which prints the resulting DOM.
fn browse(page: &str, options: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("page.html");
    fs::write(&path, page).unwrap();
    let profile = directory.path().join("profile");
    Command::new("timeout")
        .args(["60", "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"])
        .args(["--no-first-run", "--disable-background-networking", "--disable-component-update"])
        .args(["--disable-sync", "--enable-logging=stderr", "--dump-dom"])
        .args(options)
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("file://{}", path.display()))
        .output()
        .unwrap()
}

/// Opens all `<details>`, runs axe-core, and writes its result to the page's title.
const RUN_AXE: &str = "document.querySelectorAll('details').forEach(node => node.open = true);
    axe.run(document, {resultTypes: ['violations']}).then(found => {
        const broken = found.violations.map(rule => rule.id + ': ' + rule.nodes[0].html);
        document.title = 'axe passed ' + found.passes.length + ' broken ' + broken.length +
            ': ' + broken.join('; ') + ' end of axe';
    });";

fn axe_finds_no_violation() {
    let axe = axe::script().unwrap();
    let file = python::script(VERSION_1[1]);
    let file = file.as_path();
    for page in [report(&[file], "html"), report(&[file, file], "html"), live_page(file)] {
        let script = format!("<script>{axe}</script><script>{RUN_AXE}</script></body>");
        let page = page.replace("</body>", &script);
        for scheme in ["0", "1"] {
            let dark = format!("--blink-settings=preferredColorScheme={scheme}");
            let output = browse(&page, &[&dark, "--virtual-time-budget=20000"]);
            let shown = String::from_utf8_lossy(&output.stdout);
            let result = shown
                .split_once("<title>axe passed ")
                .and_then(|(_, rest)| rest.split_once(" end of axe").map(|(result, _)| result));
            let result = result.expect("axe-core did not finish in time");
            assert!(result.contains(" broken 0:"), "{result}");
        }
    }
}

fn second_implementation() {
    let python = python::with_packages().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (log, theirs) = (directory.path().join("log.hlog"), directory.path().join("log.hgrm"));
    let output = Command::new(python)
        .arg(python::script("write_log.py"))
        .args([&log, &theirs])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let count: Value = serde_json::from_slice(&output.stdout).unwrap();
    let series: Value = serde_json::from_str(&report(&[&log], "json")).unwrap();
    assert_eq!((&series["kind"], &series["tag"]), (&"foreign_series".into(), &"".into()));
    assert_eq!(series["count"], count);
    let theirs = columns(&fs::read_to_string(theirs).unwrap());
    let ours = columns(&report(&[&log], "hgrm"));
    assert_eq!(ours.len(), theirs.len(), "{ours:?} {theirs:?}");
    for (at, (our, their)) in ours.iter().zip(&theirs).enumerate() {
        assert!((our[1] - their[1]).abs() < 1e-11, "{our:?} is not {their:?}");
        // Rounding may move a percentile to an adjacent rank, so the line may match a neighbouring
        // one.
        let ranks = &theirs[at.saturating_sub(1)..theirs.len().min(at + 2)];
        let same = ranks.iter().any(|line| line[0] == our[0] && line[2] == our[2]);
        assert!(same, "{our:?} is not {their:?}");
    }
}

/// Value, percentile and count of each line.
fn columns(hgrm: &str) -> Vec<[f64; 3]> {
    let lines = hgrm.lines().skip(2).filter(|line| !line.starts_with('#'));
    let numbers = lines.map(|line| {
        let mut numbers = line.split_whitespace().map(|word| word.parse().unwrap());
        [(); 3].map(|()| numbers.next().unwrap())
    });
    numbers.collect()
}
