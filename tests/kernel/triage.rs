//! `latency-user triage` and its `--capture` on real problems caused on purpose.

use std::{
    fs::{self, OpenOptions},
    io::{Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use latency_tests::{load, namespace, tool, veth};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    injector::{Injector, MARKED_PORT, is_its_program},
    queues::flow_of_each_queue,
    stalls::stretched,
    suite::{Where, trial},
    tracing::{latency_user, wait_until},
};

/// Seconds between the samples of triage, and of the tools that run in parallel.
const SECONDS: &str = "5";
/// Allowed difference of two values, as a share of the larger.
const TOLERANCE: f64 = 0.05;
/// Windows of two tools never coincide, and CPUs kept busy by others show no I/O wait. The values
/// must therefore agree in at least one of these rounds.
const ROUNDS: u32 = 12;
/// Maximum duration of a load, in case triage does not end.
const LONGEST: Duration = Duration::from_secs(60);

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    let disk = ["iostat", "mpstat"];
    let queues = ["ip", "ethtool"];
    let tcp = ["ip", "sysctl", "nsenter", "sleep"];
    [
        trial("triage::a_busy_disk_matches_sysstat", Where::Host, &disk, busy_disk),
        trial("triage::all_traffic_on_one_cpu", Where::Everywhere, &["ip"], one_cpu),
        trial("triage::queues_without_gro", Where::Everywhere, &queues, without_gro),
        trial("triage::collapsing_receive_queues", Where::Host, &tcp, collapse),
        trial("triage::another_namespace_is_judged", Where::Host, &tcp, other_namespace),
        trial("triage::rps_is_advised_below_a_macvlan", Where::Host, &queues, || {
            below("mv0", &["ip link add mv0 link va type macvlan mode bridge"])
        }),
        trial("triage::rps_is_advised_below_a_bridge", Where::Vm, &queues, || {
            below("br0", &["ip link add br0 type bridge", "ip link set va master br0"])
        }),
        trial("triage::rps_is_advised_below_a_bond", Where::Vm, &queues, || {
            below(
                "bond0",
                &[
                    "ip link add bond0 type bond mode active-backup miimon 100",
                    "ip link set va down",
                    "ip link set va master bond0",
                    "ip link set va up",
                ],
            )
        }),
        trial("triage::commands_for_odd_names_work", Where::Host, &queues, odd_names),
        trial("triage::stalls_are_traced", Where::Everywhere, &queues, traced),
        trial("triage::a_capture_is_judged_like_the_host", Where::Everywhere, &["tar"], capture),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The output lines of triage; the last is the summary.
struct Judged {
    status: Option<i32>,
    lines: Vec<Value>,
}

impl Judged {
    fn parse(output: &Output) -> Result<Self> {
        let text = String::from_utf8_lossy(&output.stdout);
        let lines = text
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("parse {line:?}")))
            .collect::<Result<Vec<Value>>>()?;
        let last = lines.last().context("triage printed nothing")?;
        ensure!(last["kind"] == "triage" && last["schema_version"] == 2, "{last}");
        Ok(Self { status: output.status.code(), lines })
    }

    fn finding(&self, rule: &str) -> Option<&Value> {
        self.lines.iter().find(|line| line["kind"] == "finding" && line["rule"] == rule)
    }

    fn expect(&self, rule: &str) -> Result<&Value> {
        ensure!(self.status == Some(4), "exit status {:?}", self.status);
        self.finding(rule).with_context(|| {
            let last = self.lines.last().map(|last| &last["verdict"]);
            let said: Vec<_> = self.answers(rule).collect();
            format!("no finding {rule}, but {said:?}: {last:?}")
        })
    }

    fn answers<'a>(&'a self, rule: &str) -> impl Iterator<Item = &'a str> {
        let steps = self.lines.last().and_then(|last| last["path"].as_array());
        steps
            .into_iter()
            .flatten()
            .flat_map(|step| step["rules"].as_array().into_iter().flatten())
            .filter(move |answer| answer["rule"] == rule)
            .filter_map(|answer| answer["text"].as_str())
    }

    /// The text of a rule's answer about `subject`.
    fn answer(&self, rule: &str, subject: &str) -> Result<&str> {
        self.answers(rule)
            .find(|text| text.starts_with(subject))
            .with_context(|| format!("{rule} has no answer about {subject}"))
    }
}

