//! `/sys/devices/system/cpu`: which CPUs are possible and which are online.

use std::{fs, path::Path};

use anyhow::{Context, Result, anyhow, bail};

/// One more than the highest CPU that this kernel may ever bring up.
///
/// # Errors
///
/// When the list cannot be read or parsed, or names no CPU.
pub fn possible(root: &Path) -> Result<u32> {
    let path = root.join("sys/devices/system/cpu/possible");
    let highest = read_list(&path)?.into_iter().max();
    highest.map(|cpu| cpu + 1).with_context(|| format!("{}: no CPU is listed", path.display()))
}

/// The CPUs that are online now, in ascending order.
///
/// # Errors
///
/// When the list cannot be read or parsed.
pub fn online(root: &Path) -> Result<Vec<u32>> {
    read_list(&root.join("sys/devices/system/cpu/online"))
}

/// Files that list CPUs which are set apart for other tasks than the network's: by `isolcpus`, by
/// `nohz_full`, and by a partition of the cpuset controller.
pub const SET_APART: [&str; 3] = [
    "sys/devices/system/cpu/isolated",
    "sys/devices/system/cpu/nohz_full",
    "sys/fs/cgroup/cpuset.cpus.isolated",
];

/// The CPUs that are online and not set apart, in ascending order.
///
/// # Errors
///
/// When the list of CPUs cannot be read or parsed.
pub fn usable(root: &Path) -> Result<Vec<u32>> {
    let mut usable = online(root)?;
    for file in SET_APART {
        // Absent: the kernel cannot set CPUs apart. `(null)`: it could, and does not.
        let apart = read_list(&root.join(file)).unwrap_or_default();
        usable.retain(|cpu| !apart.contains(cpu));
    }
    Ok(usable)
}

/// The CPUs of a line `CPU0  CPU1  CPU3`, which heads the tables in `/proc`.
pub(super) fn parse_header(path: &Path, line: &str) -> Result<Vec<u32>> {
    line.split_whitespace()
        .map(|word| {
            word.strip_prefix("CPU").and_then(|number| number.parse().ok()).ok_or_else(|| {
                anyhow!("{}:1: expected a column CPU<number>, found {word:?}", path.display())
            })
        })
        .collect()
}

fn read_list(path: &Path) -> Result<Vec<u32>> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    parse_list(text.trim()).with_context(|| format!("{}:1", path.display()))
}

/// Parses ranges such as `0-3,8`.
///
/// # Errors
///
/// When the text is not such a list.
pub fn parse_list(list: &str) -> Result<Vec<u32>> {
    let mut cpus = Vec::new();
    for range in list.split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        match (first.parse::<u32>(), last.parse::<u32>()) {
            // The kernel knows 8192 CPUs at most; a higher number is not a list of CPUs.
            (Ok(first), Ok(last)) if first <= last && last < 1 << 16 => cpus.extend(first..=last),
            _ => bail!("expected a range of CPUs, found {range:?}"),
        }
    }
    Ok(cpus)
}

/// Formats CPUs, given in ascending order, as [`parse_list`] reads them.
pub fn list(cpus: &[u32]) -> String {
    let ranges = cpus.chunk_by(|cpu, next| cpu + 1 == *next).map(|range| match range {
        [first, .., last] => format!("{first}-{last}"),
        single => single.iter().map(u32::to_string).collect(),
    });
    ranges.collect::<Vec<_>>().join(",")
}

/// Parses a mask such as `ff,ffffffff`, highest CPUs first, as `rps_cpus` has it.
///
/// # Errors
///
/// When the text is not such a mask.
pub fn parse_mask(mask: &str) -> Result<Vec<u32>> {
    let mut cpus = Vec::new();
    for (index, word) in mask.trim().split(',').rev().enumerate() {
        let Ok(bits) = u32::from_str_radix(word, 16) else {
            bail!("expected a mask of CPUs, found {mask:?}");
        };
        let first = index as u32 * 32;
        cpus.extend((0..32).filter(|bit| bits >> bit & 1 == 1).map(|bit| first + bit));
    }
    Ok(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_that_are_set_apart_are_not_usable() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("sys/devices/system/cpu/online", "0-7\n");
        assert_eq!(usable(root.path()).unwrap(), [0, 1, 2, 3, 4, 5, 6, 7]);
        put("sys/devices/system/cpu/isolated", "2-3\n");
        put("sys/devices/system/cpu/nohz_full", "(null)\n");
        put("sys/fs/cgroup/cpuset.cpus.isolated", "7\n");
        assert_eq!(usable(root.path()).unwrap(), [0, 1, 4, 5, 6]);
    }

    fn root_with(file: &str, text: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("sys/devices/system/cpu");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(file), text).unwrap();
        root
    }

    #[test]
    fn a_hole_in_the_possible_cpus_counts() {
        let root = root_with("possible", "0-3,8\n");
        assert_eq!(possible(root.path()).unwrap(), 9);
        let root = root_with("online", "0,2-3,8\n");
        assert_eq!(online(root.path()).unwrap(), [0, 2, 3, 8]);
    }

    #[test]
    fn lists_are_written_in_ranges() {
        for (cpus, text) in [(&[0, 1, 2, 5][..], "0-2,5"), (&[7], "7"), (&[1, 2], "1-2"), (&[], "")]
        {
            assert_eq!(list(cpus), text);
        }
    }

    #[test]
    fn masks_have_the_highest_cpus_first() {
        assert_eq!(parse_mask("00000001,80000003\n").unwrap(), [0, 1, 31, 32]);
        assert_eq!(parse_mask("0").unwrap(), [0; 0]);
        assert!(parse_mask("").is_err() && parse_mask("1,x").is_err());
    }

    #[test]
    fn nonsense_is_refused_with_file_and_line() {
        for text in ["0-x\n", "3-1\n", "0-4294967295\n", "-1\n"] {
            let root = root_with("possible", text);
            let error = format!("{:#}", possible(root.path()).unwrap_err());
            assert!(error.contains("cpu/possible:1: expected a range"), "{error}");
        }
        let root = root_with("possible", "\n");
        assert!(possible(root.path()).unwrap_err().to_string().contains("no CPU"));
        let root = tempfile::tempdir().unwrap();
        assert!(online(root.path()).unwrap_err().to_string().starts_with("read /"));
    }
}
