//! How often verdicts are wrong, by the simulator in `tests/simulator`, in a short form; and published
//! tables, written by another program's HdrHistogram.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use latency_tests::{in_process, python};
use serde_json::Value;

/// The program under test.
pub(super) fn program() -> Result<PathBuf> {
    let path = env::var_os("LATENCY_USER").context("LATENCY_USER is not set")?;
    Ok(path.into())
}

/// The bounds are such that a true rate of 5 % passes in 999 of 1,000 runs; `cargo xtask verdicts`
/// has narrower ones.
pub(super) fn simulated() {
    let simulator = Path::new(env!("CARGO_MANIFEST_DIR")).join("simulator/simulate.py");
    let output = Command::new("python3")
        .arg(simulator)
        .arg("--latency-user")
        .arg(program().unwrap())
        .args(["--judge", env!("CARGO_BIN_EXE_judge-windows")])
        .args(["--pairs", "20", "--experiments", "60", "--short"])
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (table, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{errors}\n{table}");
    assert!(errors.contains("24 passed, 0 failed"), "{errors}\n{table}");
}

/// Cloudflare's two published tables of `net_rx_action`, as one interval each: 260 of 3,685,271 runs
/// at or above 1 ms against 39 of 3,567,235, a ratio of 6.45.
pub(super) fn published() {
    let python = python::with_packages().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (before, after) = (path("before.hlog"), path("after.hlog"));
    let script = python::script("write_tables.py");
    let status = Command::new(python).arg(script).args([&before, &after]).status().unwrap();
    assert!(status.success());
    let verdict = |a: &str, b: &str| -> Value {
        let (_, output) = in_process::run(&["compare", a, b, "--format", "json"]).unwrap();
        serde_json::from_str(output.trim()).unwrap()
    };
    let found = verdict(&before, &after);
    assert_eq!((&found["verdict"], &found["weak"]), (&"improved".into(), &true.into()), "{found}");
    let times = 1.0 / found["estimate"].as_f64().unwrap();
    assert!((times - 6.45).abs() < 0.01, "{found}");
    assert!(found["sentence"].as_str().unwrap().starts_with("Possibly improved"), "{found}");
    for file in [&before, &after] {
        assert_eq!(verdict(file, file)["verdict"], "no_difference_shown");
    }
}
