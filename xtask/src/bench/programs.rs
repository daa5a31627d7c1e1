//! BPF programs of a process as the kernel reports them: ids, number of runs, run time.
//!
//! Run-time statistics are on while [`Statistics`] lives, and go off when the process ends, however
//! it ends: no setting of the machine is changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::fd::{FromRawFd, OwnedFd},
    path::Path,
};

use anyhow::{Context, Result};

/// `BPF_ENABLE_STATS` of `enum bpf_cmd`; the only kind of statistics is 0.
const BPF_ENABLE_STATS: libc::c_long = 32;

/// Keeps run-time statistics of all programs of the machine switched on.
pub(crate) struct Statistics {
    _descriptor: OwnedFd,
}

impl Statistics {
    pub(crate) fn enable() -> Result<Self> {
        let kind: u32 = 0;
        // SAFETY: the kernel reads the four bytes of the attribute, which outlives the call.
        let descriptor = unsafe {
            libc::syscall(libc::SYS_bpf, BPF_ENABLE_STATS, &raw const kind, size_of::<u32>())
        };
        if descriptor < 0 {
            return Err(io::Error::last_os_error())
                .context("cannot enable the run-time statistics of BPF programs");
        }
        // SAFETY: the kernel just gave us this descriptor.
        Ok(Self { _descriptor: unsafe { OwnedFd::from_raw_fd(descriptor as libc::c_int) } })
    }
}

/// Runs and run time of a program since it was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Runs {
    pub(crate) runs: u64,
    pub(crate) ns: u64,
}

/// By program id.
pub(crate) type Programs = BTreeMap<u32, Runs>;

/// The programs of which process `id` holds descriptors.
pub(crate) fn of_process(id: u32) -> Result<Programs> {
    let directory = Path::new("/proc").join(id.to_string()).join("fdinfo");
    let entries =
        directory.read_dir().with_context(|| format!("cannot read {}", directory.display()))?;
    // A descriptor may be closed after it was listed and before it is read.
    let texts = entries.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    Ok(texts.filter_map(|text| parse(&text)).collect())
}

/// Runs and run time from `earlier` to `later`, summed over all programs.
pub(crate) fn since(later: &Programs, earlier: &Programs) -> Runs {
    let mut sum = Runs::default();
    for (id, runs) in later {
        let before = earlier.get(id).copied().unwrap_or_default();
        sum.runs += runs.runs.saturating_sub(before.runs);
        sum.ns += runs.ns.saturating_sub(before.ns);
    }
    sum
}

/// The instructions of a program that returns 0 and nothing else: such ones may be held without
/// ever being attached, as a sign that a tracer runs.
const INSTRUCTIONS_OF_A_SIGN: u64 = 2;

/// `BPF_PROG_TYPE_PERF_EVENT` of `enum bpf_prog_type`: programs of clocks and counters.
const OF_PERF_EVENTS: u64 = 7;

/// A tracer may keep so many programs for later: ours has one that it attaches while queues have no
/// name.
const SPARE: usize = 1;

/// Whether a process has attached the programs that it holds and that do something, or holds perf
/// events only. Programs of perf events do not count: they may be attached without a link.
pub(crate) fn traces(id: u32) -> bool {
    let process = Path::new("/proc").join(id.to_string());
    let entries = |directory: &str| {
        process.join(directory).read_dir().into_iter().flatten().filter_map(Result::ok)
    };
    let texts: Vec<String> =
        entries("fdinfo").filter_map(|entry| fs::read_to_string(entry.path()).ok()).collect();
    let linked: BTreeSet<u32> = texts.iter().filter_map(|text| linked_program(text)).collect();
    if linked.is_empty() {
        let mut targets = entries("fd").filter_map(|entry| fs::read_link(entry.path()).ok());
        return targets.any(|target| target.as_os_str() == "anon_inode:[perf_event]");
    }
    let held: BTreeSet<u32> = texts.iter().filter_map(|text| to_attach(text)).collect();
    held.difference(&linked).count() <= SPARE
}

/// The program of a descriptor, if it does something.
fn to_attach(fdinfo: &str) -> Option<u32> {
    let (program, _) = parse(fdinfo)?;
    let is_sign = field(fdinfo, "verified_insns") == Some(INSTRUCTIONS_OF_A_SIGN);
    let may_lack_a_link = field(fdinfo, "prog_type") == Some(OF_PERF_EVENTS);
    (!is_sign && !may_lack_a_link).then_some(program)
}

/// Number of open descriptors of a process; 0 when it is gone.
pub(crate) fn descriptors(id: u32) -> usize {
    let directory = Path::new("/proc").join(id.to_string()).join("fd");
    directory.read_dir().map_or(0, Iterator::count)
}

/// A program's id and runs from the fdinfo of its descriptor; `None` for other descriptors,
/// including links to programs.
fn parse(fdinfo: &str) -> Option<(u32, Runs)> {
    let runs = Runs { runs: field(fdinfo, "run_cnt")?, ns: field(fdinfo, "run_time_ns")? };
    Some((u32::try_from(field(fdinfo, "prog_id")?).ok()?, runs))
}

/// The program that a link attaches, from the fdinfo of its descriptor; `None` for other
/// descriptors.
fn linked_program(fdinfo: &str) -> Option<u32> {
    field(fdinfo, "link_id")?;
    u32::try_from(field(fdinfo, "prog_id")?).ok()
}

fn field(fdinfo: &str, name: &str) -> Option<u64> {
    let line = fdinfo.lines().find_map(|line| line.strip_prefix(name))?;
    line.strip_prefix(':')?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_parsed_and_links_are_not() {
        let program = "pos:\t0\nflags:\t02000002\nmnt_id:\t16\nino:\t1057\nprog_type:\t17\n\
                       prog_jited:\t1\nprog_tag:\tb6a33c5d1a3a4a3b\nmemlock:\t4096\nprog_id:\t10469\n\
                       run_time_ns:\t4711\nrun_cnt:\t23\nrecursion_misses:\t0\nverified_insns:\t42\n";
        assert_eq!(parse(program), Some((10469, Runs { runs: 23, ns: 4711 })));
        let link = "pos:\t0\nlink_type:\traw_tracepoint\nlink_id:\t5896\nprog_id:\t10469\n";
        assert_eq!(parse(link), None);
        assert_eq!((linked_program(program), linked_program(link)), (None, Some(10469)));
        let sign = program.replace("verified_insns:\t42", "verified_insns:\t2");
        let clock = program.replace("prog_type:\t17", "prog_type:\t7");
        assert_eq!(to_attach(program), Some(10469));
        assert_eq!((to_attach(&sign), to_attach(&clock)), (None, None));
    }

    #[test]
    fn programs_loaded_later_count_from_zero() {
        let earlier = Programs::from([(1, Runs { runs: 10, ns: 1000 })]);
        let later =
            Programs::from([(1, Runs { runs: 13, ns: 1300 }), (2, Runs { runs: 5, ns: 70 })]);
        assert_eq!(since(&later, &earlier), Runs { runs: 8, ns: 370 });
    }
}