fn triage(arguments: &[&str]) -> Result<Command> {
    let mut command = latency_user()?;
    command.args(["triage", "--format", "json", "--no-trace"]).args(arguments);
    Ok(command)
}

/// Runs triage while `load` runs; the flag passed to `load` ends it.
fn judge_under(
    load: impl Fn(&AtomicBool) -> Result<()> + Send + Sync,
    args: &[&str],
) -> Result<Judged> {
    let end = AtomicBool::new(false);
    beside(|| load(&end), &end, || Judged::parse(&triage(args)?.output()?))
}

/// Judges until `rule` finds something, three times at most: what else the machine does meanwhile
/// may hide it.
fn found_under(
    load: impl Fn(&AtomicBool) -> Result<()> + Send + Sync,
    args: &[&str],
    rule: &str,
) -> Result<Judged> {
    for _ in 0..2 {
        let judged = judge_under(&load, args)?;
        if judged.finding(rule).is_some() {
            return Ok(judged);
        }
    }
    judge_under(load, args)
}

/// Runs `load` in another thread during `body`, and sets `end` when `body` has returned.
fn beside<T>(
    load: impl FnOnce() -> Result<()> + Send,
    end: &AtomicBool,
    body: impl FnOnce() -> Result<T>,
) -> Result<T> {
    thread::scope(|scope| {
        // A new thread inherits the namespace of its creator.
        let load = scope.spawn(load);
        let result = body();
        end.store(true, Ordering::Relaxed);
        load.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        result
    })
}

fn busy_disk() -> Result<()> {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR")?;
    let directory = tempfile::tempdir_in(Path::new(&manifest).join("../target"))?;
    let disk = disk_of(directory.path())?;
    let mut disagreements = Vec::new();
    for _ in 0..ROUNDS {
        match compare_with_sysstat(directory.path(), &disk)? {
            Agreement::Values => return Ok(()),
            Agreement::NoWait => {}
            Agreement::Differs(how) => disagreements.push(how),
        }
    }
    // Other work can keep the CPUs from ever waiting: then both said so each time.
    ensure!(disagreements.is_empty(), "{}", disagreements.join("\n"));
    Ok(())
}

/// What triage and sysstat said of the same seconds.
enum Agreement {
    /// The same values.
    Values,
    /// That the CPUs hardly waited for the disk.
    NoWait,
    /// Different values.
    Differs(String),
}

