//! `sysctl:NAME=VALUE`: any writable setting below `/proc/sys`.

use std::{fs, os::unix::fs::PermissionsExt};

use anyhow::{Context, Result, ensure};

use super::{Assignment, Scope, Tunable, names_in};
use crate::{
    experiment::knob::{FileKnob, Form, Knob},
    model::{failure::Failure, note::Note},
};

/// Settings of the packet path that lists show.
const LISTED: [&str; 10] = [
    "net.core.netdev_budget",
    "net.core.netdev_budget_usecs",
    "net.core.netdev_max_backlog",
    "net.core.dev_weight",
    "net.core.rmem_max",
    "net.core.busy_poll",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv4.tcp_limit_output_bytes",
    "net.ipv4.tcp_mem",
];

/// Bounds of each word, for settings whose stated bounds the kernel does not always enforce, or
/// enforces by changing the value.
const BOUNDS: [(&str, i64, i64); 6] = [
    ("net.core.netdev_budget", 1, i32::MAX as i64),
    ("net.core.netdev_budget_usecs", 1, i32::MAX as i64),
    ("net.core.netdev_max_backlog", 1, i32::MAX as i64),
    ("net.core.dev_weight", 1, i32::MAX as i64),
    ("net.ipv4.tcp_rmem", 1, i32::MAX as i64),
    ("net.ipv4.tcp_wmem", 1, i32::MAX as i64),
];

/// Triples (minimum, default, maximum) that must not decrease.
const RISING: [&str; 2] = ["net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"];

/// Settings of which each moves the others.
const MOVES: [&[&str]; 4] = [
    &["vm.dirty_bytes", "vm.dirty_ratio"],
    &["vm.dirty_background_bytes", "vm.dirty_background_ratio"],
    &["vm.overcommit_kbytes", "vm.overcommit_ratio"],
    &["kernel.watchdog", "kernel.nmi_watchdog", "kernel.soft_watchdog"],
];

/// Directories of which each subdirectory holds the settings of an interface. Those of `all` and
/// `default` are copied to the others: some always, some where none was set.
const PER_INTERFACE: [&str; 4] =
    ["net/ipv4/conf", "net/ipv6/conf", "net/ipv4/neigh", "net/ipv6/neigh"];

/// The tunable.
pub(super) struct Sysctl;

impl Tunable for Sysctl {
    fn name(&self) -> &'static str {
        "sysctl"
    }

    fn usage(&self) -> &'static str {
        "NAME=VALUE"
    }

    fn describe(&self) -> &'static str {
        "A setting of the kernel, as `sysctl` names it. Those below net.ipv4 and net.ipv6 belong \
         to a network namespace."
    }

    fn plan(&self, target: &str, value: &str, scope: &Scope) -> Result<Vec<Assignment>> {
        let knob = knob(target, scope)?;
        let path = &knob.path;
        let metadata = fs::metadata(path).map_err(|error| {
            Failure::new(format!("no setting {target:?} here: {}: {error}", path.display()))
        })?;
        ensure!(metadata.is_file(), "{target} is a group of settings");
        ensure!(metadata.permissions().mode() & 0o222 != 0, "{target} can only be read");
        let value = Form::Words.normal(value);
        // This runs inside the namespace already.
        let now = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        check(target, &Form::Words.normal(&now), &value)?;
        Ok(vec![Assignment { knob: Knob::File(knob), value }])
    }

    fn followers(&self, target: &str, scope: &Scope) -> Vec<Knob> {
        let name = target.replace('.', "/");
        let mut paths = Vec::new();
        // Forwarding of all interfaces has a second name.
        let name = match &*name {
            "net/ipv4/ip_forward" => "net/ipv4/conf/all/forwarding",
            name => name,
        };
        if name == "net/ipv4/conf/all/forwarding" {
            paths.push("net/ipv4/conf/all/accept_redirects".to_owned());
        }
        let parts = name.rsplitn(3, '/').collect::<Vec<_>>();
        if let [leaf, "all" | "default", directory] = parts[..]
            && PER_INTERFACE.contains(&directory)
        {
            let interfaces = names_in(&scope.root.join("proc/sys").join(directory));
            paths.extend(interfaces.iter().map(|iface| format!("{directory}/{iface}/{leaf}")));
        }
        let groups = MOVES.iter().filter(|group| group.contains(&&*name.replace('/', ".")));
        paths.extend(groups.copied().flatten().map(|other| other.replace('.', "/")));
        let knobs = paths.iter().filter(|path| *path != name).filter_map(|path| {
            let knob = knob(path, scope).ok()?;
            is_writable(&knob).then_some(Knob::File(knob))
        });
        knobs.collect()
    }

    fn warning(&self, target: &str, _scope: &Scope) -> Option<Note> {
        let name = target.replace('.', "/");
        let what = match name.rsplit('/').next()? {
            "disable_ipv6" => "IPv6 addresses and routes",
            "forwarding" if name.starts_with("net/ipv6") => "routes learned from routers",
            _ => return None,
        };
        Some(Note::SettingRemovesState { setting: target.to_owned(), what: what.to_owned() })
    }

    fn targets(&self, scope: &Scope) -> Vec<(String, Knob)> {
        let found = LISTED.iter().filter_map(|name| Some((*name, knob(name, scope).ok()?)));
        let found = found.filter(|(_, knob)| knob.path.exists());
        found.map(|(name, knob)| (name.to_owned(), Knob::File(knob))).collect()
    }
}

