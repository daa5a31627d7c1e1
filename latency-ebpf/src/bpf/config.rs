//! Settings of a run. The loader sets them before the programs are loaded and the kernel freezes
//! them, so the verifier knows their values and removes the branches that they disable.

use core::cell::UnsafeCell;

use aya_ebpf::Global;
use latency_common::stage::Stage;

macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident: $kind:ty = $default:expr;)*) => {
        $($(#[$doc])*
        #[unsafe(no_mangle)]
        pub(crate) static $name: Global<$kind> = Global::new($default);)*
    };
}

settings! {
    /// Stages that are timed, by any method: [`Stage::bit`]s.
    STAGES: u32 = 0;
    /// Stages that are timed by tracepoints.
    TRACEPOINT_STAGES: u32 = 0;
    /// Minimum duration of a stall, ns.
    THRESHOLD_NS: u64 = 1_000_000;
    /// Count events in rows.
    COUNT_IN_ROWS: u32 = 1;
    /// Send events through the ring buffer.
    SEND_EVENTS: u32 = 0;
    /// Unread bytes in the event ring buffer above which its reader is woken.
    WAKE_AT_BYTES: u64 = 0;
    /// Stalls and slow collapses that a CPU may report in one second.
    RECORDS_PER_SECOND: u64 = 0;
    /// Unread bytes in the stall ring buffer above which its reader is woken.
    RECORDS_WAKE_AT_BYTES: u64 = 0;
    /// Whether user space is woken by stalls of CPUs without a sampling clock, to start one.
    WAKE_FOR_CLOCK: u32 = 0;
    /// Spans in progress at least this long are sampled, ns.
    SAMPLE_AFTER_NS: u64 = 0;
    /// Minimum distance of two ticks of the sampler that counts cycles, ns.
    MIN_TICK_NS: u64 = 0;
    /// Minimum duration of `tcp_collapse` calls that are reported with their socket, ns.
    COLLAPSE_THRESHOLD_NS: u64 = 500_000;
    /// Whether softirqs run in tasks that can be preempted (PREEMPT_RT).
    PREEMPTIBLE_SOFTIRQS: u32 = 0;
    /// Whether the kernel has atomic operations that return a value.
    FETCH_ATOMICS: u32 = 1;
    /// Rows in the block of each CPU.
    ROWS_PER_CPU: u32 = 0;
    /// Index of the first slot's row.
    SLOT_BASE: u32 = 0;
    /// Number of slots.
    SLOTS: u32 = 0;
}

/// Stages that were disabled during the run, because they cost too much: [`Stage::bit`]s. The only
/// setting that user space changes while programs run.
#[unsafe(no_mangle)]
static DISABLED_STAGES: DisabledStages = DisabledStages(UnsafeCell::new(0));

#[repr(transparent)]
struct DisabledStages(UnsafeCell<u32>);

// SAFETY: written by user space only, and read with a single load.
unsafe impl Sync for DisabledStages {}

/// Whether user space disabled `stage` (--max-overhead). Needed only by programs shared with other
/// stages; the stage's own programs are detached.
#[inline(always)]
pub(crate) fn is_disabled(stage: Stage) -> bool {
    // SAFETY: the static is valid; volatile because user space changes it.
    unsafe { DISABLED_STAGES.0.get().read_volatile() & stage.bit() != 0 }
}

/// Whether `stage` is timed at all.
#[inline(always)]
pub(crate) fn is_on(stage: Stage) -> bool {
    STAGES.load() & stage.bit() != 0
}

/// Whether `stage` is timed by tracepoints.
#[inline(always)]
pub(crate) fn by_tracepoint(stage: Stage) -> bool {
    TRACEPOINT_STAGES.load() & stage.bit() != 0
}