/// Keeps the disk busy and compares.
fn compare_with_sysstat(directory: &Path, disk: &str) -> Result<Agreement> {
    let end = AtomicBool::new(false);
    let writers = || {
        let end = &end;
        thread::scope(|scope| {
            let writers: Vec<_> =
                (0..4).map(|n| scope.spawn(move || write_synced(directory, n, end))).collect();
            writers
                .into_iter()
                .try_for_each(|writer| writer.join().expect("a writer does not panic"))
        })
    };
    beside(writers, &end, || {
        let start = |program: &str, arguments: &[&str]| {
            Command::new(program)
                .args(arguments)
                .env("S_TIME_FORMAT", "ISO")
                .env("LC_ALL", "C")
                .stdout(Stdio::piped())
                .spawn()
                .with_context(|| format!("start {program}"))
        };
        let iostat = start("iostat", &["-x", "-y", "-d", disk, SECONDS, "1"])?;
        let mpstat = start("mpstat", &[SECONDS, "1"])?;
        let duration = format!("{SECONDS}s");
        let judged = Judged::parse(&triage(&["--duration", &duration])?.output()?)?;
        let iostat = String::from_utf8(iostat.wait_with_output()?.stdout)?;
        let mpstat = String::from_utf8(mpstat.wait_with_output()?.stdout)?;

        let wait = column(&mpstat, "CPU", "all", "%iowait")?;
        let Some(finding) = judged.finding("iowait") else {
            // Below the rule's threshold there is no finding.
            ensure!(wait < 6.0, "not found, by mpstat {wait} %");
            return Ok(Agreement::NoWait);
        };
        let message = judged.answer("disk_busy", disk)?;
        let ours = [
            finding["numbers"][0]["value"].as_f64().context("no share of I/O wait")?,
            after(message, "busy ")?,
            after(message, "a write ")?,
            after(message, "queue ")?,
        ];
        let theirs = [
            wait,
            column(&iostat, "Device", disk, "%util")?,
            column(&iostat, "Device", disk, "w_await")?,
            column(&iostat, "Device", disk, "aqu-sz")?,
        ];
        let differ = ours.iter().zip(theirs).any(|(ours, theirs)| {
            // Both tools print two decimals.
            (ours - theirs).abs() > f64::max(TOLERANCE * ours.max(theirs), 0.02)
        });
        Ok(match differ {
            true => Agreement::Differs(format!("{ours:?}, by sysstat {theirs:?}")),
            false => Agreement::Values,
        })
    })
}

/// Writes blocks, each synchronously (`O_DSYNC`).
fn write_synced(directory: &Path, number: u32, end: &AtomicBool) -> Result<()> {
    let path = directory.join(format!("file-{number}"));
    let mut file =
        OpenOptions::new().write(true).create(true).custom_flags(libc::O_DSYNC).open(path)?;
    let started = std::time::Instant::now();
    let block = vec![0x5A; 1 << 20];
    while !end.load(Ordering::Relaxed) && started.elapsed() < LONGEST {
        for _ in 0..64 {
            file.write_all(&block)?;
        }
        file.rewind()?;
    }
    Ok(())
}

/// The disk that holds `path`, by its name in `/proc/diskstats`.
fn disk_of(path: &Path) -> Result<String> {
    let source = tool::run(&format!("findmnt -n -o SOURCE --target {}", path.display()))?;
    let device = fs::canonicalize(source.trim()).with_context(|| format!("find {source}"))?;
    let name = device.file_name().context("no name")?.to_string_lossy().into_owned();
    // The directory of a partition is inside the directory of its disk.
    let directory = fs::canonicalize(format!("/sys/class/block/{name}"))?;
    match directory.join("partition").exists() {
        true => {
            let disk = directory.parent().and_then(Path::file_name).context("no disk")?;
            Ok(disk.to_string_lossy().into_owned())
        }
        false => Ok(name),
    }
}

/// The number after `words` in `text`.
fn after(text: &str, words: &str) -> Result<f64> {
    let (_, rest) = text.split_once(words).with_context(|| format!("{words:?} in {text:?}"))?;
    let number = rest.split([' ', ',']).next().unwrap_or_default();
    number.parse().with_context(|| format!("{words:?} in {text:?}"))
}

/// The column `name` of the row with `key`, in the sysstat table whose header has `heading`.
fn column(table: &str, heading: &str, key: &str, name: &str) -> Result<f64> {
    let words = |line: &str| line.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let mut lines = table.lines().map(words);
    let headings =
        lines.find(|line| line.iter().any(|w| w == heading)).with_context(|| table.to_owned())?;
    let row = lines.find(|line| line.iter().any(|w| w == key)).with_context(|| table.to_owned())?;
    // The leading time may have more words in a row than in the header: count from the end.
    let from_end = headings.len() - headings.iter().position(|w| w == name).context("column")?;
    let value = row.len().checked_sub(from_end).and_then(|at| row.get(at));
    value.context("no such column")?.parse().with_context(|| table.to_owned())
}

