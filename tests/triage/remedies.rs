//! Remedies on a model of the host: each changes what it names, and its undo brings back what was
//! there, for every CPU and queue. An independent reader of shell commands applies them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use latency_user::{
    experiment::tunable,
    model::finding::{Finding, Triage},
    triage,
};
use serde_json::Value;

use crate::captured::{self, Captured};

/// Settings of a host, in one form each.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Model {
    settings: BTreeMap<String, String>,
    own: String,
    /// Network namespaces by the process that stands for them.
    namespaces: BTreeMap<String, String>,
}

impl Model {
    fn of(captured: &Captured) -> Self {
        let root = captured.path().join("2");
        let mut settings = BTreeMap::new();
        for file in files(&root) {
            let name = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            let text = fs::read_to_string(&file).unwrap_or_default();
            settings.insert(name.clone(), normal(&name, &text));
        }
        if let Some(text) = settings.get("nics.json").cloned() {
            let nics: Value = serde_json::from_str(&text).unwrap_or_default();
            for nic in nics.as_array().into_iter().flatten() {
                add_nic(&mut settings, nic);
            }
        }
        let own = settings.get("netns/own").cloned().unwrap_or_default();
        let namespaces = settings
            .iter()
            .filter_map(|(name, pid)| {
                let inode = name.strip_prefix("netns/")?.strip_suffix("/pid")?;
                Some((pid.clone(), inode.to_owned()))
            })
            .collect();
        Self { settings, own, namespaces }
    }

    /// Runs the commands; what they are not known to change is an error.
    fn run(&mut self, commands: &str) -> Result<(), String> {
        for command in split(commands)? {
            self.run_one(&command, &self.own.clone())?;
        }
        Ok(())
    }

    fn run_one(&mut self, words: &[String], netns: &str) -> Result<(), String> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match &words[..] {
            ["echo", value, ">", path] => self.set(path.trim_start_matches('/'), value),
            ["sysctl", "-w", setting] => {
                let (key, value) = setting.split_once('=').ok_or("no =")?;
                let path = match key.strip_prefix("net.ipv4.") {
                    Some(name) => format!("netns/{netns}/ipv4.{name}"),
                    None => format!("proc/sys/{}", key.replace('.', "/")),
                };
                self.set(&path, value)
            }
            ["ethtool", option, iface, name, value] => {
                self.set(&format!("ethtool {option} {iface} {name}"), value)
            }
            ["tc", "qdisc", "replace", "dev", iface, "root", kind] => {
                self.set(&format!("qdisc {iface}"), kind)
            }
            ["nsenter", net, rest @ ..] => {
                let pid = net.strip_prefix("--net=/proc/").and_then(|p| p.strip_suffix("/ns/net"));
                let inode = pid.and_then(|pid| self.namespaces.get(pid)).ok_or("no namespace")?;
                let (rest, inode): (Vec<String>, _) =
                    (rest.iter().map(|word| (*word).to_owned()).collect(), inode.clone());
                self.run_one(&rest, &inode)
            }
            other => Err(format!("not a command that changes something: {other:?}")),
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let value = normal(name, value);
        match self.settings.get_mut(name) {
            Some(setting) => {
                *setting = value;
                Ok(())
            }
            None => Err(format!("the host has no {name}")),
        }
    }
}

