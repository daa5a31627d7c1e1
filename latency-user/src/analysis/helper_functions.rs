//! Helpers: functions that do not answer "where was the time spent". Half the kernel calls them,
//! so their time belongs to their caller.

/// Name prefixes that only helpers have: no function with one of them is itself an answer.
const HELPER_PREFIXES: [&str; 64] = [
    // Entry code, and frames that may appear below an interrupted context.
    "asm_",
    "sysvec_",
    "__sysvec_",
    "common_interrupt",
    "entry_SYSCALL",
    "ret_from_",
    "irqentry_",
    // The same on Arm.
    "el0_",
    "el0t_",
    "el1_",
    "el1h_",
    // Copying, clearing and summing memory.
    "memcpy",
    "memmove",
    "memset",
    "__memcpy",
    "__memmove",
    "__memset",
    "rep_movs",
    "rep_stos",
    "copy_user_",
    "_copy_to_",
    "_copy_from_",
    "__copy_user_",
    "raw_copy_",
    "__arch_copy_",
    "clear_page",
    "csum_",
    "__csum_partial",
    // Allocating and freeing.
    "kmalloc",
    "__kmalloc",
    "kmem_cache_alloc",
    "kmem_cache_free",
    "kfree_skb",
    "__alloc_pages_noprof",
    "get_page_from_",
    "rmqueue",
    "__rmqueue",
    "free_unref_",
    "free_frozen_",
    "page_frag_",
    // Locking and counting references.
    "_raw_spin_",
    "_raw_read_",
    "_raw_write_",
    "__raw_callee_save_",
    "refcount_",
    // Locks of PREEMPT_RT.
    "rt_spin_",
    "rt_read_",
    "rt_write_",
    "rt_mutex_",
    "__rt_mutex_",
    "rtlock_",
    "migrate_disable",
    "migrate_enable",
    // Indirect calls and returns by retpolines.
    "__x86_indirect_",
    "__x86_return_",
    "srso_",
    "retbleed_",
    // Calling eBPF programs.
    "bpf_trampoline_",
    "bpf_dispatcher_",
    "bpf_trace_run",
    "__traceiter_",
    // Reading the clock.
    "ktime_get",
    "bpf_ktime_get",
    // On Arm; workarounds for errata of its timers have names of their own.
    "arch_counter_",
];

/// Helpers by exact name: other functions with the same prefix can be answers.
const HELPERS: [&str; 98] = [
    "memcmp",
    "copy_page",
    "copy_page_to_iter",
    "copy_page_from_iter",
    "skb_copy_bits",
    "skb_copy_datagram_iter",
    "skb_copy_and_csum_bits",
    "__skb_datagram_iter",
    "__copy_skb_header",
    "kfree",
    "__kfree_skb",
    "__slab_alloc",
    "___slab_alloc",
    "__slab_free",
    "slab_update_freelist",
    "put_cpu_partial",
    "alloc_pages",
    "alloc_pages_mpol",
    "alloc_pages_noprof",
    "__alloc_pages",
    "__alloc_frozen_pages_noprof",
    "free_pages",
    "__free_pages",
    "__free_pages_ok",
    "__free_one_page",
    "__free_slab",
    "put_page",
    "__put_page",
    "__folio_put",
    "skb_release_data",
    "skb_release_head_state",
    "skb_release_all",
    "skb_free_head",
    "skb_free_frag",
    "consume_skb",
    "sk_skb_reason_drop",
    "alloc_skb_with_frags",
    "__alloc_skb",
    "napi_alloc_skb",
    "__napi_alloc_skb",
    "napi_build_skb",
    "skb_set_owner_w",
    "__pv_queued_spin_unlock",
    "queued_spin_unlock",
    "native_queued_spin_unlock",
    "preempt_count_add",
    "preempt_count_sub",
    "local_bh_enable",
    "local_bh_disable",
    "__local_bh_enable_ip",
    "__local_bh_disable_ip",
    "rcu_read_lock",
    "rcu_read_unlock",
    "__rcu_read_lock",
    "__rcu_read_unlock",
    "rcu_read_unlock_strict",
    "rcu_is_watching",
    "rcu_segcblist_enqueue",
    "call_rcu",
    "call_rcu_hurry",
    "__call_rcu_common",
    "__bpf_prog_enter",
    "__bpf_prog_exit",
    "__bpf_prog_enter_recur",
    "__bpf_prog_exit_recur",
    "bpf_prog_run",
    "trace_call_bpf",
    "kprobe_perf_func",
    "kretprobe_perf_func",
    "kprobe_dispatcher",
    "kretprobe_dispatcher",
    "kprobe_ftrace_handler",
    "ftrace_trampoline",
    "ftrace_caller",
    "ftrace_regs_caller",
    "__fentry__",
    "native_sched_clock",
    "native_read_msr",
    "native_write_msr",
    "native_apic_msr_write",
    "native_apic_msr_eoi",
    "native_apic_mem_eoi",
    "native_save_fl",
    "native_irq_return_iret",
    "pv_native_save_fl",
    "read_tsc",
    "read_hpet",
    "acpi_pm_read",
    "kvm_clock_get_cycles",
    "kvm_clock_read",
    "pvclock_clocksource_read",
    "pvclock_clocksource_read_nowd",
    "xen_clocksource_get_cycles",
    "read_hv_clock_tsc_cs",
    "sched_clock",
    "sched_clock_noinstr",
    "sched_clock_cpu",
    "local_clock",
];