/// The kernel steers the packets of `upper` by the mask of the device below it: the advice is for
/// that one, and packets are steered once it is followed.
fn below(upper: &str, make: &[&str]) -> Result<()> {
    namespace::run(|| {
        veth::make(1)?;
        tool::run("ethtool -K va gro off")?;
        for command in make {
            tool::run(command)?;
        }
        tool::run(&format!("ip link set {upper} up"))?;
        wait_until(&format!("{upper} has a link"), || {
            let carrier = fs::read_to_string(format!("/sys/class/net/{upper}/carrier"));
            Ok(carrier.is_ok_and(|carrier| carrier.trim() == "1"))
        })?;
        let send = |end: &AtomicBool| {
            load::pin_to(0)?;
            let mut sender = veth::sender_to(upper)?;
            while !end.load(Ordering::Relaxed) {
                for port in 0..97 {
                    sender.send(1000 + port, 9000)?;
                }
            }
            Ok(())
        };
        let args = ["--iface", upper, "--duration", "2s"];
        let judged = found_under(send, &args, "net_rx_on_one_cpu")?;
        let finding = judged.expect("net_rx_on_one_cpu")?;
        let next = finding["next"].as_str().context("no command")?;
        ensure!(next.contains("/va/queues/rx-0/rps_cpus"), "{finding}");
        ensure!(!next.contains(upper), "{finding}");
        // Interrupts between CPUs are merged when a CPU is slow; the packets it took are not.
        let elsewhere = || -> Result<u64> {
            let text = fs::read_to_string("/proc/net/softnet_stat")?;
            let processed = |line: &str| {
                let word = line.split_ascii_whitespace().next().context("no column")?;
                Ok(u64::from_str_radix(word, 16)?)
            };
            text.lines().skip(1).map(processed).sum::<Result<u64>>()
        };
        let sent = || -> Result<u64> {
            let before = elsewhere()?;
            let mut sender = veth::sender_to(upper)?;
            for port in 0..2003 {
                sender.send(1000 + port, 9000)?;
            }
            thread::sleep(std::time::Duration::from_millis(100));
            Ok(elsewhere()? - before)
        };
        load::pin_to(0)?;
        let before = sent()?;
        tool::shell(next)?;
        let mut after = sent()?;
        for _ in 0..4 {
            if after <= before + 500 {
                after = sent()?;
            }
        }
        ensure!(after > before + 500, "{before} on other CPUs before, {after} after: {next}");
        tool::shell(finding["undo"].as_str().context("no undo")?)?;
        let mask = fs::read_to_string("/sys/class/net/va/queues/rx-0/rps_cpus")?;
        ensure!(mask.trim().chars().all(|c| c == '0' || c == ','), "{mask}");
        Ok(())
    })
}

