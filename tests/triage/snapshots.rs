//! Snapshots of triage's output for one host: table and JSON.

use latency_tests::in_process;
use latency_user::model::exit::Exit;

use crate::captured;

fn judged(arguments: &[&str]) -> String {
    let host = captured::all().into_iter().find(|host| host.place == "tcp_collapse/finding.host");
    let host = host.unwrap();
    let root = host.path().to_str().unwrap();
    let (exit, text) = in_process::run(&[&["triage", "--root", root], arguments].concat()).unwrap();
    assert_eq!(exit, Exit::Found);
    text.replace(root, "ROOT")
}

#[test]
fn table() {
    insta::assert_snapshot!("triage-table", judged(&[]));
}

#[test]
fn json() {
    let objects: String = judged(&["--format", "json"])
        .lines()
        .map(|line| format!("{:#}\n", serde_json::from_str::<serde_json::Value>(line).unwrap()))
        .collect();
    insta::assert_snapshot!("triage-json", objects);
}
