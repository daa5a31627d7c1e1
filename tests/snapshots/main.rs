//! Snapshots of the output: help texts, tables, JSON and the HTML page, from recordings.
//! Use `cargo insta review` to see how a change affects them.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::fs;

use clap::CommandFactory;
use latency_tests::in_process;
use latency_user::commands::Cli;
use serde_json::Value;

/// What a command prints.
fn run(arguments: &[&str]) -> String {
    in_process::run(arguments).unwrap().1
}

/// Relative to this package, where its tests run: snapshots contain the path.
fn fixture(name: &str) -> String {
    format!("fixtures/{name}")
}

#[test]
fn help() {
    let mut cli = Cli::command();
    insta::assert_snapshot!("help", cli.render_long_help());
    for command in cli
        .get_subcommands_mut()
        .filter(|command| !command.is_hide_set() && command.get_name() != "help")
    {
        let name = command.get_name().to_owned();
        insta::assert_snapshot!(format!("help-{name}"), command.render_long_help());
    }
}

#[test]
fn report() {
    let path = fixture("collapse-v2.hlog");
    insta::assert_snapshot!("report-table", run(&["report", &path]));
    insta::assert_snapshot!("report-csv", run(&["report", &path, "--format", "csv"]));
    insta::assert_snapshot!("report-folded", run(&["report", &path, "--format", "folded"]));
    let json = run(&["report", &path, "--format", "json"]);
    let mut summary: Value = serde_json::from_str(json.lines().last().unwrap()).unwrap();
    // Keep only the first stall and its first stack.
    let worst = summary["stalls"]["worst"].as_array_mut().unwrap();
    worst.truncate(1);
    worst[0]["stacks"].as_array_mut().unwrap().truncate(1);
    insta::assert_snapshot!("report-summary-json", format!("{summary:#}"));
}

/// The page without its SVG drawings.
#[test]
fn page() {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("page.html");
    let path = fixture("collapse-v2.hlog");
    run(&["report", &path, "--format", "html", "--output", output.to_str().unwrap()]);
    let page = fs::read_to_string(output).unwrap();
    let mut text = String::new();
    let mut rest = page.as_str();
    while let Some((before, drawing)) = rest.split_once("<svg") {
        text.push_str(before);
        text.push_str("<svg/>");
        rest = drawing.split_once("</svg>").unwrap().1;
    }
    text.push_str(rest);
    insta::assert_snapshot!("report-page", text);
}

#[test]
fn compare() {
    let (before, after) = (fixture("collapse-v1.hlog"), fixture("collapse-v2.hlog"));
    insta::assert_snapshot!("compare-table", run(&["compare", &before, &after]));
    let json = run(&["compare", &before, &after, "--format", "json"]);
    let mut comparison: Value = serde_json::from_str(&json).unwrap();
    // Keep only the first series.
    comparison["series"].as_array_mut().unwrap().truncate(1);
    insta::assert_snapshot!("compare-json", format!("{comparison:#}"));
}
