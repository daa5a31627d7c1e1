//! `sysctl:NAME=VALUE`: any writable setting below `/proc/sys`.

use std::{fs, os::unix::fs::PermissionsExt};

use anyhow::{Context, Result, ensure};

use super::{Assignment, Scope, Tunable};
use crate::{
    experiment::knob::{FileKnob, Form, Knob},
    model::failure::Failure,
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
