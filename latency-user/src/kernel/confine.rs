//! Giving up privileges that are not needed any more, for the rest of the process's life.
//!
//! Capabilities that nothing needs are dropped, from the bounding set too, and no program that is
//! started can gain any. A filter of system calls (seccomp) then refuses what this program does not
//! do: `trace` opens nothing for writing, loads and starts nothing, and enters no namespace. What it
//! names stalls by, other processes' namespaces and sockets, is still read; a Landlock domain would
//! forbid that, so there is none.

use std::{collections::BTreeMap, io};

use anyhow::{Context, Result};
use caps::{CapSet, Capability};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// What a process still has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// To follow programs that are attached.
    Trace {
        /// Whether it may have to end a command that it started.
        command: bool,
    },
    /// To follow programs that are attached, and to answer.
    Serve {
        /// Whether it attaches them anew now and then.
        again: bool,
    },
    /// To change settings, and to attach programs again and again.
    Experiment {
        /// Whether some of the settings are of the network.
        network: bool,
    },
}

/// A capability that is kept, and what for.
pub type Kept = (Capability, &'static str);

impl Task {
    /// The capabilities that it needs.
    pub fn needed(self) -> Vec<Kept> {
        if self == (Self::Serve { again: false }) {
            return Vec::new();
        }
        let mut needed = vec![
            (Capability::CAP_SYS_ADMIN, "run-time statistics of eBPF programs"),
            (Capability::CAP_BPF, "eBPF maps"),
            (Capability::CAP_SYSLOG, "addresses of modules loaded later"),
            (Capability::CAP_SYS_PTRACE, "network namespaces of processes"),
            (Capability::CAP_DAC_READ_SEARCH, "sockets of processes"),
        ];
        match self {
            Self::Trace { command: false } => {}
            Self::Trace { command: true } => {
                needed.push((Capability::CAP_KILL, "ending the command"));
            }
            Self::Serve { .. } => needed.extend([
                (Capability::CAP_PERFMON, "attaching programs anew"),
                (Capability::CAP_SYS_RESOURCE, "locked memory for maps before Linux 5.11"),
            ]),
            Self::Experiment { network } => {
                needed.extend([
                    (Capability::CAP_PERFMON, "attaching programs for each window"),
                    (Capability::CAP_DAC_OVERRIDE, "files in directories of other users"),
                    (Capability::CAP_SYS_RESOURCE, "locked memory for maps before Linux 5.11"),
                ]);
                if network {
                    needed.push((Capability::CAP_NET_ADMIN, "settings of the network"));
                }
            }
        }
        needed
    }

    /// System calls that it never makes.
    fn refused(self) -> Vec<libc::c_long> {
        let mut calls = vec![
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_delete_module,
            libc::SYS_kexec_load,
            libc::SYS_reboot,
            libc::SYS_swapon,
            libc::SYS_swapoff,
            libc::SYS_pivot_root,
            libc::SYS_chroot,
            libc::SYS_open_by_handle_at,
            libc::SYS_add_key,
            libc::SYS_keyctl,
            libc::SYS_request_key,
            libc::SYS_userfaultfd,
            libc::SYS_setuid,
            libc::SYS_setgid,
            libc::SYS_setgroups,
            libc::SYS_settimeofday,
            libc::SYS_clock_settime,
            libc::SYS_acct,
        ];
        if matches!(self, Self::Trace { .. }) {
            calls.extend([
                libc::SYS_execve,
                libc::SYS_execveat,
                libc::SYS_mount,
                libc::SYS_umount2,
                libc::SYS_setns,
                libc::SYS_unshare,
                libc::SYS_openat2,
                libc::SYS_unlinkat,
                libc::SYS_renameat,
                libc::SYS_renameat2,
                libc::SYS_linkat,
                libc::SYS_symlinkat,
                libc::SYS_mkdirat,
                libc::SYS_mknodat,
                libc::SYS_fchmodat,
                libc::SYS_fchownat,
                libc::SYS_truncate,
                libc::SYS_perf_event_open,
            ]);
            #[cfg(target_arch = "x86_64")]
            calls.extend([
                libc::SYS_creat,
                libc::SYS_unlink,
                libc::SYS_rename,
                libc::SYS_link,
                libc::SYS_symlink,
                libc::SYS_mkdir,
                libc::SYS_rmdir,
                libc::SYS_mknod,
                libc::SYS_chmod,
                libc::SYS_chown,
                libc::SYS_lchown,
            ]);
        }
        calls
    }
}

/// Flags of `open` that let a file be changed.
const WRITING: [libc::c_int; 4] = [libc::O_WRONLY, libc::O_RDWR, libc::O_CREAT, libc::O_TRUNC];

/// Commands of `bpf` that load, attach or pin something (`linux/bpf.h`): `BPF_MAP_CREATE`,
/// `PROG_LOAD`, `OBJ_PIN`, `PROG_ATTACH`, `PROG_TEST_RUN`, `BTF_LOAD`, `LINK_CREATE`,
/// `LINK_UPDATE`, `PROG_BIND_MAP`, `TOKEN_CREATE`. Not `RAW_TRACEPOINT_OPEN`: the packet probe,
/// loaded before, comes and goes.
const LOADING: [u64; 10] = [0, 5, 6, 8, 10, 18, 28, 29, 35, 36];

/// Confines all threads of this process. Returns the capabilities that are left.
///
/// # Errors
///
/// When the kernel refuses a part of it, as without `CONFIG_SECCOMP_FILTER`. Parts before it are in
/// effect.
pub fn confine(task: Task) -> Result<Vec<Kept>> {
    let kept = keep(&task.needed()).context("drop capabilities")?;
    // SAFETY: sets a flag of this thread; no memory is touched.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error()).context("give up new privileges");
    }
    let filter = filter(task).context("build the filter of system calls")?;
    let program: BpfProgram = filter.try_into().context("build the filter of system calls")?;
    seccompiler::apply_filter_all_threads(&program).context("filter system calls")?;
    Ok(kept)
}

