//! `/proc/net/snmp` and `/proc/net/netstat`: counters of protocols, by group and name.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Result, bail};

/// Counters of one network namespace. Counters that the kernel lacks are absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProtocolCounters {
    groups: BTreeMap<String, BTreeMap<String, i64>>,
    /// Why a group (`MPTcpExt`) or a counter (`Tcp CurrEstab`) could not be read.
    damaged: BTreeMap<String, String>,
}

impl ProtocolCounters {
    /// Parses a file of pairs of lines, names above values; `path` is named in errors. A group or a
    /// value that is damaged does not hide the others.
    ///
    /// # Errors
    ///
    /// When no group can be read, with the number of the first line that is wrong.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let mut counters = Self::default();
        let mut lines = text.lines().enumerate().peekable();
        let mut first = None;
        while let Some((index, line)) = lines.next() {
            let place = |what: String| format!("{}:{}: {what}", path.display(), index + 1);
            let Some((group, names)) = line.split_once(':') else {
                first.get_or_insert_with(|| place("expected a group and a colon".into()));
                continue;
            };
            let values = lines
                .next_if(|(_, next)| next.split_once(':').is_some_and(|(same, _)| same == group));
            let Some((_, values)) = values else {
                let what = place(format!("expected a line of values of {group} below"));
                first.get_or_insert_with(|| what.clone());
                counters.damaged.insert(group.to_owned(), what);
                continue;
            };
            let values = values.split_once(':').map_or("", |(_, values)| values);
            if let Err(what) = counters.add(group, names, values) {
                let what = place(what);
                first.get_or_insert_with(|| what.clone());
                counters.damaged.insert(group.to_owned(), what);
            }
        }
        match first {
            Some(first) if counters.groups.is_empty() => bail!("{first}"),
            _ => Ok(counters),
        }
    }

    fn add(&mut self, group: &str, names: &str, values: &str) -> Result<(), String> {
        let names: Vec<&str> = names.split_ascii_whitespace().collect();
        let values: Vec<&str> = values.split_ascii_whitespace().collect();
        if names.len() != values.len() {
            return Err(format!(
                "expected {} values of {group}, found {}",
                names.len(),
                values.len()
            ));
        }
        let counters = self.groups.entry(group.to_owned()).or_default();
        for (name, value) in names.into_iter().zip(values) {
            // Some are signed, and some kernels print them as if they were not.
            let number = value.parse::<i64>().or_else(|_| value.parse::<u64>().map(|n| n as i64));
            match number {
                Ok(number) => {
                    counters.insert(name.to_owned(), number);
                }
                Err(_) => {
                    let what = format!("expected a value of {group} {name}, found {value:?}");
                    self.damaged.insert(format!("{group} {name}"), what);
                }
            }
        }
        Ok(())
    }

    /// A counter, such as `TcpExt` `PruneCalled`.
    pub fn get(&self, group: &str, name: &str) -> Option<i64> {
        self.groups.get(group)?.get(name).copied()
    }

    /// Why a counter is absent, if it is not for the kernel's lack of it.
    pub fn damage(&self, group: &str, name: &str) -> Option<&str> {
        let of_value = self.damaged.get(&format!("{group} {name}"));
        of_value.or_else(|| self.damaged.get(group)).map(String::as_str)
    }

    /// How much a counter grew since `earlier`; `None` when either lacks it. Counters wrap.
    pub fn grown(&self, earlier: &Self, group: &str, name: &str) -> Option<u64> {
        let (now, before) = (self.get(group, name)?, earlier.get(group, name)?);
        let wrapped = 1_i64 << 32;
        Some(match now.wrapping_sub(before) {
            // Kernels of 32 bits count in 32 bits.
            grown if grown < 0 && (0..wrapped).contains(&before) && now >= 0 => {
                u64::try_from(grown + wrapped).unwrap_or(0)
            }
            grown => u64::try_from(grown).unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ProtocolCounters> {
        ProtocolCounters::parse(Path::new("/proc/net/netstat"), text)
    }

    #[test]
    fn counters_are_found_by_name_not_by_column() {
        let earlier = parse("TcpExt: PruneCalled New\nTcpExt: 5 1\nIpExt: A\nIpExt: -1\n").unwrap();
        let later = parse("TcpExt: X PruneCalled\nTcpExt: 0 12\n").unwrap();
        assert_eq!(later.grown(&earlier, "TcpExt", "PruneCalled"), Some(7));
        assert_eq!(later.grown(&earlier, "TcpExt", "New"), None);
        assert_eq!(earlier.get("IpExt", "A"), Some(-1));
    }

    #[test]
    fn what_is_damaged_does_not_hide_the_rest() {
        let text = "Tcp: MaxConn CurrEstab OutSegs Odd\nTcp: 18446744073709551615 -1 7 x\n\
                    MPTcpExt: a b\nMPTcpExt: 1\nTcpExt: PruneCalled\nTcpExt: 5\nIpExt: a\n";
        let counters = parse(text).unwrap();
        assert_eq!(counters.get("Tcp", "MaxConn"), Some(-1));
        assert_eq!(counters.get("Tcp", "OutSegs"), Some(7));
        assert_eq!(counters.get("TcpExt", "PruneCalled"), Some(5));
        let damage = |group, name| counters.damage(group, name).unwrap_or_default();
        assert!(damage("Tcp", "Odd").contains("found \"x\""));
        assert_eq!(
            damage("MPTcpExt", "a"),
            "/proc/net/netstat:3: expected 2 values of MPTcpExt, found 1"
        );
        assert!(damage("IpExt", "a").contains(":7: expected a line of values of IpExt"));
        assert_eq!(counters.damage("TcpExt", "New"), None);
    }

    #[test]
    fn a_file_without_any_group_is_refused_with_file_and_line() {
        for (text, expected) in [
            ("A: a\n", "/proc/net/netstat:1: expected a line of values of A"),
            ("A: a\nB: 1\n", "/proc/net/netstat:1: expected a line of values of A"),
            ("A: a\nA: 1 2\n", "/proc/net/netstat:1: expected 1 values of A, found 2"),
            ("A\nA\n", "/proc/net/netstat:1: expected a group and a colon"),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