/// A setting in one form: masks and lists as sets of CPUs, the chosen scheduler.
fn normal(name: &str, text: &str) -> String {
    let text = text.trim();
    if name.ends_with("rps_cpus") || name.ends_with("xps_cpus") || name.ends_with("_bitmap") {
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        return digits.trim_start_matches('0').to_owned();
    }
    if name.ends_with("smp_affinity_list") {
        let mut cpus = BTreeSet::new();
        for range in text.split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
                cpus.extend(first..=last);
            }
        }
        return format!("{cpus:?}");
    }
    if name.ends_with("/scheduler") {
        let chosen = text.split_whitespace().find(|word| word.starts_with('[')).unwrap_or(text);
        return chosen.trim_matches(['[', ']']).to_owned();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn add_nic(settings: &mut BTreeMap<String, String>, nic: &Value) {
    let name = nic["name"].as_str().unwrap_or_default().to_owned();
    let mut add = |option: &str, setting: &str, value: &Value| {
        let value = match value {
            Value::Bool(on) => if *on { "on" } else { "off" }.to_owned(),
            Value::Number(number) => number.to_string(),
            _ => return,
        };
        settings.insert(format!("ethtool {option} {name} {setting}"), value);
    };
    for (option, group) in [("-G", "rings"), ("-L", "channels"), ("-C", "coalescing")] {
        for (key, value) in nic[group]["Ok"].as_object().into_iter().flatten() {
            add(option, &key.replace('_', "-"), value);
        }
    }
    if let Some(features) = nic["features"]["Ok"].as_object() {
        let has = |names: &[&str]| {
            let active = features.get("active").and_then(Value::as_array);
            let is = |on: &Value| names.iter().any(|name| on == name);
            Value::Bool(active.is_some_and(|active| active.iter().any(is)))
        };
        add("-K", "gro", &has(&["rx-gro"]));
        add("-K", "lro", &has(&["rx-lro"]));
        add("-K", "tso", &has(&["tx-tcp-segmentation"]));
        add("-K", "rx", &has(&["rx-checksum"]));
        add("-K", "tx", &has(&["tx-checksum-ip-generic", "tx-checksum-ipv4"]));
    }
    for qdisc in nic["qdiscs"]["Ok"].as_array().into_iter().flatten() {
        if qdisc["root"] == true {
            let kind = qdisc["kind"].as_str().unwrap_or_default();
            settings.insert(format!("qdisc {name}"), kind.to_owned());
        }
    }
}

/// The commands of a line, as a shell splits and expands them: bash prints them, one word a line.
fn split(line: &str) -> Result<Vec<Vec<String>>, String> {
    let mut script = String::from(
        "show() { printf '%s\\0' \"$@\"; printf '\\1\\0'; }\n\
         echo() { show echo \"$@\"; }\n",
    );
    // `echo V > PATH` must not write: the redirection becomes words.
    let line = line.replace(" > ", " '>' ");
    for name in ["sysctl", "ethtool", "tc", "nsenter"] {
        script.push_str(&format!("{name}() {{ show {name} \"$@\"; }}\n"));
    }
    script.push_str(&line);
    let output = Command::new("/bin/bash")
        .args(["--noprofile", "--norc", "-r", "-c", &script])
        .env_clear()
        .env("PATH", "/nonexistent")
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() || !output.stderr.is_empty() {
        return Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let text = String::from_utf8(output.stdout).map_err(|error| error.to_string())?;
    let commands = text.split("\u{1}\0").filter(|command| !command.is_empty());
    Ok(commands
        .map(|command| command.trim_end_matches('\0').split('\0').map(str::to_owned).collect())
        .collect())
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

fn hosts() -> Vec<Captured> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/trials");
    let mut hosts = captured::all();
    for path in files(&directory) {
        let name = path.file_name().unwrap().to_str().unwrap();
        hosts.push(captured::unpack("trials", name, &fs::read_to_string(&path).unwrap()));
    }
    hosts
}

fn check(model: &Model, finding: &Finding) -> Result<bool, String> {
    let Some(undo) = finding.detail.undo() else { return Ok(false) };
    let mut changed = model.clone();
    changed.run(&finding.detail.next())?;
    if changed == *model {
        return Err(format!("{} changes nothing", finding.detail.next()));
    }
    changed.run(&undo)?;
    let left: Vec<_> = changed
        .settings
        .iter()
        .filter(|(name, value)| model.settings.get(*name) != Some(*value))
        .collect();
    if !left.is_empty() {
        return Err(format!("{} then {undo} leaves {left:?}", finding.detail.next()));
    }
    for setting in finding.detail.step.remedy().and_then(|r| r.settings()).into_iter().flatten() {
        let name = setting.split(':').next().unwrap_or_default();
        if !tunable::ALL.iter().any(|tunable| tunable.name() == name) {
            return Err(format!("experiment has no tunable for {setting}"));
        }
    }
    Ok(true)
}

#[test]
fn each_remedy_is_undone_completely() {
    let (mut failures, mut tried) = (Vec::new(), 0);
    for host in hosts() {
        let model = Model::of(&host);
        for finding in &host.judge().findings {
            match check(&model, finding) {
                Ok(changes) => tried += usize::from(changes),
                Err(error) => failures.push(format!("{}: {}: {error}", host.place, finding.rule)),
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(tried > 60, "{tried}");
}

#[test]
fn one_setting_gets_one_advice() {
    for host in hosts() {
        let mut advised = BTreeMap::new();
        for finding in &host.judge().findings {
            for change in finding.detail.step.remedy().iter().flat_map(|r| &r.changes) {
                let before = advised.insert(change.knob.clone(), change.advised.clone());
                let is_new = before.is_none_or(|before| before == change.advised);
                assert!(is_new, "{}: {:?}", host.place, change.knob);
            }
        }
    }
}

/// Text that a shell would run, hide or write elsewhere if it reached a command raw.
const HOSTILE: [&str; 6] = [
    "0; touch PWNED #",
    "$(touch PWNED)",
    "`touch PWNED`",
    "'; touch PWNED; '",
    "0\" ; touch PWNED ; \"",
    "\u{1b}]0;PWNED\u{7}\u{202e}",
];

/// Everything that an engineer is told to run.
fn commands(triage: &Triage) -> Vec<String> {
    let of = |finding: &Finding| {
        let detail = &finding.detail;
        let lines = [Some(detail.next()), detail.undo(), detail.persist(), Some(detail.confirm())];
        lines.into_iter().flatten().collect::<Vec<String>>()
    };
    triage.findings.iter().flat_map(of).collect()
}

/// Each file of each host is replaced by hostile text, a link out, a FIFO, a directory.
#[test]
fn nothing_of_a_hostile_host_reaches_a_command_or_leaves_the_capture() {
    for (turn, host) in hosts().into_iter().enumerate() {
        for (at, file) in files(host.path()).into_iter().enumerate() {
            let original = fs::read(&file).unwrap();
            let text = HOSTILE[(turn + at) % HOSTILE.len()];
            for kind in ["text", "lines", "link"] {
                fs::remove_file(&file).unwrap();
                match kind {
                    "text" => fs::write(&file, text).unwrap(),
                    "lines" => {
                        let lines = String::from_utf8_lossy(&original).replace('0', text);
                        fs::write(&file, lines).unwrap();
                    }
                    _ => symlink("/etc/passwd", &file).unwrap(),
                }
                if let Ok(loaded) = triage::load(host.path()) {
                    let ifaces = loaded.busy_interfaces();
                    let judged = triage::judge(&loaded, &ifaces);
                    for command in commands(&judged) {
                        let is_safe = !command.contains("PWNED")
                            || ifaces.iter().any(|iface| iface.contains("PWNED"));
                        assert!(is_safe, "{}: {}: {command}", host.place, file.display());
                    }
                    let all = format!("{judged:?}");
                    assert!(!all.contains("root:x:"), "{}: {}", host.place, file.display());
                    assert!(kind != "link", "{}: a link was followed", file.display());
                }
            }
            fs::remove_file(&file).unwrap();
            fs::write(&file, original).unwrap();
        }
    }
}

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let host = hosts().remove(0);
    let file = files(&host.path().join("2")).remove(0);
    fs::remove_file(&file).unwrap();
    for make in ["mkfifo", "zero"] {
        match make {
            "mkfifo" => {
                assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
            }
            _ => symlink("/dev/zero", &file).unwrap(),
        }
        let error = triage::load(host.path()).err().unwrap().to_string();
        assert!(error.contains("regular file") || error.contains("symbolic link"), "{error}");
        fs::remove_file(&file).unwrap();
    }
}
