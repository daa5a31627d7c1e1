//! Processes that affect packet latency: the `ksoftirqd` threads and `irqbalance`.
//!
//! Finds them by name, and reads nothing else of other processes.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The processes that were found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processes {
    /// CPU time of each CPU's `ksoftirqd` since boot, clock ticks.
    pub ksoftirqd_ticks: BTreeMap<u32, u64>,
    /// Whether `irqbalance` runs.
    pub irqbalance: bool,
}

/// The directories of processes below `/proc`, sorted by PID.
///
/// # Errors
///
/// When `/proc` cannot be read.
pub fn directories(root: &Path) -> Result<Vec<(u32, PathBuf)>> {
    let proc = root.join("proc");
    let mut found = Vec::new();
    for entry in fs::read_dir(&proc).with_context(|| format!("read {}", proc.display()))? {
        let path = entry.with_context(|| format!("read {}", proc.display()))?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.parse().ok());
        found.extend(number.map(|number| (number, path)));
    }
    found.sort_unstable();
    Ok(found)
}

/// Searches `directories`. A process that exits meanwhile is left out.
///
/// # Errors
///
/// When the times of a `ksoftirqd` cannot be parsed.
pub fn find(directories: &[(u32, PathBuf)]) -> Result<Processes> {
    let mut processes = Processes::default();
    for (_, directory) in directories {
        let Ok(name) = fs::read_to_string(directory.join("comm")) else { continue };
        let name = name.trim_end();
        if name == "irqbalance" {
            processes.irqbalance = true;
        }
        let Some(cpu) = name.strip_prefix("ksoftirqd/").and_then(|cpu| cpu.parse().ok()) else {
            continue;
        };
        let path = directory.join("stat");
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let ticks = ticks(&text).with_context(|| format!("{}:1", path.display()))?;
        processes.ksoftirqd_ticks.insert(cpu, ticks);
    }
    Ok(processes)
}

/// User and kernel time: columns 14 and 15. Column 2, the name, may contain spaces.
fn ticks(stat: &str) -> Result<u64> {
    let (_, rest) = stat.rsplit_once(')').context("expected a name in parentheses")?;
    let columns: Vec<&str> = rest.split_ascii_whitespace().collect();
    let column = |number: usize| -> Result<u64> {
        let word = columns.get(number - 3).with_context(|| format!("expected column {number}"))?;
        word.parse().with_context(|| format!("expected ticks, found {word:?}"))
    };
    Ok(column(14)?.saturating_add(column(15)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(root: &Path, pid: &str, comm: &str, stat: &str) {
        let directory = root.join("proc").join(pid);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("comm"), comm).unwrap();
        fs::write(directory.join("stat"), stat).unwrap();
    }

    #[test]
    fn the_threads_are_found_by_name() {
        let root = tempfile::tempdir().unwrap();
        let stat = "15 (ksoftirqd/1) S 2 0 0 0 -1 69238848 0 0 0 0 3 17 0 0 20 0 1 0 5 0 0\n";
        process(root.path(), "15", "ksoftirqd/1\n", stat);
        process(root.path(), "16", "ksoftirqd/x\n", "");
        process(root.path(), "self", "irqbalance\n", "");
        let directories = super::directories(root.path()).unwrap();
        let found = find(&directories).unwrap();
        assert_eq!(found.ksoftirqd_ticks, BTreeMap::from([(1, 20)]));
        assert!(!found.irqbalance);
        process(root.path(), "17", "irqbalance\n", "");
        assert!(find(&super::directories(root.path()).unwrap()).unwrap().irqbalance);
    }

    #[test]
    fn a_short_line_is_refused() {
        assert!(ticks("1 (a) S 1").unwrap_err().to_string().contains("column 14"));
        assert!(ticks("").is_err());
    }

    #[test]
    fn this_kernel_has_its_threads() {
        let found = find(&directories(Path::new("/")).unwrap()).unwrap();
        let cpus = crate::host::cpu::cpus::online(Path::new("/")).unwrap();
        // A container may not show the machine's threads.
        if !found.ksoftirqd_ticks.is_empty() {
            assert_eq!(found.ksoftirqd_ticks.keys().copied().collect::<Vec<_>>(), cpus);
        }
    }
}
