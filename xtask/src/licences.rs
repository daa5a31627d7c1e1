//! `cargo xtask licences`: checks that every dependency has a licence that deny.toml allows, and
//! that none comes from a git repository.
//!
//! Owns the parser of licence expressions. The allowed licences are listed only in deny.toml, which
//! cargo-deny can check too, along with advisories and bans.

use std::{collections::BTreeSet, fs, process::ExitCode};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{process, workspace};

pub(crate) fn main() -> Result<ExitCode> {
    let path = workspace::root().join("deny.toml");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let allowed =
        allowed(&text).with_context(|| format!("{}: no list `allow = [..]`", path.display()))?;
    let mut cargo = workspace::cargo();
    cargo.args(["metadata", "--format-version", "1", "--all-features", "--locked"]);
    let output = cargo.output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("`{}`: {}", process::line(&cargo), String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata: Value =
        serde_json::from_slice(&output.stdout).context("cannot parse cargo's metadata")?;
    let packages = metadata["packages"].as_array().context("cargo's metadata has no packages")?;
    let violations: Vec<String> =
        packages.iter().filter_map(|package| violation(package, &allowed)).collect();
    for violation in &violations {
        eprintln!("{violation}");
    }
    println!("{} packages, {} violations", packages.len(), violations.len());
    Ok(if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The allowed licences in deny.toml; `None` if it has no list.
fn allowed(text: &str) -> Option<BTreeSet<String>> {
    let (_, list) = text.split_once("\nallow = [")?;
    let (list, _) = list.split_once(']')?;
    let lines = list.lines().map(|line| line.split('#').next().unwrap_or(line));
    let quoted = lines.flat_map(|line| line.split('"').skip(1).step_by(2).map(str::to_owned));
    Some(quoted.collect())
}

/// The rule that a package of cargo's metadata violates.
fn violation(package: &Value, allowed: &BTreeSet<String>) -> Option<String> {
    let name = format!("{} {}", package["name"].as_str()?, package["version"].as_str()?);
    if package["source"].as_str().is_some_and(|source| source.starts_with("git+")) {
        return Some(format!("{name}: comes from a git repository"));
    }
    let dependencies = package["dependencies"].as_array().into_iter().flatten();
    let is_any = |dependency: &&Value| dependency["req"] == "*" && dependency["path"].is_null();
    if package["source"].is_null()
        && let Some(dependency) = dependencies.clone().find(is_any)
    {
        return Some(format!("{name}: takes any version of {}", dependency["name"]));
    }
    match package["license"].as_str() {
        Some(licence) if is_allowed(licence, allowed) => None,
        Some(licence) => Some(format!("{name}: licence {licence:?} is not allowed by deny.toml")),
        None => Some(format!("{name}: has no licence field")),
    }
}

/// Whether `allowed` licences satisfy an SPDX expression. A slash is an old form of `OR`. An
/// expression that cannot be parsed is not allowed.
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

/// `operand AND operand ..`
fn all(words: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let mut met = operand(words, allowed)?;
    while let [first, rest @ ..] = *words
        && *first == "AND"
    {
        *words = rest;
        met &= operand(words, allowed)?;
    }
    Some(met)
}

/// A licence, a licence `WITH` an exception, or an expression in parentheses.
fn operand(words: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
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
    fn the_list_is_read_from_deny_toml() {
        let allowed = allowed(DENY).unwrap();
        let expected = ["Apache-2.0 WITH LLVM-exception", "MIT", "Unicode-3.0"];
        assert_eq!(allowed.iter().map(String::as_str).collect::<Vec<_>>(), expected);
        assert!(super::allowed("[bans]\n").is_none());
    }

    #[test]
    fn expressions_are_satisfied_or_not() {
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
    fn a_package_from_git_or_without_a_licence_is_a_violation() {
        let allowed = allowed(DENY).unwrap();
        let package = |source: Value, license: Value| {
            let package = serde_json::json!({
                "name": "a", "version": "1.0.0", "source": source, "license": license,
            });
            violation(&package, &allowed)
        };
        assert_eq!(package(Value::Null, "MIT".into()), None);
        assert!(package("git+https://example.org/a".into(), "MIT".into()).is_some());
        assert!(package(Value::Null, Value::Null).is_some());
        assert!(package(Value::Null, "ISC".into()).is_some());
    }
}
