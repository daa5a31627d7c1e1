//! `/proc/stat`: what each CPU spent its time on, in clock ticks.

use std::path::Path;

use anyhow::{Context, Result, bail};

/// Ticks since boot. A missing column reads as 0; all columns read here are older than Linux
/// 2.6.33.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticks {
    /// User space, niced or not, guests included.
    pub user: u64,
    /// Kernel, outside of interrupts.
    pub system: u64,
    /// Nothing to do.
    pub idle: u64,
    /// Nothing to do while a task of this CPU waited for a disk.
    pub iowait: u64,
    /// Hard IRQs.
    pub irq: u64,
    /// Softirqs.
    pub softirq: u64,
    /// The hypervisor ran something else.
    pub steal: u64,
}

impl Ticks {
    /// The sum of all.
    pub fn total(&self) -> u64 {
        [self.system, self.idle, self.iowait, self.irq, self.softirq, self.steal]
            .into_iter()
            .fold(self.user, u64::saturating_add)
    }

    /// Ticks since `earlier`. The kernel's `idle` and `iowait` may decrease: then 0.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
            idle: self.idle.saturating_sub(earlier.idle),
            iowait: self.iowait.saturating_sub(earlier.iowait),
            irq: self.irq.saturating_sub(earlier.irq),
            softirq: self.softirq.saturating_sub(earlier.softirq),
            steal: self.steal.saturating_sub(earlier.steal),
        }
    }

    /// `part` of the total, in percent; 0 when the total is 0.
    pub fn percent(&self, part: u64) -> f64 {
        match self.total() {
            0 => 0.0,
            total => part as f64 / total as f64 * 100.0,
        }
    }
}

/// The `cpu` lines of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// All CPUs together.
    pub all: Ticks,
    /// Each CPU that is online, and its number.
    pub cpus: Vec<(u32, Ticks)>,
}

impl Stat {
    /// Parses the file; `path` is named in errors.
    ///
    /// # Errors
    ///
    /// When a `cpu` line cannot be parsed, with its number; when the line of all CPUs is missing.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let mut stat = Self::default();
        let mut found = false;
        for (index, line) in text.lines().enumerate() {
            let mut words = line.split_ascii_whitespace();
            let Some(cpu) = words.next().and_then(|word| word.strip_prefix("cpu")) else {
                continue;
            };
            let place = || format!("{}:{}", path.display(), index + 1);
            let ticks = parse_ticks(words).with_context(place)?;
            if cpu.is_empty() {
                stat.all = ticks;
                found = true;
            } else {
                let number = cpu.parse().with_context(|| format!("expected a CPU, found {cpu:?}"));
                stat.cpus.push((number.with_context(place)?, ticks));
            }
        }
        if !found {
            bail!("{}: no line `cpu`", path.display());
        }
        Ok(stat)
    }
}

fn parse_ticks<'a>(words: impl Iterator<Item = &'a str>) -> Result<Ticks> {
    let numbers = words
        .map(|word| word.parse().with_context(|| format!("expected ticks, found {word:?}")))
        .collect::<Result<Vec<u64>>>()?;
    let [user, nice, system, idle, rest @ ..] = &numbers[..] else {
        bail!("expected at least 4 columns, found {}", numbers.len());
    };
    let column = |index: usize| rest.get(index).copied().unwrap_or(0);
    Ok(Ticks {
        user: user.saturating_add(*nice),
        system: *system,
        idle: *idle,
        iowait: column(0),
        irq: column(1),
        softirq: column(2),
        steal: column(3),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Stat> {
        Stat::parse(Path::new("/proc/stat"), text)
    }

    #[test]
    fn cpus_that_are_offline_have_no_line() {
        let text = "cpu  10 1 5 100 7 1 2 3 0 0\ncpu0 5 1 5 50 7 1 2 3 0 0\ncpu3 5 0 0 50 0 0 0 0\n\
                    intr 5 0\nctxt 7\n";
        let stat = parse(text).unwrap();
        let expected =
            Ticks { user: 11, system: 5, idle: 100, iowait: 7, irq: 1, softirq: 2, steal: 3 };
        assert_eq!(stat.all, expected);
        assert_eq!(stat.cpus.iter().map(|(cpu, _)| *cpu).collect::<Vec<_>>(), [0, 3]);
    }

    #[test]
    fn idle_time_that_fell_is_none() {
        let earlier = Ticks { idle: 9, iowait: 4, user: 1, ..Ticks::default() };
        let later = Ticks { idle: 8, iowait: 5, user: 2, ..Ticks::default() };
        let since = later.since(&earlier);
        assert_eq!(since, Ticks { iowait: 1, user: 1, ..Ticks::default() });
        assert_eq!(since.percent(since.iowait), 50.0);
    }

    #[test]
    fn errors_name_file_and_line() {
        for (text, expected) in [
            ("", "/proc/stat: no line `cpu`"),
            ("cpu 1 2 3\n", "/proc/stat:1: expected at least 4 columns, found 3"),
            ("cpu 1 2 3 4\ncpux 1 2 3 4\n", "/proc/stat:2: expected a CPU, found \"x\""),
            ("cpu 1 2 3 -4\n", "/proc/stat:1: expected ticks, found \"-4\""),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
