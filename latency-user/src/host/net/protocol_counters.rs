//! `/proc/net/snmp` and `/proc/net/netstat`: counters of protocols, by group and name.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result, bail};

/// Counters of one network namespace. Counters that the kernel lacks are absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProtocolCounters {
    groups: BTreeMap<String, BTreeMap<String, i64>>,
}

impl ProtocolCounters {
    /// Parses a file of pairs of lines, names above values; `path` is named in errors.
    ///
    /// # Errors
    ///
    /// When a line cannot be parsed, with its number.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let mut counters = Self::default();
        let lines: Vec<&str> = text.lines().collect();
        for (index, pair) in lines.chunks(2).enumerate() {
            let place = || format!("{}:{}", path.display(), 2 * index + 1);
            let (group, values) = parse_pair(pair).with_context(place)?;
            counters.groups.entry(group).or_default().extend(values);
        }
        Ok(counters)
    }

    /// A counter, such as `TcpExt` `PruneCalled`.
    pub fn get(&self, group: &str, name: &str) -> Option<i64> {
        self.groups.get(group)?.get(name).copied()
    }

    /// How much a counter grew since `earlier`; `None` when either lacks it.
    pub fn grown(&self, earlier: &Self, group: &str, name: &str) -> Option<u64> {
        let grown = self.get(group, name)?.checked_sub(earlier.get(group, name)?)?;
        Some(u64::try_from(grown).unwrap_or(0))
    }
}

fn parse_pair(pair: &[&str]) -> Result<(String, Vec<(String, i64)>)> {
    let [names, values] = pair else { bail!("expected a line of values after {pair:?}") };
    let (Some((group, names)), Some((same, values))) =
        (names.split_once(':'), values.split_once(':'))
    else {
        bail!("expected a group and a colon in both lines");
    };
    if group != same {
        bail!("expected values of {group}, found those of {same}");
    }
    let names: Vec<&str> = names.split_ascii_whitespace().collect();
    let values: Vec<&str> = values.split_ascii_whitespace().collect();
    if names.len() != values.len() {
        bail!("expected {} values of {group}, found {}", names.len(), values.len());
    }
    let pairs = names
        .into_iter()
        .zip(values)
        .map(|(name, value)| {
            let number = value
                .parse()
                .with_context(|| format!("expected a value of {group} {name}, found {value:?}"))?;
            Ok((name.to_owned(), number))
        })
        .collect::<Result<_>>()?;
    Ok((group.to_owned(), pairs))
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
    fn errors_name_file_and_line() {
        for (text, expected) in [
            ("A: a\n", "/proc/net/netstat:1: expected a line of values"),
            ("A: a\nB: 1\n", "/proc/net/netstat:1: expected values of A, found those of B"),
            ("A: a\nA: 1 2\n", "/proc/net/netstat:1: expected 1 values of A, found 2"),
            ("A: a\nA: 1\nB: b\nB: x\n", "/proc/net/netstat:3: expected a value of B b"),
            ("A\nA\n", "/proc/net/netstat:1: expected a group and a colon"),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
