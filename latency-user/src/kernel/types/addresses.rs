//! Resolves kernel addresses to function names, including modules and eBPF programs.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use super::kallsyms;

/// Minimum age of the table before it is read again because an address has no name in it or the
/// modules have changed.
const STALE: Duration = Duration::from_secs(10);

/// How often to check whether the modules have changed. Until then, functions of a new module may
/// be resolved to the last function of the module before it in memory.
const MODULES_CHECK: Duration = Duration::from_secs(1);

/// Maximum length of a function, bytes. An address further after a symbol belongs to a function
/// that is not in the table, such as an eBPF program loaded later.
const LONGEST_FUNCTION: u64 = 1 << 20;

/// The kernel's functions by address; read when the first name is needed.
pub struct Addresses {
    root: PathBuf,
    table: Table,
    /// Names and addresses of modules when the table was read; see [`Self::modules`].
    modules: String,
    read_at: Option<Instant>,
    checked_at: Option<Instant>,
}

impl Default for Addresses {
    fn default() -> Self {
        Self::of(PathBuf::from("/"))
    }
}

impl Addresses {
    /// Addresses of the kernel whose `/proc` is below `root`.
    fn of(root: PathBuf) -> Self {
        let (table, modules) = (Table::default(), String::new());
        Self { root, table, modules, read_at: None, checked_at: None }
    }

    /// Function names of a stack, innermost first. An address without a name stays a number.
    pub fn frames(&mut self, addresses: &[u64]) -> Vec<String> {
        self.frames_at(Instant::now(), addresses)
    }

    fn frames_at(&mut self, now: Instant, addresses: &[u64]) -> Vec<String> {
        let since = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
        if since(self.read_at).is_none_or(|age| age >= STALE) {
            let unnamed = addresses.iter().any(|address| self.table.name(*address).is_none());
            let check = since(self.checked_at).is_none_or(|ago| ago >= MODULES_CHECK);
            let modules = check.then(|| self.modules());
            if check {
                self.checked_at = Some(now);
            }
            if unnamed || modules.is_some_and(|modules| modules != self.modules) {
                self.read(now);
            }
        }
        let name = |(depth, address): (usize, &u64)| {
            // All but the innermost are return addresses, which may be just after their function.
            let address = address.wrapping_sub(u64::from(depth > 0));
            self.table.name(address).map_or_else(|| format!("{address:#x}"), readable)
        };
        addresses.iter().enumerate().map(name).collect()
    }

    fn read(&mut self, now: Instant) {
        self.read_at = Some(now);
        self.modules = self.modules();
        // Without the file, addresses stay numbers; `kallsyms::are_hidden` reports this.
        if let Ok(text) = kallsyms::read(&self.root) {
            self.table = Table::parse(text);
        }
    }

    /// Names and addresses of all modules, without their use counts, which change often. Empty if
    /// the kernel has no modules.
    fn modules(&self) -> String {
        let list = fs::read_to_string(self.root.join("proc/modules")).unwrap_or_default();
        list.lines()
            .map(|line| {
                let mut words = line.split(' ');
                let (name, address) = (words.next(), words.nth(4));
                format!("{} {}\n", name.unwrap_or_default(), address.unwrap_or_default())
            })
            .collect()
    }
}

/// Functions by ascending address, with offset and length of each name in `text`.
#[derive(Default)]
struct Table {
    functions: Vec<(u64, u32, u16)>,
    text: String,
}

impl Table {
    fn name(&self, address: u64) -> Option<&str> {
        let at = self.functions.partition_point(|(start, ..)| *start <= address).checked_sub(1)?;
        let (start, from, length) = self.functions[at];
        if address - start > LONGEST_FUNCTION {
            return None;
        }
        let from = from as usize;
        self.text.get(from..from + usize::from(length))
    }

    /// Parses a symbol list; functions with hidden addresses are skipped.
    fn parse(text: String) -> Self {
        let mut functions = Vec::new();
        let base = text.as_ptr() as usize;
        for kallsyms::Function { address, name } in kallsyms::functions(&text) {
            let from = name.as_ptr() as usize - base;
            if let (1.., Ok(from), Ok(length)) =
                (address, u32::try_from(from), u16::try_from(name.len()))
            {
                functions.push((address, from, length));
            }
        }
        // Stable: of several names of one address the first one listed is kept.
        functions.sort_by_key(|(address, ..)| *address);
        functions.dedup_by_key(|(address, ..)| *address);
        functions.shrink_to_fit();
        Self { functions, text }
    }
}

/// Shortens a symbol: removes the compiler's suffixes, and the tag that the kernel puts before
/// names of eBPF programs (`bpf_prog_6deef7357e7b4530_name` becomes `bpf:name`).
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

    fn names(text: &str, addresses: &[u64]) -> Vec<String> {
        let mut all = Addresses::of("/nonexistent".into());
        all.table = Table::parse(text.into());
        all.frames(addresses)
    }

    #[test]
    fn frames_are_named_after_the_enclosing_function() {
        let frames = names(
            TEXT,
            &[
                0xffff_ffff_8100_0100,
                0xffff_ffff_c000_0010,
                0xffff_ffff_c000_1000,
                0xffff_ffff_c000_1008,
                0x10,
            ],
        );
        // A call at the end of a function returns to the start of the next.
        let expected =
            ["tcp_collapse", "nft_do_chain", "nft_do_chain", "bpf:stall_injector", "0xf"];
        assert_eq!(frames, expected);
    }

    #[test]
    fn addresses_far_after_a_symbol_are_unnamed() {
        assert_eq!(names(TEXT, &[0xffff_ffff_c020_0000]), ["0xffffffffc0200000"]);
    }

    #[test]
    fn hidden_addresses_have_no_names() {
        let hidden = "0000000000000000 T _stext\n0000000000000000 t tcp_collapse\n";
        assert_eq!(names(hidden, &[7]), ["0x7"]);
    }

    #[test]
    fn a_module_that_is_loaded_later_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let proc = directory.path().join("proc");
        fs::create_dir(&proc).unwrap();
        let write = |symbols: &str, modules: &str| {
            fs::write(proc.join("kallsyms"), symbols).unwrap();
            fs::write(proc.join("modules"), modules).unwrap();
        };
        let first = "nf_tables 300 1 - Live 0xffffffffc0000000\n";
        write(TEXT, first);
        let mut addresses = Addresses::of(directory.path().to_owned());
        // After the last function of the first module, and inside the second one.
        let address = [0xffff_ffff_c000_2010];
        let start = Instant::now();
        assert_eq!(addresses.frames_at(start, &address), ["bpf:stall_injector"]);

        let text = format!("{TEXT}ffffffffc0002000 t virtnet_poll\t[virtio_net]\n");
        // A changed use count is not a changed module.
        write(&text, &first.replace(" 1 ", " 2 "));
        assert_eq!(addresses.frames_at(start + STALE, &address), ["bpf:stall_injector"]);
        write(&text, &format!("virtio_net 200 0 - Live 0xffffffffc0002000\n{first}"));
        assert_eq!(addresses.frames_at(start + STALE, &address), ["bpf:stall_injector"]);
        assert_eq!(addresses.frames_at(start + STALE + MODULES_CHECK, &address), ["virtnet_poll"]);
    }
}