/// The file of a setting. Dots separate the parts of its name, or slashes when a part contains
/// dots.
fn knob(name: &str, scope: &Scope) -> Result<FileKnob, Failure> {
    let path = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    let is_name = path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if !is_name {
        return Err(Failure::new(format!("{name:?} is not the name of a setting")));
    }
    let netns = if path.starts_with("net/") { scope.netns() } else { None };
    Ok(FileKnob { path: scope.root.join("proc/sys").join(path), netns, form: Form::Words })
}

fn is_writable(knob: &FileKnob) -> bool {
    let mode = fs::metadata(&knob.path).map(|file| file.permissions().mode());
    mode.is_ok_and(|mode| mode & 0o222 != 0)
}

fn check(name: &str, now: &str, value: &str) -> Result<(), Failure> {
    let words: Vec<&str> = value.split(' ').collect();
    let numbers = |text: &str| -> Option<Vec<i64>> {
        text.split(' ').map(|word| word.parse().ok()).collect()
    };
    let Some(present) = numbers(now) else { return Ok(()) };
    let Some(wanted) = numbers(value).filter(|wanted| wanted.len() == present.len()) else {
        let (n, found) = (present.len(), words.len());
        return Err(Failure::new(format!(
            "{name} takes {n} integers (now {now:?}), found {found} words: {value:?}"
        )));
    };
    if let Some((_, least, most)) = BOUNDS.iter().find(|(bounded, ..)| *bounded == name)
        && let Some(out) = wanted.iter().find(|number| !(least..=most).contains(number))
    {
        return Err(Failure::new(format!("{name}: {out} is not from {least} to {most}")));
    }
    if RISING.contains(&name) && !wanted.is_sorted() {
        return Err(Failure::new(format!("{name}: {value:?} is not in ascending order")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_bounds_are_refused() {
        let rmem = "net.ipv4.tcp_rmem";
        let now = "4096 131072 6291456";
        assert!(check(rmem, now, "4096 131072 4194304").is_ok());
        for value in
            ["4096 131072", "4096 131072 x", "0 1 2", "4096 9 8", "1 2 3 4", "1 2 99999999999"]
        {
            assert!(check(rmem, now, value).is_err(), "{value}");
        }
        assert!(check("net.core.netdev_budget", "300", "0").is_err());
        assert!(check("net.ipv4.tcp_congestion_control", "cubic", "reno").is_ok());
    }

    #[test]
    fn what_a_setting_moves_follows_it() {
        let root = tempfile::tempdir().unwrap();
        for path in [
            "net/ipv4/ip_forward",
            "net/ipv4/conf/all/forwarding",
            "net/ipv4/conf/all/accept_redirects",
            "net/ipv4/conf/default/forwarding",
            "net/ipv4/conf/eth0.7/forwarding",
            "net/ipv4/conf/eth0.7/rp_filter",
            "net/ipv4/neigh/default/gc_stale_time",
            "net/ipv4/neigh/eth0/gc_stale_time",
            "net/core/busy_poll",
            "vm/dirty_bytes",
            "vm/dirty_ratio",
        ] {
            let path = root.path().join("proc/sys").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "1").unwrap();
        }
        let scope = Scope { root: root.path().into(), netns: 1, ifaces: Vec::new() };
        let followers = |target: &str| -> Vec<String> {
            let prefix = root.path().join("proc/sys").display().to_string();
            let found = Sysctl.followers(target, &scope).into_iter();
            found.map(|knob| knob.to_string().replace(&prefix, "")).collect()
        };
        let forwarding = [
            "/net/ipv4/conf/all/accept_redirects",
            "/net/ipv4/conf/default/forwarding",
            "/net/ipv4/conf/eth0.7/forwarding",
        ];
        assert_eq!(followers("net.ipv4.ip_forward"), forwarding);
        assert_eq!(followers("net/ipv4/conf/all/forwarding"), forwarding);
        assert_eq!(
            followers("net.ipv4.neigh.default.gc_stale_time"),
            ["/net/ipv4/neigh/eth0/gc_stale_time"]
        );
        assert_eq!(followers("vm.dirty_ratio"), ["/vm/dirty_bytes"]);
        assert_eq!(followers("net.core.busy_poll"), Vec::<String>::new());
        assert_eq!(followers("net/ipv4/conf/eth0.7/rp_filter"), Vec::<String>::new());
    }

    #[test]
    fn names_become_files_or_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("proc/sys/net/core");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("busy_poll"), "0\n").unwrap();
        let scope = Scope { root: root.path().into(), netns: 1, ifaces: Vec::new() };
        let planned = Sysctl.plan("net.core.busy_poll", "50", &scope).unwrap();
        assert_eq!(planned[0].knob.to_string(), directory.join("busy_poll").display().to_string());
        assert_eq!(planned[0].value, "50");
        for name in ["net.core", "net.core.none", "net/../core", "net..core", "/etc/passwd"] {
            assert!(Sysctl.plan(name, "1", &scope).is_err(), "{name}");
        }
    }
}
