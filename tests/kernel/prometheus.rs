//! A real Prometheus that scrapes the daemon gets the counts that the recordings hold.

use std::{
    env, fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use latency_common::bucket::{BUCKETS, MAX_VALUE, lowest_value};
use latency_tests::{injector::Injector, load, namespace, tool, veth};
use latency_user::{model::distribution::Distribution, serve::metrics::native::ZERO_THRESHOLD};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    serve::{Daemon, recorded, sum},
    suite::{Where, trial},
    tracing::wait_until,
};

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    let tools = ["ip", "ethtool"];
    [
        trial("prometheus::it_counts_what_is_recorded", Where::Host, &tools, counts),
        trial("prometheus::rules_name_metrics_that_exist", Where::Host, &[], rules),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Datagrams, and stalls of known length: prime numbers.
const PACKETS: u64 = 20_011;
const STALLS: u64 = 23;
const STALL: Duration = Duration::from_millis(5);

/// The largest error of an estimate from a native histogram of schema 3.
const ERROR: f64 = 0.0933;

/// The first bound of a classic histogram, s.
const FIRST_BOUND: f64 = 1.023e-6;

/// Where the daemon answers, in the test's own network namespace.
const ADDRESS: &str = "127.0.0.1:9468";

/// A program of Prometheus's package.
fn program(name: &str) -> Result<PathBuf> {
    let directory = env::var_os("PROMETHEUS").context("PROMETHEUS names no directory")?;
    Ok(Path::new(&directory).join(name))
}

/// A running Prometheus that scrapes the daemon every second.
struct Prometheus {
    child: Child,
    address: String,
    _directory: tempfile::TempDir,
}

impl Prometheus {
    fn start(port: u16, arguments: &[&str]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let config = directory.path().join("prometheus.yml");
        fs::write(
            &config,
            format!(
                "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n- \
                 {{job_name: x, static_configs: [{{targets: ['{ADDRESS}']}}]}}\n"
            ),
        )?;
        let address = format!("127.0.0.1:{port}");
        let child = Command::new(program("prometheus")?)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error")
            .args(arguments)
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .spawn()
            .context("start Prometheus")?;
        let prometheus = Self { child, address, _directory: directory };
        wait_until("Prometheus", || Ok(prometheus.query("up").is_ok()))?;
        Ok(prometheus)
    }

    /// The value of an instant query that gives one.
    fn query(&self, query: &str) -> Result<f64> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        write!(stream, "GET /api/v1/query?query={encoded} HTTP/1.0\r\nHost: x\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no body")?;
        let answer: Value = serde_json::from_str(body).with_context(|| body.to_owned())?;
        let value = answer["data"]["result"][0]["value"][1].as_str();
        let value = value.with_context(|| format!("{query}: {answer}"))?;
        value.parse().with_context(|| format!("{query}: {value}"))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It keeps nothing that is needed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The bucket with the value at `rank`, from 1: its bounds in seconds.
fn at_rank(durations: &Distribution, rank: u64) -> (f64, f64) {
    let mut sum = 0;
    for &(index, count) in &durations.buckets {
        sum += count;
        if sum >= rank {
            let index = usize::from(index);
            let next = if index + 1 < BUCKETS { lowest_value(index + 1) } else { MAX_VALUE + 1 };
            return (lowest_value(index) as f64 / 1e9, (next - 1) as f64 / 1e9);
        }
    }
    (0.0, 0.0)
}

fn counts() -> Result<()> {
    namespace::run(|| {
        load::pin_to(0)?;
        veth::make(1)?;
        let mut sender = veth::sender()?;
        let mut injector = Injector::attach(STALL)?;
        let daemon = Daemon::start(&["--threshold", "4ms", "--listen", ADDRESS])?;
        let native = Prometheus::start(9090, &["--enable-feature=native-histograms"])?;
        let classic = Prometheus::start(9091, &[])?;
        load::udp(PACKETS)?;
        injector.stall(&mut sender, 1000, STALLS)?;
        // While somebody else may trace, nothing changes.
        let (answer, _hold) = daemon.ask(r#"{"request":"pause"}"#)?;
        ensure!(answer["error"].is_null(), "{answer}");
        let intervals = daemon.metric("latency_user_intervals_total")?;
        let name = "latency_user_net_rx_duration_seconds";
        for prometheus in [&native, &classic] {
            wait_until("the last scrape", || {
                Ok(prometheus.query("latency_user_intervals_total").ok() == Some(intervals))
            })?;
        }
        let quantiles = [0.01, 0.5, 0.9, 0.99, 0.999, 0.9999];
        let ask = |prometheus: &Prometheus, count: &str, of: &str| -> Result<Vec<f64>> {
            let mut answers = vec![
                prometheus.query(count)?,
                prometheus.query("sum(latency_user_stalls_total{stage=\"net_rx\"})")?,
            ];
            for quantile in quantiles {
                answers.push(prometheus.query(&format!("histogram_quantile({quantile}, {of})"))?);
            }
            Ok(answers)
        };
        let by_native =
            ask(&native, &format!("histogram_count(sum({name}))"), &format!("sum({name})"))?;
        let by_classic =
            ask(&classic, &format!("sum({name}_count)"), &format!("sum by (le) ({name}_bucket)"))?;
        let ring = daemon.at("state").join("ring");
        let directory = daemon.end()?;
        let durations = recorded(&ring)?;
        drop(directory);
        let count = durations.count();
        // On a busy machine one run may handle several packets.
        let least = PACKETS / 2 + STALLS;
        ensure!(count >= least && durations.over_threshold >= STALLS, "too little load");
        for answers in [&by_native, &by_classic] {
            ensure!(answers[0] == count as f64, "{} of {count}", answers[0]);
            let stalls = durations.over_threshold;
            ensure!(answers[1] == stalls as f64, "{} of {stalls} stalls", answers[1]);
        }
        for (at, quantile) in quantiles.into_iter().enumerate() {
            let rank = ((quantile * count as f64).ceil() as u64).max(1);
            let (low, high) = at_rank(&durations, rank);
            let told = by_native[at + 2];
            let is_zero = high <= ZERO_THRESHOLD && told <= ZERO_THRESHOLD;
            let is_near = told >= low * (1.0 - ERROR) && told <= high * (1.0 + ERROR);
            let is_near = is_near || is_zero;
            ensure!(is_near, "native q{quantile}: {told}, recorded {low} to {high}");
            // Inside an octave and below its first bound, a classic histogram knows nothing.
            let told = by_classic[at + 2];
            let least = if high <= FIRST_BOUND { 0.0 } else { low / 2.0 };
            let is_near = told >= least && told <= high * 2.0;
            ensure!(is_near, "classic q{quantile}: {told}, recorded {low} to {high}");
        }
        Ok(())
    })
}

/// The rules of `contrib` fire when they should, and every metric that they and the dashboard name
/// is one that the program has.
fn rules() -> Result<()> {
    let contrib = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib");
    let promtool = program("promtool")?;
    let (promtool, rules) = (promtool.display(), contrib.join("prometheus"));
    tool::shell(&format!("cd {} && {promtool} test rules alerts.test.yaml", rules.display()))?;
    namespace::run(|| {
        let daemon = Daemon::start(&[])?;
        load::udp(1009)?;
        wait_until("intervals", || Ok(daemon.metric("latency_user_intervals_total")? > 3.0))?;
        let answer = daemon.metrics()?;
        let (_, text) = answer.split_once("\r\n\r\n").context("no body")?;
        let file = tempfile::NamedTempFile::new()?;
        fs::write(file.path(), text)?;
        tool::shell(&format!("{promtool} check metrics < {}", file.path().display()))?;
        ensure!(sum(text, "latency_user_intervals_total").is_ok(), "{text}");
        for path in ["prometheus/alerts.yaml", "grafana/dashboard.json"] {
            let used = fs::read_to_string(contrib.join(path))?;
            for name in metrics_in(&used) {
                let base = ["_bucket", "_count", "_sum"]
                    .iter()
                    .find_map(|suffix| name.strip_suffix(suffix))
                    .filter(|base| base.ends_with("_seconds"))
                    .unwrap_or(&name);
                let is_there = text.contains(&format!("# TYPE {base} "));
                ensure!(is_there, "{path} names {name}, which does not exist");
            }
        }
        daemon.end().map(drop)
    })
}

/// The names of metrics in a text.
fn metrics_in(text: &str) -> Vec<String> {
    let names = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let mut names: Vec<String> =
        names.filter(|name| name.starts_with("latency_user_")).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names
}
