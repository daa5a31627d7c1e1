//! The kernel's symbol list, `/proc/kallsyms`. Reads and parses it; the callers search it.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader},
    path::Path,
};

/// A function, from a line such as `ffffffff81000000 T _stext [module]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Function<'a> {
    /// Its start; 0 if the kernel hides addresses.
    pub(super) address: u64,
    /// Its name, including the compiler's suffixes.
    pub(super) name: &'a str,
}

/// Reads the complete list.
pub(super) fn read(root: &Path) -> io::Result<String> {
    fs::read_to_string(root.join("proc/kallsyms"))
}

/// The functions in a list, in its order. Data and malformed lines are skipped.
pub(super) fn functions(list: &str) -> impl Iterator<Item = Function<'_>> {
    list.lines().filter_map(function)
}

/// Whether the kernel hides addresses from this process (`kernel.kptr_restrict`), so that no
/// function can be named. Reads only up to the first function: the complete list is large. On x86
/// kernels before 6.15 it starts with per-CPU symbols, some at address 0.
pub fn are_hidden() -> bool {
    let Ok(file) = File::open("/proc/kallsyms") else { return true };
    first_address(BufReader::new(file)).is_none_or(|address| address == 0)
}

/// The address of the first function in a list.
fn first_address(list: impl BufRead) -> Option<u64> {
    list.lines().map_while(Result::ok).find_map(|line| function(&line).map(|found| found.address))
}

fn function(line: &str) -> Option<Function<'_>> {
    let mut words = line.split_ascii_whitespace();
    let address = u64::from_str_radix(words.next()?, 16).ok()?;
    let is_code = matches!(words.next()?, "t" | "T" | "w" | "W");
    let name = words.next()?;
    is_code.then_some(Function { address, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "ffffffff81000000 T _stext\n\
        ffffffff81000100 t tcp_collapse.isra.0\n\
        ffffffff82000000 D some_data\n\
        ffffffff81000200 W weak\n\
        ffffffffc0000000 t nft_do_chain\t[nf_tables]\n\
        nonsense\n";

    #[test]
    fn only_functions_are_listed() {
        let names: Vec<_> = functions(LIST).map(|function| function.name).collect();
        assert_eq!(names, ["_stext", "tcp_collapse.isra.0", "weak", "nft_do_chain"]);
        assert_eq!(
            functions(LIST).nth(1).map(|function| function.address),
            Some(0xffff_ffff_8100_0100)
        );
    }

    #[test]
    fn symbols_before_the_first_function_are_skipped() {
        let percpu = format!("0000000000000000 A fixed_percpu_data\n{LIST}");
        assert_eq!(first_address(percpu.as_bytes()), Some(0xffff_ffff_8100_0000));
        assert_eq!(first_address(&b"0000000000000000 T _stext\n"[..]), Some(0));
        assert_eq!(first_address(&b""[..]), None);
    }
}
