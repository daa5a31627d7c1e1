//! Names for addresses in the kernel: `/proc/kallsyms`, eBPF programs included.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    time::{Duration, Instant},
};

/// Where the kernel lists its symbols.
const PATH: &str = "/proc/kallsyms";

/// How old a table must be before an address that it does not have is a reason to read it again:
/// modules and eBPF programs come and go.
const STALE: Duration = Duration::from_secs(10);

/// No function is longer, bytes: what lies further behind a symbol belongs to one that the table
/// does not have, such as a module's that was loaded later.
const LONGEST_FUNCTION: u64 = 1 << 20;

/// The kernel's functions by their addresses; read when the first name is asked for.
#[derive(Default)]
pub struct Addresses {
    /// Rising addresses, with where the name stands in `text`.
    functions: Vec<(u64, u32, u16)>,
    text: String,
    read_at: Option<Instant>,
}

/// Whether the kernel hides addresses from this process (`kernel.kptr_restrict`), so that no
/// function can be named. Looks at the first function only: the whole table is large, and begins
/// with per-CPU symbols, some at 0, on kernels of x86 before 6.15.
pub fn are_hidden() -> bool {
    let Ok(file) = File::open(PATH) else { return true };
    first_function(BufReader::new(file)).is_none_or(|address| address == 0)
}

/// The address of the first function of a table.
fn first_function(table: impl BufRead) -> Option<u64> {
    table.lines().map_while(Result::ok).find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let address = u64::from_str_radix(words.next()?, 16).ok()?;
        matches!(words.next()?, "t" | "T").then_some(address)
    })
}

impl Addresses {
    /// Names of the functions of a stack, deepest first. An address without one stays a number.
    pub fn frames(&mut self, addresses: &[u64]) -> Vec<String> {
        let is_old = self.read_at.is_none_or(|at| at.elapsed() >= STALE);
        if is_old && addresses.iter().any(|address| self.name(*address).is_none()) {
            self.read();
        }
        let name = |(depth, address): (usize, &u64)| {
            // All but the deepest are return addresses, which may lie behind their function.
            let address = address.wrapping_sub(u64::from(depth > 0));
            self.name(address).map_or_else(|| format!("{address:#x}"), readable)
        };
        addresses.iter().enumerate().map(name).collect()
    }

    fn name(&self, address: u64) -> Option<&str> {
        let at = self.functions.partition_point(|(start, ..)| *start <= address).checked_sub(1)?;
        let (start, from, length) = self.functions[at];
        if address - start > LONGEST_FUNCTION {
            return None;
        }
        let from = from as usize;
        self.text.get(from..from + usize::from(length))
    }

    fn read(&mut self) {
        self.read_at = Some(Instant::now());
        // Without the file addresses stay numbers, which `are_hidden` tells of.
        if let Ok(text) = fs::read_to_string(PATH) {
            *self = Self { read_at: self.read_at, ..Self::parse(text) };
        }
    }

    /// Lines such as `ffffffff81000000 T _stext [module]`; data and hidden addresses are left out.
    fn parse(text: String) -> Self {
        let mut functions = Vec::new();
        let base = text.as_ptr() as usize;
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(address), Some(kind), Some(name)) =
                (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let Ok(address) = u64::from_str_radix(address, 16) else { continue };
            if address == 0 || !matches!(kind, "t" | "T" | "w" | "W") {
                continue;
            }
            let from = name.as_ptr() as usize - base;
            if let (Ok(from), Ok(length)) = (u32::try_from(from), u16::try_from(name.len())) {
                functions.push((address, from, length));
            }
        }
        // Stable: of several names of one address the first one listed stays.
        functions.sort_by_key(|(address, ..)| *address);
        functions.dedup_by_key(|(address, ..)| *address);
        functions.shrink_to_fit();
        Self { functions, text, read_at: None }
    }
}

/// Without the tag that the kernel puts before the names of eBPF programs
/// (`bpf_prog_6deef7357e7b4530_name` is `bpf:name`), and without the compiler's suffixes.
fn readable(name: &str) -> String {
    let tagged = name.strip_prefix("bpf_prog_").and_then(|rest| rest.split_once('_'));
    match tagged {
        Some((tag, name)) if tag.len() == 16 => format!("bpf:{name}"),
        _ => name.split('.').next().unwrap_or(name).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "ffffffff81000000 T _stext\n\
        ffffffff81000000 T alias\n\
        ffffffff81000100 t tcp_collapse.isra.0\n\
        ffffffff82000000 D some_data\n\
        ffffffffc0000000 t nft_do_chain\t[nf_tables]\n\
        ffffffffc0001000 t bpf_prog_6deef7357e7b4530_stall_injector\t[bpf]\n\
        nonsense\n";

    #[test]
    fn frames_have_the_name_of_the_function_around_them() {
        let mut addresses = Addresses::parse(TEXT.into());
        addresses.read_at = Some(Instant::now());
        let frames = addresses.frames(&[
            0xffff_ffff_8100_0100,
            0xffff_ffff_c000_0010,
            0xffff_ffff_c000_1000,
            0xffff_ffff_c000_1008,
            0x10,
        ]);
        // A call at the end of a function returns to the begin of the next.
        let expected =
            ["tcp_collapse", "nft_do_chain", "nft_do_chain", "bpf:stall_injector", "0xf"];
        assert_eq!(frames, expected);
    }

    #[test]
    fn far_behind_a_symbol_is_another_function() {
        let mut addresses = Addresses::parse(TEXT.into());
        addresses.read_at = Some(Instant::now());
        assert_eq!(addresses.frames(&[0xffff_ffff_c020_0000]), ["0xffffffffc0200000"]);
    }

    #[test]
    fn symbols_before_the_first_function_tell_nothing() {
        let percpu = format!("0000000000000000 A fixed_percpu_data\n{TEXT}");
        assert_eq!(first_function(percpu.as_bytes()), Some(0xffff_ffff_8100_0000));
        assert_eq!(first_function(&b"0000000000000000 T _stext\n"[..]), Some(0));
        assert_eq!(first_function(&b""[..]), None);
    }

    #[test]
    fn hidden_addresses_are_no_names() {
        let hidden = "0000000000000000 T _stext\n0000000000000000 t tcp_collapse\n";
        let mut addresses = Addresses::parse(hidden.into());
        addresses.read_at = Some(Instant::now());
        assert_eq!(addresses.frames(&[7]), ["0x7"]);
    }
}
