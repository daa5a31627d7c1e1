//! Symbol names of the functions to probe: the compiler may have added a suffix.

use std::{collections::HashMap, path::Path};

use anyhow::{Context, Result};

use super::kallsyms;

/// The requested functions with their symbol names.
pub struct Symbols(HashMap<String, Vec<String>>);

impl Symbols {
    /// Finds `functions`, and their copies with a suffix such as `.isra.0`.
    ///
    /// # Errors
    ///
    /// When `/proc/kallsyms` cannot be read.
    pub fn find(functions: &[&str]) -> Result<Self> {
        let list = kallsyms::read(Path::new("/")).context("read /proc/kallsyms")?;
        Ok(Self::in_list(&list, functions))
    }

    fn in_list(list: &str, functions: &[&str]) -> Self {
        let mut found: HashMap<String, Vec<String>> = HashMap::new();
        for kallsyms::Function { name, .. } in kallsyms::functions(list) {
            let base = name.split('.').next().unwrap_or(name);
            if functions.contains(&base) {
                found.entry(base.to_owned()).or_default().push(name.to_owned());
            }
        }
        Self(found)
    }

    /// The symbol to probe for `function`: its own, or else its only copy with a suffix (whose
    /// arguments the compiler may have changed). `None`: inlined, ambiguous or missing.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_has_its_own_name_or_that_of_its_only_copy() {
        let list = "1 t tcp_collapse.isra.0\n2 T net_rx_action\n3 t net_rx_action.cold\n\
                    4 t __napi_poll.part.0\n5 t __napi_poll.constprop.0\n6 d tcp_collapse\n";
        let wanted = ["tcp_collapse", "net_rx_action", "__napi_poll", "process_backlog"];
        let symbols = Symbols::in_list(list, &wanted);
        assert_eq!(symbols.probe_name("tcp_collapse"), Some("tcp_collapse.isra.0"));
        assert_eq!(symbols.probe_name("net_rx_action"), Some("net_rx_action"));
        assert_eq!(symbols.probe_name("__napi_poll"), None);
        assert_eq!(symbols.probe_name("process_backlog"), None);
    }
}