/// Functions in which a CPU waits for a lock. They are skipped like helpers, because the caller
/// shows which lock it is; the time in them is reported with the caller.
pub(super) const LOCK_WAITS: [&str; 12] = [
    "native_queued_spin_lock_slowpath",
    "__pv_queued_spin_lock_slowpath",
    "queued_spin_lock_slowpath",
    "resilient_queued_spin_lock_slowpath",
    "queued_read_lock_slowpath",
    "queued_write_lock_slowpath",
    "pv_wait_head_or_lock",
    "kvm_wait",
    "osq_lock",
    "mutex_spin_on_owner",
    "rwsem_spin_on_owner",
    "rtlock_slowlock_locked",
];

/// The programs of this tracer: they run in the functions that they trace, whose time it is.
const OWN_PROGRAMS: [&str; 22] = [
    "sched_switch",
    "softirq_raise",
    "softirq_entry",
    "softirq_exit",
    "net_rx_action_fentry",
    "net_rx_action_fexit",
    "net_rx_action_kprobe",
    "net_rx_action_kretprobe",
    "napi_poll",
    "napi_poll_fentry",
    "napi_poll_fexit",
    "napi_poll_kprobe",
    "napi_poll_kretprobe",
    "irq_handler_entry",
    "irq_handler_exit",
    "handle_irq_event_kprobe",
    "handle_irq_event_kretprobe",
    "tcp_collapse_fentry",
    "tcp_collapse_fexit",
    "tcp_collapse_kprobe",
    "tcp_collapse_kretprobe",
    "napi_gro_receive_entry",
];

/// Prefix of the functions of eBPF programs.
const BPF: &str = "bpf:";

/// Bytes of a program's name that the kernel keeps if its functions have no types.
const SHORT_NAME: usize = 15;

/// Kernel functions that call functions of an eBPF program back.
const BPF_CALLERS: [&str; 8] = [
    "bpf_loop",
    "bpf_for_each_map_elem",
    "bpf_for_each_array_elem",
    "bpf_for_each_hash_elem",
    "__bpf_for_each_array_elem",
    "bpf_find_vma",
    "bpf_user_ringbuf_drain",
    "bpf_timer_cb",
];

/// Whether a frame is a function of an eBPF program.
pub(super) fn is_bpf(frame: &str) -> bool {
    frame.starts_with(BPF)
}

/// Whether a frame calls functions of an eBPF program back.
pub(super) fn calls_back_bpf(frame: &str) -> bool {
    BPF_CALLERS.contains(&frame)
}

/// Whether a frame is a program of this tracer.
pub(crate) fn is_own_program(frame: &str) -> bool {
    let Some(name) = frame.strip_prefix(BPF) else { return false };
    OWN_PROGRAMS.iter().any(|own| *own == name || own.get(..SHORT_NAME) == Some(name))
}

/// Whether a function is skipped in favour of its caller.
pub(super) fn is_helper(frame: &str) -> bool {
    // Position-independent copies of functions for early boot share their names.
    let frame = frame.strip_prefix("__pi_").unwrap_or(frame);
    HELPERS.contains(&frame)
        || LOCK_WAITS.contains(&frame)
        || HELPER_PREFIXES.iter().any(|prefix| frame.starts_with(prefix))
}
