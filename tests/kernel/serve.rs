//! The daemon: what it tells is what it records, clients disturb nobody, and the minutes around a
//! stall are kept although nobody watched.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use latency_common::stage::Stage;
use latency_tests::{load, namespace, tool};
use latency_user::{
    model::{distribution::Distribution, series::SeriesKey},
    recording::loaded::RecordingTotals,
};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    counts::{bracketed, check, count_on, softirqs},
    experiment::{HARMLESS, RMEM, experiment, rmem},
    suite::{Where, trial},
    tracing::{Tracing, latency_user, wait_until},
};

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    [
        trial("serve::metrics_tell_what_is_recorded", Where::Host, &[], metrics),
        trial("serve::clients_count_what_the_kernel_counts", Where::Host, &[], clients),
        trial("serve::the_minutes_around_a_stall_are_kept", Where::Host, &["tar"], stall),
        trial("serve::a_kill_leaves_a_readable_ring", Where::Host, &[], killed),
        trial("serve::a_client_may_take_over", Where::Host, &[], taken_over),
        trial("serve::experiments_and_triage_follow_it", Where::Host, &["ip"], followed),
        trial("serve::the_page_is_for_its_own_host_only", Where::Host, &[], page),
        trial("serve::a_recording_goes_through_a_pipe", Where::Host, &[], pipe),
        trial("serve::units_are_valid", Where::Host, &["systemd-analyze"], units),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Datagrams of the load: a prime number.
const PACKETS: u64 = 20_011;

/// Runs of net_rx that it makes at least: on a busy machine one may handle several packets.
const LEAST_RUNS: u64 = PACKETS / 2;

/// A running daemon.
pub(crate) struct Daemon {
    child: Child,
    directory: tempfile::TempDir,
    http: Http,
}

/// Where it answers HTTP.
enum Http {
    Unix(PathBuf),
    Address(String),
}

impl Daemon {
    /// Starts it and waits until it is ready.
    pub(crate) fn start(arguments: &[&str]) -> Result<Self> {
        Self::start_in(tempfile::tempdir()?, arguments)
    }

    pub(crate) fn start_in(directory: tempfile::TempDir, arguments: &[&str]) -> Result<Self> {
        Self::start_as(latency_user()?, directory, arguments)
    }

    /// Starts it by a command that ends with the program.
    pub(crate) fn start_as(
        mut program: Command,
        directory: tempfile::TempDir,
        arguments: &[&str],
    ) -> Result<Self> {
        let at = |name: &str| directory.path().join(name);
        let given = arguments.iter().position(|argument| *argument == "--listen");
        let (http, listen) = match given {
            Some(position) => (Http::Address(arguments[position + 1].to_owned()), Vec::new()),
            None => {
                let path = at("http");
                let listen = vec!["--listen".to_owned(), format!("unix:{}", path.display())];
                (Http::Unix(path), listen)
            }
        };
        let overhead: &[&str] =
            if arguments.contains(&"--max-overhead") { &[] } else { &["--max-overhead", "100%"] };
        let mut child = program
            .arg("serve")
            .args(overhead)
            .args(["--interval", "100ms"])
            .arg("--state")
            .arg(at("state"))
            .arg("--socket")
            .arg(at("control"))
            .args(listen)
            .args(arguments)
            .stdin(Stdio::null())
            .spawn()
            .context("start the daemon")?;
        wait_until("the daemon", || {
            if let Some(status) = child.try_wait()? {
                anyhow::bail!("the daemon ended with {status}");
            }
            Ok(get(&http, "/readyz", "").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")))
        })?;
        Ok(Self { child, directory, http })
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn socket(&self) -> String {
        self.at("control").display().to_string()
    }

    pub(crate) fn metrics(&self) -> Result<String> {
        self.get("/metrics")
    }

    /// The answer to a request of `path`, with its head.
    pub(crate) fn get(&self, path: &str) -> Result<String> {
        get(&self.http, path, "")
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its status if it has ended.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// The value of a metric whose line starts with `name`, summed over labels.
    pub(crate) fn metric(&self, name: &str) -> Result<f64> {
        sum(&self.metrics()?, name)
    }

    /// Sends a request; the answer, and what follows.
    pub(crate) fn ask(&self, request: &str) -> Result<(Value, BufReader<UnixStream>)> {
        let mut stream = UnixStream::connect(self.at("control"))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        writeln!(stream, "{request}")?;
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line)?;
        Ok((serde_json::from_str(&line).with_context(|| line.clone())?, stream))
    }

    pub(crate) fn signal(&self, signal: i32) {
        // SAFETY: signals a child that was not waited for, so its id is still its own.
        unsafe { libc::kill(self.child.id().cast_signed(), signal) };
    }

    pub(crate) fn end(mut self) -> Result<tempfile::TempDir> {
        self.signal(libc::SIGTERM);
        let status = self.child.wait()?;
        ensure!(status.success(), "the daemon ended with {status}");
        Ok(std::mem::replace(&mut self.directory, tempfile::tempdir()?))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A failed test must not leave its daemon behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The answer to a request of `path`, with its head.
fn get(http: &Http, path: &str, headers: &str) -> Result<String> {
    let patience = Some(Duration::from_secs(30));
    match http {
        Http::Unix(socket) => {
            let stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(patience)?;
            exchange(stream, path, headers)
        }
        Http::Address(address) => {
            let stream = TcpStream::connect(address)?;
            stream.set_read_timeout(patience)?;
            exchange(stream, path, headers)
        }
    }
}

fn exchange(mut stream: impl Read + Write, path: &str, headers: &str) -> Result<String> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The sum of all values of a metric.
pub(crate) fn sum(metrics: &str, name: &str) -> Result<f64> {
    let mut sum = None;
    for line in metrics.lines() {
        let Some(rest) = line.strip_prefix(name) else { continue };
        if rest.starts_with(['{', ' ']) {
            let value: f64 = rest.rsplit(' ').next().unwrap_or_default().parse()?;
            *sum.get_or_insert(0.0) += value;
        }
    }
    sum.with_context(|| format!("no metric {name}"))
}

/// The runs of net_rx in all recordings of a directory.
pub(crate) fn recorded(directory: &Path) -> Result<Distribution> {
    let mut sum = Distribution::default();
    for entry in fs::read_dir(directory)? {
        let recording = RecordingTotals::read(&entry?.path())?;
        for (key, total) in &recording.totals.series {
            if matches!(key, SeriesKey::Known(id) if id.stage == Stage::NetRx) {
                sum.add(&total.distribution);
            }
        }
    }
    Ok(sum)
}

fn metrics() -> Result<()> {
    namespace::run(|| {
        let daemon = Daemon::start(&["--threshold", "20us", "--labels", "cpu"])?;
        load::udp(PACKETS)?;
        // While somebody else may trace, nothing changes.
        let (answer, _hold) = daemon.ask(r#"{"request":"pause"}"#)?;
        ensure!(answer["error"].is_null(), "{answer}");
        let text = daemon.metrics()?;
        let openmetrics = "Accept: application/openmetrics-text;version=1.0.0\r\n";
        let open = get(&daemon.http, "/metrics", openmetrics)?;
        ensure!(open.trim_end().ends_with("# EOF") && open.contains("openmetrics-text"), "{open}");
        let ring = daemon.at("state").join("ring");
        let directory = daemon.end()?;
        let durations = recorded(&ring)?;
        let count = durations.count() as f64;
        ensure!(count >= LEAST_RUNS as f64, "{count} runs of {PACKETS} packets");
        for text in [&text, &open] {
            ensure!(sum(text, "latency_user_ledger_balanced")? == 1.0, "{text}");
            let name = "latency_user_net_rx_duration_seconds";
            let told = sum(text, &format!("{name}_count"))?;
            ensure!(told == count, "{told} told, {count} recorded");
            let seconds = sum(text, &format!("{name}_sum"))?;
            ensure!((seconds * 1e9 - durations.sum_ns as f64).abs() < 1e3, "{seconds} s");
            let stalls = text.lines().filter(|line| line.contains("stage=\"net_rx\""));
            let stalls: Vec<&str> = stalls.collect();
            let stalls = sum(&stalls.join("\n"), "latency_user_stalls_total")?;
            ensure!(stalls == durations.over_threshold as f64, "{stalls} stalls");
            // 2^14 - 1 ns is an edge of buckets: 128 in each octave from 2^7 on.
            let below = durations.buckets.iter().filter(|(index, _)| *index < 8 * 128);
            let below: u64 = below.map(|(_, count)| count).sum();
            let bound: Vec<&str> =
                text.lines().filter(|line| line.contains("le=\"0.000016383\"")).collect();
            let told = sum(&bound.join("\n"), &format!("{name}_bucket"))?;
            ensure!(told == below as f64, "{told} up to 16383 ns, {below} recorded");
        }
        drop(directory);
        Ok(())
    })
}

fn clients() -> Result<()> {
    namespace::run(|| {
        let daemon = Daemon::start(&[])?;
        let socket = daemon.socket();
        // One that never reads what it gets, and one that dies.
        let stopped = Tracing::start(&["--socket", &socket])?;
        stopped.signal(libc::SIGSTOP)?;
        let (answer, silent) = daemon.ask(r#"{"request":"follow"}"#)?;
        ensure!(answer["pid"] == daemon.child.id(), "{answer}");
        let dying = Tracing::start(&["--socket", &socket])?;
        let (summary, brackets) = bracketed(
            &["--socket", &socket],
            || softirqs("NET_RX"),
            || {
                load::udp(PACKETS)?;
                dying.signal(libc::SIGKILL)?;
                load::udp(PACKETS)
            },
        )?;
        let least: u64 = brackets.iter().map(|bracket| bracket.least).sum();
        ensure!(least >= 2 * LEAST_RUNS, "too little load");
        for (cpu, bracket) in brackets.iter().enumerate() {
            let count = count_on(&summary, cpu, |row| row["stage"] == "net_rx")?;
            check(&format!("net_rx on CPU {cpu}"), count, bracket)?;
        }
        ensure!(summary["ledger"]["balanced"] == true, "{}", summary["ledger"]);
        stopped.signal(libc::SIGCONT)?;
        ensure!(stopped.summary()?["ledger"]["balanced"] == true, "the stopped client");
        // What the daemon traces cannot be changed by a client.
        let refused = latency_user()?
            .args(["trace", "--duration", "1s", "--threshold", "7ms", "--socket", &socket])
            .output()?;
        let message = String::from_utf8_lossy(&refused.stderr);
        ensure!(message.contains("--threshold 1ms, not 7ms"), "{message}");
        drop(silent);
        wait_until("all clients to leave", || Ok(daemon.metric("latency_user_clients")? == 0.0))?;
        daemon.end().map(drop)
    })
}

fn stall() -> Result<()> {
    namespace::run(|| {
        let hook = ["--on-stall", "/bin/sh", "--on-stall", "-c", "--on-stall"];
        let told = tempfile::tempdir()?;
        let told = told.path().join("told");
        let line = format!("echo $LATENCY_TRIGGER $LATENCY_RECORDING > {}", told.display());
        let mut arguments = vec!["--trigger", "stall>=4ms", "--before", "1m", "--after", "2s"];
        arguments.extend(hook);
        arguments.push(&line);
        let daemon = Daemon::start(&arguments)?;
        // Nobody watches; nothing happens for a while, then the load starts.
        let before = Duration::from_secs(2);
        thread::sleep(before);
        let started = Instant::now();
        let has_told = || told.exists();
        load::tcp_collapse(load::LARGE_RMEM, Duration::from_secs(20), has_told)?;
        wait_until("the command of on-stall", || Ok(has_told()))?;
        let took = started.elapsed();
        wait_until("its text", || Ok(fs::read_to_string(&told)?.ends_with('\n')))?;
        let text = fs::read_to_string(&told)?;
        let (trigger, path) = text.trim().split_once(' ').context("no text")?;
        ensure!(trigger == "stall", "{text}");
        let report = latency_user()?.args(["report", "--format", "json", path]).output()?;
        ensure!(report.status.success(), "{}", String::from_utf8_lossy(&report.stderr));
        let report = String::from_utf8_lossy(&report.stdout).into_owned();
        let summary: Value = serde_json::from_str(report.lines().last().context("no report")?)?;
        let stalls = &summary["stalls"];
        ensure!(stalls["culprits"][0]["function"] == "tcp_collapse", "{stalls}");
        ensure!(summary["ledger"]["balanced"] == true, "{}", summary["ledger"]);
        let length = summary["run"]["duration_s"].as_f64().context("no length")?;
        let least = before.as_secs_f64();
        ensure!(length > least && length < least + took.as_secs_f64() + 30.0, "{length} s");
        // The capture beside it is of a host whose receive buffers are too large.
        let capture = Path::new(path).with_extension("tar.gz");
        let host = tempfile::tempdir()?;
        let (from, to) = (capture.display(), host.path().display());
        tool::run(&format!("tar -xzf {from} -C {to}"))?;
        let triage = latency_user()?
            .args(["triage", "--format", "json", "--root"])
            .arg(host.path())
            .output()?;
        let triage = String::from_utf8_lossy(&triage.stdout).into_owned();
        ensure!(triage.contains("tcp_rmem"), "{triage}");
        // Its page, and that of the recording.
        let page = get(&daemon.http, "/", "")?;
        let name = Path::new(path).file_stem().and_then(|name| name.to_str()).context("no name")?;
        ensure!(page.contains("tcp_collapse") && page.contains(name), "{page}");
        let page = get(&daemon.http, &format!("/recordings/{name}"), "")?;
        ensure!(page.starts_with("HTTP/1.1 200") && page.contains("tcp_collapse"), "{page}");
        for wrong in ["/recordings/..%2fring", "/recordings/.hidden", "/recordings/a/b", "/x"] {
            let answer = get(&daemon.http, wrong, "")?;
            ensure!(answer.starts_with("HTTP/1.1 404"), "{wrong}: {answer}");
        }
        ensure!(daemon.metric("latency_user_recordings_total")? >= 1.0, "not counted");
        daemon.end().map(drop)
    })
}

fn killed() -> Result<()> {
    namespace::run(|| {
        let mut daemon = Daemon::start(&[])?;
        load::udp(PACKETS)?;
        let path = latency_user()?
            .args(["dump", "--last", "1m", "--reason", "a test", "--socket", &daemon.socket()])
            .output()?;
        let kept = String::from_utf8_lossy(&path.stdout).trim().to_owned();
        ensure!(path.status.success() && kept.ends_with("-manual.hlog"), "{kept}");
        load::udp(PACKETS)?;
        let ring = daemon.at("state").join("ring");
        let expected = daemon.metric("latency_user_net_rx_duration_seconds_count")?;
        daemon.child.kill()?;
        daemon.child.wait()?;
        let durations = recorded(&ring)?;
        ensure!(durations.count() as f64 >= expected, "{} of {expected}", durations.count());
        // Nothing stays attached, and the next one goes on with the ring.
        Tracing::start(&[])?.summary()?;
        let directory = std::mem::replace(&mut daemon.directory, tempfile::tempdir()?);
        let before = fs::read_dir(&ring)?.count();
        let daemon = Daemon::start_in(directory, &[])?;
        wait_until("a segment", || Ok(fs::read_dir(&ring)?.count() > before))?;
        daemon.end().map(drop)
    })
}

/// A client that records what it follows.
struct Follower {
    tracing: Tracing,
    directory: tempfile::TempDir,
}

impl Follower {
    fn start(socket: &str) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("run.hlog").display().to_string();
        let tracing = Tracing::start(&["--socket", socket, "--output", &path])?;
        Ok(Self { tracing, directory })
    }

    /// Ends it. When its intervals start, in seconds.
    fn times(self) -> Result<Vec<f64>> {
        self.tracing.summary()?;
        let text = fs::read_to_string(self.directory.path().join("run.hlog"))?;
        let lines = text.lines().filter_map(|line| line.strip_prefix("#[latency-user]"));
        let objects = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let intervals = objects.filter(|object| object["kind"] == "interval");
        intervals.map(|object| object["start_s"].as_f64().context("no start")).collect()
    }
}

fn taken_over() -> Result<()> {
    namespace::run(|| {
        let daemon = Daemon::start(&[])?;
        let socket = daemon.socket();
        let follower = Follower::start(&socket)?;
        let other = ["--threshold", "7ms", "--socket", &socket, "--take-over"];
        let tracing = Tracing::start(&other)?;
        let paused = daemon.metric("latency_user_intervals_total")?;
        // What was kept before can be had meanwhile.
        let dump = latency_user()?
            .args(["dump", "--last", "1m", "--reason", "a test", "--socket", &socket])
            .output()?;
        ensure!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
        load::udp(PACKETS)?;
        let summary = tracing.summary()?;
        ensure!(summary["run"]["threshold_ns"] == 7_000_000, "{}", summary["run"]);
        let own: u64 = summary["series"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|row| row["stage"] == "net_rx")
            .filter_map(|row| row["count"].as_u64())
            .sum();
        ensure!(own >= LEAST_RUNS, "{own}");
        wait_until("the daemon to trace again", || {
            Ok(daemon.metric("latency_user_intervals_total")? > paused + 3.0)
        })?;
        let times = follower.times()?;
        ensure!(times.windows(2).all(|pair| pair[0] < pair[1]), "times of a follower: {times:?}");
        daemon.end().map(drop)
    })
}

/// An experiment changes a setting and triage asks the host, while the daemon traces for both. Its
/// threshold holds for an experiment that names none.
fn followed() -> Result<()> {
    namespace::run(|| {
        let daemon = Daemon::start(&["--threshold", "700us"])?;
        let socket = daemon.socket();
        let directory = tempfile::tempdir()?;
        let other = experiment(directory.path(), HARMLESS)?
            .args(["--socket", &socket, "--threshold", "7ms"])
            .stdin(Stdio::null())
            .output()?;
        let refusal = String::from_utf8_lossy(&other.stderr);
        ensure!(refusal.contains("--threshold 700us, not 7ms"), "{refusal}");
        let before = rmem()?;
        let mut experiment = experiment(directory.path(), HARMLESS)?
            .args(["--socket", &socket, "--window", "1s", "--settle", "50ms", "--rounds", "2"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut was_changed = false;
        while experiment.try_wait()?.is_none() {
            load::udp(101)?;
            was_changed |= rmem()? != before;
        }
        let output = experiment.wait_with_output()?;
        ensure!(output.status.success(), "the experiment ended with {}", output.status);
        let found: Value = serde_json::from_slice(&output.stdout)?;
        let windows = found["windows"].as_array().context("no windows")?;
        let least = |window: &Value| window["events"].as_u64() > Some(50);
        ensure!(windows.len() == 5 && windows.iter().all(least), "{windows:?}");
        ensure!(was_changed && rmem()? == before, "{RMEM} holds {}", rmem()?);
        let triage = latency_user()?
            .args(["triage", "--iface", "lo", "--format", "json", "--socket", &socket])
            .stdin(Stdio::null())
            .output()?;
        let text = String::from_utf8_lossy(&triage.stdout).into_owned();
        let last: Value = serde_json::from_str(text.lines().last().context("no answer")?)?;
        let trace = last["path"].as_array().into_iter().flatten().find(|s| s["step"] == "trace");
        let trace = trace.context("no step trace")?;
        // Alone, it would be refused: another tracer is there.
        ensure!(matches!(trace["outcome"].as_str(), Some("ok" | "found")), "{trace}");
        ensure!(daemon.get("/healthz")?.starts_with("HTTP/1.1 200"), "not healthy");
        daemon.end().map(drop)
    })
}

/// systemd accepts the units, and rates the service's exposure at most at 3.5.
fn units() -> Result<()> {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/systemd");
    let directory = tempfile::tempdir()?;
    let program = latency_user()?.get_program().to_string_lossy().into_owned();
    let service = fs::read_to_string(units.join("latency-user.service"))?;
    let service = service.replace("/usr/local/bin/latency-user", &program);
    let path = directory.path().join("latency-user.service");
    fs::write(&path, service)?;
    let socket = directory.path().join("latency-user.socket");
    fs::copy(units.join("latency-user.socket"), &socket)?;
    let (service, socket) = (path.display(), socket.display());
    tool::run(&format!("systemd-analyze verify {service} {socket}"))?;
    tool::run(&format!("systemd-analyze security --offline=true --threshold=35 {service}"))?;
    Ok(())
}

/// What a page of another site could ask for, in the name of a browser.
fn page() -> Result<()> {
    namespace::run(|| {
        let address = "127.0.0.1:9468";
        let daemon = Daemon::start(&["--listen", address])?;
        let ask = |head: &str| -> Result<String> {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(Duration::from_secs(30)))?;
            write!(stream, "{head}\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        for host in ["127.0.0.1:9468", "localhost:9468"] {
            let answer = ask(&format!("GET / HTTP/1.1\r\nHost: {host}"))?;
            ensure!(answer.starts_with("HTTP/1.1 200"), "{host}: {answer}");
            let policy = answer.lines().find(|line| line.starts_with("content-security-policy"));
            let policy = policy.context("no content policy")?;
            ensure!(policy.contains("default-src 'none'; style-src 'sha256-"), "{policy}");
            ensure!(!answer.contains("<script") && answer.contains("\r\nrefresh: 30\r\n"), "page");
            let still = ask(&format!("GET /?still HTTP/1.1\r\nHost: {host}"))?;
            ensure!(still.starts_with("HTTP/1.1 200") && !still.contains("\r\nrefresh:"), "still");
        }
        for host in ["evil.example", "evil.example:9468", "127.0.0.1", "127.0.0.1:80", ""] {
            for path in ["/", "/recordings/x"] {
                let answer = ask(&format!("GET {path} HTTP/1.1\r\nHost: {host}"))?;
                ensure!(answer.starts_with("HTTP/1.1 403"), "{host} {path}: {answer}");
            }
            let answer = ask(&format!("GET /metrics HTTP/1.1\r\nHost: {host}"))?;
            ensure!(answer.starts_with("HTTP/1.1 200"), "{host}: {answer}");
        }
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let answer = ask(&format!("{method} /metrics HTTP/1.1\r\nHost: {address}"))?;
            ensure!(answer.starts_with("HTTP/1.1 405"), "{method}: {answer}");
        }
        // Connections that say nothing keep nobody else out.
        let silent: Vec<TcpStream> =
            (0..200).map(|_| TcpStream::connect(address)).collect::<Result<_, _>>()?;
        ensure!(daemon.metrics()?.contains("latency_user_build_info"), "no metrics");
        drop(silent);
        daemon.end().map(drop)
    })
}

fn pipe() -> Result<()> {
    namespace::run(|| {
        let program = latency_user()?.get_program().to_string_lossy().into_owned();
        let line = format!(
            "{program} trace --output - --interval 100ms --duration 4s | {program} report - \
             --format json"
        );
        let mut shell = std::process::Command::new("sh")
            .args(["-c", &line])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        thread::sleep(Duration::from_secs(2));
        load::udp(1009)?;
        let mut text = String::new();
        shell.stdout.take().context("no pipe")?.read_to_string(&mut text)?;
        ensure!(shell.wait()?.success(), "{text}");
        let summary: Value = serde_json::from_str(text.lines().last().context("no report")?)?;
        ensure!(summary["ledger"]["balanced"] == true, "{}", summary["ledger"]);
        let runs: u64 = summary["series"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|row| row["stage"] == "net_rx")
            .filter_map(|row| row["count"].as_u64())
            .sum();
        ensure!(runs >= 1009 / 2, "{runs} runs");
        // A reader that has gone ends it.
        let gone = format!("{program} trace --output - --interval 100ms --duration 60s | head -1");
        let started = Instant::now();
        tool::shell(&gone)?;
        ensure!(started.elapsed() < Duration::from_secs(30), "it went on");
        Ok(())
    })
}