/// Interfaces with names that a shell or an option parser may take for something else: what triage
/// advises runs as it is written, and changes that interface.
fn odd_names() -> Result<()> {
    for name in ["\u{e9}0", "-x", "a;b", "q\"q"] {
        namespace::run(|| {
            veth::make(1)?;
            tool::run("ethtool -K va gro off")?;
            tool::run("ip link set va down")?;
            let renamed = Command::new("ip").args(["link", "set", "va", "name", name]).status()?;
            ensure!(renamed.success(), "ip cannot rename to {name}");
            let up = Command::new("ip").args(["link", "set", "dev", name, "up"]).status()?;
            ensure!(up.success(), "ip cannot set {name} up");
            let send = |end: &AtomicBool| {
                load::pin_to(0)?;
                let mut sender = veth::sender_to(name)?;
                while !end.load(Ordering::Relaxed) {
                    for port in 0..97 {
                        sender.send(1000 + port, 9000)?;
                    }
                }
                Ok(())
            };
            let judged = judge_under(send, &[&format!("--iface={name}"), "--duration", "2s"])?;
            let finding = judged.expect("gro_off")?;
            let gro = || -> Result<bool> {
                let output = Command::new("ethtool").args(["-k", name]).output()?;
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                Ok(text.contains("generic-receive-offload: on"))
            };
            ensure!(!gro()?, "GRO is on: {finding}");
            tool::shell(finding["next"].as_str().context("no command")?)?;
            ensure!(gro()?, "{finding}");
            tool::shell(finding["undo"].as_str().context("no undo")?)?;
            ensure!(!gro()?, "{finding}");
            // The command to confirm is accepted, with a shorter run.
            let confirm = finding["confirm"].as_str().context("no command")?;
            let binary = latency_user()?.get_program().to_string_lossy().into_owned();
            let confirm = confirm
                .replacen("latency-user", &binary, 1)
                .replace("--window 30s --rounds 3", "--dry-run")
                .replace("--duration 30s", "--duration 100ms");
            tool::shell(&confirm).with_context(|| confirm.clone())?;
            Ok(())
        })
        .with_context(|| format!("{name:?}"))?;
    }
    Ok(())
}

fn one_cpu() -> Result<()> {
    namespace::run(|| {
        let send = |end: &AtomicBool| {
            load::pin_to(0)?;
            while !end.load(Ordering::Relaxed) {
                load::udp(1009)?;
            }
            Ok(())
        };
        let judged = judge_under(send, &["--duration", "2s"])?;
        let finding = judged.expect("net_rx_on_one_cpu")?;
        ensure!(finding["subject"] == "CPU 0", "{finding}");
        Ok(())
    })
}

