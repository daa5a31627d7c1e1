//! `cargo xtask licences`: every dependency has a licence that deny.toml allows, and none comes from
//! a git repository.
//!
//! Owns the reading of licence expressions. What is allowed stands in deny.toml alone, which
//! cargo-deny checks too, with advisories and bans beside it, where somebody has built it.

use std::{collections::BTreeSet, fs, process::ExitCode};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{process, workspace};

pub(crate) fn main() -> Result<ExitCode> {
    let path = workspace::root().join("deny.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let allowed =
        allowed(&text).with_context(|| format!("{}: no list `allow = [..]`", path.display()))?;
    let mut cargo = workspace::cargo();
    cargo.args(["metadata", "--format-version", "1", "--all-features", "--locked"]);
    let output = cargo.output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("`{}`: {}", process::line(&cargo), String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo's metadata")?;
    let packages = metadata["packages"].as_array().context("cargo's metadata has no packages")?;
    let offences: Vec<String> =
        packages.iter().filter_map(|package| offence(package, &allowed)).collect();
    for offence in &offences {
        eprintln!("{offence}");
    }
    println!("{} packages, {} offences", packages.len(), offences.len());
    Ok(if offences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The list of licences in deny.toml; `None`: there is none.
fn allowed(text: &str) -> Option<BTreeSet<String>> {
    let (_, list) = text.split_once("\nallow = [")?;
    let (list, _) = list.split_once(']')?;
    let lines = list.lines().map(|line| line.split('#').next().unwrap_or(line));
    let quoted = lines.flat_map(|line| line.split('"').skip(1).step_by(2).map(str::to_owned));
    Some(quoted.collect())
}

/// What is wrong with a package of cargo's metadata.
fn offence(package: &Value, allowed: &BTreeSet<String>) -> Option<String> {
    let name = format!("{} {}", package["name"].as_str()?, package["version"].as_str()?);
    if package["source"].as_str().is_some_and(|source| source.starts_with("git+")) {
        return Some(format!("{name}: comes from a git repository"));
    }
    match package["license"].as_str() {
        Some(licence) if is_allowed(licence, allowed) => None,
        Some(licence) => Some(format!("{name}: licence {licence:?} is not allowed by deny.toml")),
        None => Some(format!("{name}: names no licence")),
    }
}

/// Whether an SPDX expression can be met with `allowed` licences. A slash is an old way to write
/// `OR`. What cannot be read is not allowed.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any(&mut rest, allowed) == Some(true) && rest.is_empty()
}

/// `all OR all ..`
fn any(words: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let mut met = all(words, allowed)?;
    while let [first, rest @ ..] = *words
        && *first == "OR"
    {
        *words = rest;
        met |= all(words, allowed)?;
    }
    Some(met)
}

/// `one AND one ..`
fn all(words: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let mut met = one(words, allowed)?;
    while let [first, rest @ ..] = *words
        && *first == "AND"
    {
        *words = rest;
        met &= one(words, allowed)?;
    }
    Some(met)
}

/// A licence, one `WITH` an exception, or an expression in brackets.
fn one(words: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    match *words {
        ["(", rest @ ..] => {
            *words = rest;
            let met = any(words, allowed)?;
            *words = words.strip_prefix(&[")"])?;
            Some(met)
        }
        [licence, "WITH", exception, rest @ ..] => {
            *words = rest;
            Some(allowed.contains(&format!("{licence} WITH {exception}")))
        }
        [licence, rest @ ..] if !matches!(*licence, "AND" | "OR" | ")") => {
            *words = rest;
            Some(allowed.contains(*licence))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DENY: &str = "[licenses]\n# \"GPL-2.0-only\" is not\nallow = [\n    \"MIT\",\n    \
                        \"Apache-2.0 WITH LLVM-exception\", # \"ISC\"\n    \"Unicode-3.0\",\n]\n\n\
                        [bans]\nwildcards = \"deny\"\n";

    #[test]
    fn the_list_is_what_deny_toml_allows() {
        let allowed = allowed(DENY).unwrap();
        let expected = ["Apache-2.0 WITH LLVM-exception", "MIT", "Unicode-3.0"];
        assert_eq!(allowed.iter().map(String::as_str).collect::<Vec<_>>(), expected);
        assert!(super::allowed("[bans]\n").is_none());
    }

    #[test]
    fn expressions_are_met_or_not() {
        let allowed = allowed(DENY).unwrap();
        for met in [
            "MIT",
            "Apache-2.0 OR MIT",
            "Apache-2.0/MIT",
            "MIT OR GPL-2.0-only AND ISC",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR Apache-2.0",
        ] {
            assert!(is_allowed(met, &allowed), "{met}");
        }
        for not_met in [
            "Apache-2.0",
            "MIT AND GPL-2.0-only",
            "(MIT OR Apache-2.0) AND GPL-2.0-only",
            "Apache-2.0 WITH Classpath-exception-2.0",
            "MIT OR",
            "(MIT",
            "MIT MIT",
            "",
        ] {
            assert!(!is_allowed(not_met, &allowed), "{not_met}");
        }
    }

    #[test]
    fn a_package_from_git_or_without_a_licence_is_an_offence() {
        let allowed = allowed(DENY).unwrap();
        let package = |source: Value, license: Value| {
            let package = serde_json::json!({
                "name": "a", "version": "1.0.0", "source": source, "license": license,
            });
            offence(&package, &allowed)
        };
        assert_eq!(package(Value::Null, "MIT".into()), None);
        assert!(package("git+https://example.org/a".into(), "MIT".into()).is_some());
        assert!(package(Value::Null, Value::Null).is_some());
        assert!(package(Value::Null, "ISC".into()).is_some());
    }
}
