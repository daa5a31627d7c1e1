//! Names of kernel functions in `/proc/kallsyms`: the compiler may have added a suffix.

use std::{collections::HashMap, fs::File, io::BufRead, io::BufReader};

use anyhow::{Context, Result};

/// The functions that were asked for, with the names under which the kernel has them.
pub struct Symbols(HashMap<String, Vec<String>>);

impl Symbols {
    /// Looks for `functions`, and for their copies with a suffix such as `.isra.0`.
    ///
    /// # Errors
    ///
    /// When `/proc/kallsyms` cannot be read.
    pub fn find(functions: &[&str]) -> Result<Self> {
        let path = "/proc/kallsyms";
        let file = File::open(path).with_context(|| format!("open {path}"))?;
        let mut found: HashMap<String, Vec<String>> = HashMap::new();
        for line in BufReader::new(file).lines() {
            let line = line.with_context(|| format!("read {path}"))?;
            let Some(name) = line.split_ascii_whitespace().nth(2) else { continue };
            let base = name.split('.').next().unwrap_or(name);
            if functions.contains(&base) {
                found.entry(base.to_owned()).or_default().push(name.to_owned());
            }
        }
        Ok(Self(found))
    }

    /// The name to probe `function` by: its own, else its only copy with a suffix (whose
    /// arguments the compiler may have changed). `None`: it was inlined or does not exist.
    pub fn probe_name(&self, function: &str) -> Option<&str> {
        let names = self.0.get(function)?;
        if let Some(own) = names.iter().find(|name| *name == function) {
            return Some(own);
        }
        match names.as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }
}