fn without_gro() -> Result<()> {
    namespace::run(|| {
        veth::make(4)?;
        tool::run(&format!("ethtool -K {} gro off", veth::RECEIVER))?;
        let args = ["--iface", veth::RECEIVER, "--duration", "2s"];
        let send = |end: &AtomicBool| {
            let mut sender = veth::sender()?;
            while !end.load(Ordering::Relaxed) {
                for source in 20_000..20_100 {
                    sender.send(source, 9798)?;
                }
                // About 5,000 packets per second: a load, not a stress test.
                thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        };
        let judged = judge_under(send, &args)?;
        let finding = judged.expect("gro_off")?.clone();
        ensure!(finding["subject"] == veth::RECEIVER, "{finding}");
        shell(&finding, "next")?;
        let judged = judge_under(send, &args)?;
        ensure!(judged.finding("gro_off").is_none(), "still found: {:?}", judged.lines);
        shell(&finding, "undo")?;
        let features = tool::run(&format!("ethtool -k {}", veth::RECEIVER))?;
        ensure!(features.contains("generic-receive-offload: off"), "{features}");
        Ok(())
    })
}

/// The short trace that triage takes shows stalls of known duration, with the function.
fn traced() -> Result<()> {
    let spin = stretched(7);
    namespace::run(|| {
        load::pin_to(0)?;
        veth::make(4)?;
        let mut sender = veth::sender()?;
        let flow = flow_of_each_queue(&mut sender, MARKED_PORT)?[0];
        let mut injector = Injector::attach(spin)?;
        let end = AtomicBool::new(false);
        let stall = || {
            load::pin_to(0)?;
            while !end.load(Ordering::Relaxed) {
                injector.stall(&mut sender, flow, 1)?;
                thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        };
        let judge = || {
            let args = ["triage", "--format", "json", "--duration", "3s"];
            Judged::parse(&latency_user()?.args(args).output()?)
        };
        let judged = beside(stall, &end, judge)?;
        let finding = judged.expect("trace_stalls")?;
        let number = |name: &str| {
            let numbers = finding["numbers"].as_array().into_iter().flatten();
            let mut named = numbers.filter(|number| number["what"].as_str() == Some(name));
            named.next().and_then(|number| number["value"].as_f64())
        };
        let longest = finding["numbers"][0]["value"].as_f64().context("no number")?;
        ensure!(longest >= spin.as_secs_f64() * 1e3, "{longest} ms: {finding}");
        ensure!(number("stalls of net_rx") >= Some(5.0), "{finding}");
        let seen = finding["seen"].as_str().unwrap_or_default();
        ensure!(seen.split([' ', ',']).any(is_its_program), "{finding}");
        Ok(())
    })
}

/// Runs the command that a finding names.
fn shell(finding: &Value, part: &str) -> Result<()> {
    let command = finding[part].as_str().with_context(|| format!("no {part} in {finding}"))?;
    let status = Command::new("sh").args(["-c", command]).stdout(Stdio::null()).status()?;
    ensure!(status.success(), "{command}: {status}");
    Ok(())
}

const RMEM: &str = "/proc/sys/net/ipv4/tcp_rmem";

fn rmem() -> Result<String> {
    let text = fs::read_to_string(RMEM).with_context(|| format!("read {RMEM}"))?;
    Ok(text.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
}

fn collapse() -> Result<()> {
    namespace::run(|| {
        let send = |end: &AtomicBool| {
            load::tcp_collapse(load::LARGE_RMEM, LONGEST, || end.load(Ordering::Relaxed))?;
            Ok(())
        };
        let judged = judge_under(send, &["--duration", &format!("{SECONDS}s")])?;
        let finding = judged.expect("tcp_collapse")?;
        let first = &judged.lines[0];
        ensure!(first["rule"] == "tcp_collapse", "the top finding is {first}");
        shell(finding, "next")?;
        ensure!(rmem()? == load::SMALL_RMEM, "`next` set {}", rmem()?);
        shell(finding, "undo")?;
        ensure!(rmem()? == load::LARGE_RMEM, "`undo` set {}", rmem()?);
        Ok(())
    })
}

/// Collapses in a container are found from outside, and its buffer sizes are fixed from there.
fn other_namespace() -> Result<()> {
    let end = AtomicBool::new(false);
    let ready = AtomicBool::new(false);
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            let result = namespace::run(|| {
                // Triage finds namespaces through processes; this one lives as long as the load.
                let mut process = Command::new("sleep").arg("300").spawn()?;
                ready.store(true, Ordering::Relaxed);
                let sent =
                    load::tcp_collapse(load::LARGE_RMEM, LONGEST, || end.load(Ordering::Relaxed));
                let rmem = rmem();
                let _ = process.kill();
                process.wait()?;
                sent?;
                rmem
            });
            ready.store(true, Ordering::Relaxed);
            result
        });
        while !ready.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        let judged = triage(&["--duration", &format!("{SECONDS}s")])
            .and_then(|mut command| Judged::parse(&command.output()?));
        let fixed = judged.and_then(|judged| {
            let finding = judged.expect("tcp_collapse")?;
            ensure!(
                finding["subject"].as_str().is_some_and(|name| name.contains("of process")),
                "{finding}"
            );
            shell(finding, "next")
        });
        end.store(true, Ordering::Relaxed);
        let rmem = inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        fixed?;
        ensure!(rmem == load::SMALL_RMEM, "`next` set {rmem}");
        Ok(())
    })
}

fn capture() -> Result<()> {
    namespace::run(|| {
        veth::make(2)?;
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("host.tar.gz");
        let file = file.to_string_lossy();
        let live = triage(&["--duration", "1s", "--capture", &file])?.output()?;
        tool::run(&format!("tar -xzf {file} -C {}", directory.path().display()))?;
        let root = directory.path().to_string_lossy();
        let captured = triage(&["--root", &root])?.output()?;
        Judged::parse(&live)?;
        ensure!(live.status.code() == captured.status.code(), "{captured:?}");
        ensure!(live.stdout == captured.stdout, "{live:?}\n{captured:?}");
        Ok(())
    })
}