/// Whether this kernel filters system calls.
pub fn can_filter() -> bool {
    let actions = std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail");
    actions.is_ok_and(|actions| actions.split_whitespace().any(|action| action == "errno"))
}

/// Drops all capabilities of this thread, which only writes to open files.
///
/// # Errors
///
/// When the kernel refuses.
pub fn drop_all() -> Result<()> {
    keep(&[]).map(drop)
}

fn keep(needed: &[Kept]) -> Result<Vec<Kept>> {
    let has = |capability: &Capability| {
        caps::has_cap(None, CapSet::Permitted, *capability).unwrap_or(false)
    };
    let kept: Vec<Kept> =
        needed.iter().filter(|(capability, _)| has(capability)).copied().collect();
    let is_kept = |capability: &Capability| kept.iter().any(|(other, _)| other == capability);
    for capability in caps::all().iter().filter(|capability| !is_kept(capability)) {
        // Without CAP_SETPCAP, programs that are started are kept from it by the flag alone.
        let _ = caps::drop(None, CapSet::Bounding, *capability);
    }
    let left = kept.iter().map(|(capability, _)| *capability).collect();
    caps::set(None, CapSet::Ambient, &Default::default()).ok();
    caps::set(None, CapSet::Effective, &left)?;
    caps::set(None, CapSet::Permitted, &left)?;
    caps::set(None, CapSet::Inheritable, &Default::default())?;
    Ok(kept)
}

fn filter(task: Task) -> Result<SeccompFilter, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        task.refused().into_iter().map(|call| (call, Vec::new())).collect();
    let when = |argument, operator, value| {
        let length = SeccompCmpArgLen::Dword;
        SeccompRule::new(vec![SeccompCondition::new(argument, length, operator, value)?])
    };
    if matches!(task, Task::Trace { .. }) {
        let writing = |argument| {
            WRITING
                .iter()
                .map(|flag| *flag as u64)
                .map(|flag| when(argument, SeccompCmpOp::MaskedEq(flag), flag))
                .collect::<Result<Vec<_>, _>>()
        };
        rules.insert(libc::SYS_openat, writing(2)?);
        #[cfg(target_arch = "x86_64")]
        rules.insert(libc::SYS_open, writing(1)?);
    }
    if matches!(task, Task::Trace { .. } | Task::Serve { again: false }) {
        let loading = LOADING.iter().map(|command| when(0, SeccompCmpOp::Eq, *command));
        rules.insert(libc::SYS_bpf, loading.collect::<Result<_, _>>()?);
    }
    // Typing into the terminal that this process was started from.
    let typing = [libc::TIOCSTI, 0x541c].map(|request| when(1, SeccompCmpOp::Eq, request));
    rules.insert(libc::SYS_ioctl, typing.into_iter().collect::<Result<_, _>>()?);
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let architecture = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, architecture)
}
