//! A collector in another language gets the histograms that the recordings hold.

use std::{
    process::{Child, Command, Stdio},
    sync::mpsc::Receiver,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use latency_common::bucket::{BUCKETS, MAX_VALUE, lowest_value};
use latency_tests::{load, namespace, python};
use latency_user::model::distribution::Distribution;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    serve::{Daemon, recorded},
    suite::{Where, trial},
    tracing::{lines, wait_until},
};

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    let tools = ["python3"];
    trial("otlp::a_collector_gets_what_is_recorded", Where::Host, &tools, pushed)
        .into_iter()
        .collect()
}

/// Datagrams: a prime number.
const PACKETS: u64 = 20_011;

/// A collector, which prints what it gets.
struct Collector {
    child: Child,
    lines: Receiver<String>,
}

/// A collector that prints nothing for so long has got nothing.
const PATIENCE: Duration = Duration::from_secs(30);

impl Collector {
    fn start(python: &std::path::Path) -> Result<(Self, u64)> {
        let mut child = Command::new(python)
            .arg(python::script("otlp_receiver.py"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the collector")?;
        let lines = lines(child.stdout.take().context("no output")?);
        let mut collector = Self { child, lines };
        let port = collector.next()?["port"].as_u64().context("no port")?;
        Ok((collector, port))
    }

    fn next(&mut self) -> Result<Value> {
        let line = self.lines.recv_timeout(PATIENCE).context("the collector got no more")?;
        serde_json::from_str(&line).with_context(|| format!("parse {line:?}"))
    }

    /// The values of the next request.
    fn request(&mut self) -> Result<Vec<Value>> {
        let mut values = Vec::new();
        loop {
            let value = self.next()?;
            if value["request"].is_null() {
                values.push(value);
                continue;
            }
            ensure!(value["request"] == true, "the wrong path or type");
            return Ok(values);
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // It keeps nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The values of a metric.
fn of<'a>(values: &'a [Value], name: &str) -> impl Iterator<Item = &'a Value> {
    values.iter().filter(move |value| value["name"] == name)
}

fn number(value: &Value) -> f64 {
    value["value"].as_f64().unwrap_or_default()
}

/// The buckets that OpenTelemetry's formula gives: (2^(i/8), 2^((i+1)/8)] s, by the middle of each of
/// ours.
fn expected(durations: &Distribution) -> (u64, Vec<(i64, u64)>) {
    let (mut zero, mut counts) = (0, std::collections::BTreeMap::new());
    for &(index, count) in &durations.buckets {
        let index = usize::from(index);
        let last = if index + 1 < BUCKETS { lowest_value(index + 1) - 1 } else { MAX_VALUE };
        let middle = (lowest_value(index) + last) as f64 / 2.0 / 1e9;
        match middle <= 2f64.powi(-21) {
            true => zero += count,
            false => {
                let at = (middle.log2() * 8.0).ceil() as i64 - 1;
                *counts.entry(at).or_insert(0) += count;
            }
        }
    }
    (zero, counts.into_iter().collect())
}

fn pushed() -> Result<()> {
    let python = python::with_packages()?;
    namespace::run(|| {
        let (mut collector, port) = Collector::start(&python)?;
        let url = format!("http://127.0.0.1:{port}");
        let arguments = ["--threshold", "20us", "--otlp", &url, "--otlp-every", "500ms"];
        let daemon = Daemon::start(&arguments)?;
        collector.request()?;
        load::udp(PACKETS)?;
        let ring = daemon.at("state").join("ring");
        let directory = daemon.end()?;
        // The last push has the last values.
        let mut values = Vec::new();
        let durations = recorded(&ring)?;
        let name = "latency_user_net_rx_duration_seconds";
        while of(&values, name).all(|value| value["count"] != durations.count()) {
            values = collector.request().context("no push had all counts")?;
        }
        drop(directory);
        ensure!(durations.count() > PACKETS / 2, "too little load");
        let mut found = of(&values, name);
        let (histogram, other) = (found.next().context("no histogram")?, found.next());
        ensure!(other.is_none() && histogram["unit"] == "s", "{other:?}, {histogram}");
        let seconds = histogram["sum"].as_f64().context("no sum")?;
        ensure!((seconds * 1e9 - durations.sum_ns as f64).abs() < 1e3, "{seconds} s");
        ensure!(histogram["scale"] == 3, "{histogram}");
        let (zero, buckets) = expected(&durations);
        ensure!(histogram["zero"] == zero, "{zero}: {histogram}");
        let offset = histogram["offset"].as_i64().context("no offset")?;
        let told = histogram["buckets"].as_array().context("no buckets")?.iter().enumerate();
        let told: Vec<(i64, u64)> = told
            .filter_map(|(at, count)| Some((offset + at as i64, count.as_u64()?)))
            .filter(|(_, count)| *count > 0)
            .collect();
        ensure!(told == buckets, "{told:?}, recorded {buckets:?}");
        let is_net_rx = |value: &&Value| value["labels"]["stage"] == "net_rx";
        let stalls: f64 = of(&values, "latency_user_stalls").filter(is_net_rx).map(number).sum();
        ensure!(stalls == durations.over_threshold as f64, "{stalls} stalls");
        for value in &values {
            let (start, end) = (value["start"].as_u64(), value["end"].as_u64());
            ensure!(start > Some(0) && end > start, "{value}");
            // A unit of 1 would change the names of gauges in Prometheus.
            let is_ratio = value["name"].as_str().is_some_and(|name| name.ends_with("_ratio"));
            ensure!((value["unit"] == "1") == is_ratio, "{value}");
            ensure!(value["resource"]["service.name"] == "latency-user", "{value}");
            ensure!(value["resource"]["service.instance.id"].is_string(), "{value}");
        }
        // A collector that has gone is told, and stops nothing.
        drop(collector);
        let daemon = Daemon::start(&arguments)?;
        wait_until("a failure", || Ok(daemon.metric("latency_user_pushes_failed_total")? >= 2.0))?;
        ensure!(daemon.get("/healthz")?.starts_with("HTTP/1.1 200"), "not healthy");
        daemon.end().map(drop)
    })
}
