//! What the hypervisor takes of each CPU, from `/proc/stat`.

use std::{collections::BTreeMap, path::Path};

use super::stat::Stat;

/// Reads the steal of each CPU again and again.
pub struct StealWatch {
    root: std::path::PathBuf,
    before: BTreeMap<u32, u64>,
}

impl StealWatch {
    /// Reads it for the first time.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), before: read(root).unwrap_or_default() }
    }

    /// What was taken of each CPU since the last call, ns; `None`: the file cannot be read. A CPU
    /// that came online meanwhile is taken to start at 0.
    pub fn since_last(&mut self) -> Option<BTreeMap<u32, u64>> {
        let now = read(&self.root)?;
        let since = |(&cpu, &ticks): (&u32, &u64)| {
            let before = self.before.get(&cpu).copied().unwrap_or(0);
            (cpu, ticks.saturating_sub(before).saturating_mul(tick_ns()))
        };
        let taken = now.iter().map(since).collect();
        self.before = now;
        Some(taken)
    }
}

fn read(root: &Path) -> Option<BTreeMap<u32, u64>> {
    let path = root.join("proc/stat");
    let text = std::fs::read_to_string(&path).ok()?;
    let stat = Stat::parse(&path, &text).ok()?;
    Some(stat.cpus.into_iter().map(|(cpu, ticks)| (cpu, ticks.steal)).collect())
}

/// Length of a clock tick, ns.
fn tick_ns() -> u64 {
    // SAFETY: the call takes no pointers.
    let hz = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    1_000_000_000 / u64::try_from(hz).unwrap_or(0).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steal_since_the_last_reading_is_returned() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("proc")).unwrap();
        let write = |first: u64, second: u64| {
            let line = |name: &str, steal: u64| format!("{name} 1 0 1 1 0 0 0 {steal} 0 0\n");
            let lines = [line("cpu", first + second), line("cpu0", first), line("cpu1", second)];
            std::fs::write(root.path().join("proc/stat"), lines.concat()).unwrap();
        };
        write(7, 3);
        let mut watch = StealWatch::new(root.path());
        write(7, 5);
        assert_eq!(watch.since_last(), Some(BTreeMap::from([(0, 0), (1, 2 * tick_ns())])));
        write(8, 5);
        assert_eq!(watch.since_last(), Some(BTreeMap::from([(0, tick_ns()), (1, 0)])));
        std::fs::remove_file(root.path().join("proc/stat")).unwrap();
        assert_eq!(watch.since_last(), None);
    }
}
