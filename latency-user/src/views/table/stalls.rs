//! The worst stalls and where their time was spent, in sentences.

use latency_common::stage::Stage;

use crate::{
    model::{
        ledger::RecordCounts,
        run::{Sampling, SelectedProbe},
        series::labels::Labels,
        stall::{
            Stall,
            collapse::{SocketOwner, SocketTotal},
            parts::{Interference, NetRxParts},
        },
        summary::Summary,
        tcp_pressure::TcpPressure,
    },
    views::{
        Style,
        format::{bytes, count, counted, duration},
        stall_time,
        text::{paragraph, printable},
    },
};

/// Stalls described individually.
const LISTED: usize = 5;

/// Functions of one stall, and of all of them.
const FUNCTIONS: usize = 3;
const ALL_FUNCTIONS: usize = 6;

/// Sockets listed.
const SOCKETS: usize = 5;

/// The culprits in one sentence for the top of the table; `None` without samples of stalls.
pub(super) fn culprit_sentence(summary: &Summary) -> Option<String> {
    let stalls = &summary.stalls;
    let time = stalls.time.unwrap_or_default();
    let is_sampled = summary.run.sampling.hz > 0 && time.stalled_ns > 0;
    if stalls.culprits.is_empty() && !is_sampled {
        let unclocked = (time.unclocked_ns > 0).then(|| duration(time.unclocked_ns))?;
        return Some(format!("Culprits: unknown: {unclocked} of stalls before the clock ran."));
    }
    let before = match time.unclocked_ns {
        0 => String::new(),
        ns => format!(", {} of stalls before the clock ran", duration(ns)),
    };
    let of = match time.stalled_ns {
        0 => String::new(),
        ns => format!("of {} of stalls, ", duration(ns)),
    };
    Some(format!(
        "Culprits: {} ({of}{}{before}).",
        stall_time::text(&stalls.culprits, &time, ALL_FUNCTIONS),
        counted(stalls.samples, "sample")
    ))
}

/// What the hypervisor took, where it took something or stalls need an explanation.
pub(super) fn steal_sentence(summary: &Summary) -> Option<String> {
    let time = summary.stalls.time.unwrap_or_default();
    stall_time::steal(summary.stalls.steal.as_deref(), &time, summary.run.duration_s)
}

/// Writes the worst stalls, the sockets, and TCP's counters.
pub(super) fn write(text: &mut String, summary: &Summary, style: Style) {
    let stalls = &summary.stalls;
    if !stalls.worst.is_empty() {
        paragraph(text, "\nWorst stalls", 2, style, Style::bold);
    }
    for stall in without_parts(&stalls.worst).take(LISTED) {
        paragraph(
            text,
            &format!("  {}", describe_stall(stall, &summary.run.sampling)),
            4,
            style,
            Style::plain,
        );
    }
    if !stalls.worst.is_empty() {
        for note in &summary.run.sampling.notes {
            let line = format!("  note: {}", printable(&note.to_string()));
            paragraph(text, &line, 4, style, Style::dim);
        }
    }
    if !stalls.sockets.is_empty() {
        paragraph(text, "\nSockets behind slow calls of tcp_collapse", 2, style, Style::bold);
    }
    for socket in stalls.sockets.iter().take(SOCKETS) {
        paragraph(text, &format!("  {}", describe_socket(socket)), 4, style, Style::plain);
    }
    if !stalls.tcp.is_empty() {
        paragraph(text, "\nTCP receive buffers", 2, style, Style::bold);
    }
    for pressure in &stalls.tcp {
        paragraph(text, &format!("  {}", describe_pressure(pressure)), 4, style, Style::plain);
    }
    let collapse = summary.run.probes.iter().find(|probe| probe.stage == Stage::TcpCollapse);
    if let (false, Some(SelectedProbe { method: None, .. })) = (stalls.tcp.is_empty(), collapse) {
        let gap = "  tcp_collapse itself is not timed here, so its sockets have no names: the \
                   culprits and these counters are what can be known.";
        paragraph(text, gap, 4, style, Style::plain);
    }
}

/// The stalls without polls and calls that are inside another listed stall.
pub(in crate::views) fn without_parts(stalls: &[Stall]) -> impl Iterator<Item = &Stall> {
    stalls.iter().filter(|stall| {
        !stalls.iter().any(|other| {
            other.stage == Stage::NetRx
                && stall.stage != Stage::NetRx
                && other.cpu == stall.cpu
                && other.start_ns <= stall.start_ns
                && stall.end_ns <= other.end_ns
        })
    })
}

/// `21.4ms net_rx on CPU 1, ended 03:04:05.912Z: polled eth0 q2 21.3ms (1 of 64 packets), ...`
fn describe_stall(stall: &Stall, sampling: &Sampling) -> String {
    let time = stall.at.split_once('T').map_or(&*stall.at, |(_, time)| time);
    let ended = time.get(..12).map_or_else(|| time.to_owned(), |time| format!("{time}Z"));
    let mut parts = Vec::new();
    if let Some(net_rx) = &stall.net_rx {
        parts.extend(describe_run(net_rx));
    }
    if let Some(interference) = &stall.interference {
        parts.extend(describe_wait(interference));
    }
    parts.push(match stall.culprits.as_slice() {
        [] if stall.stage == Stage::Irq => "no stack: interrupts were off".into(),
        [] if sampling.hz == 0 || stall.unsampled_ns.is_none() => {
            "no stack: none were taken".into()
        }
        culprits => format!(
            "{} ({})",
            stall_time::text(culprits, &stall.time(), FUNCTIONS),
            counted(stall.samples, "sample")
        ),
    });
    if stall.time().not_running() >= 0.1
        && let Some(steal_ns) = stall.steal_ns
    {
        parts.push(match steal_ns {
            0 => "no steal of this CPU in its interval".into(),
            ns => format!("the hypervisor took {} of this CPU in its interval", duration(ns)),
        });
    }
    let place = match place(&stall.labels) {
        place if place.is_empty() => String::new(),
        place => format!(" of {place}"),
    };
    format!(
        "{} {}{place} on CPU {}, ended {ended}: {}.",
        duration(stall.duration_ns),
        stall.stage.name(),
        stall.cpu,
        parts.join("; ")
    )
}

fn describe_run(parts: &NetRxParts) -> Vec<String> {
    let mut phrases = Vec::new();
    let mut polls: Vec<_> = parts.polls.iter().flatten().collect();
    polls.sort_by_key(|poll| std::cmp::Reverse(poll.ns));
    if let Some(longest) = polls.first() {
        let packets = match longest.budget {
            Some(budget) => format!("{} of {budget} packets", longest.work),
            None => counted(longest.work.into(), "packet"),
        };
        let mut polled =
            format!("polled {} for {} ({packets})", place(&longest.labels), duration(longest.ns));
        let others = polls.len() as u64 - 1 + parts.more_polls;
        if others > 0 {
            let ns = polls[1..].iter().map(|poll| poll.ns).sum::<u64>() + parts.more_polls_ns;
            polled.push_str(&format!(", {} for {}", counted(others, "other poll"), duration(ns)));
        }
        phrases.push(polled);
    }
    if let Some(collapse) = parts.collapse.filter(|collapse| collapse.calls > 0) {
        let calls = counted(collapse.calls, "call");
        phrases.push(format!("{} in {calls} of tcp_collapse", duration(collapse.ns)));
    }
    // By tracepoint a run starts and ends with polls: no time is outside of them then.
    if parts.polls.is_some() && parts.rest_ns > 0 {
        phrases.push(format!("{} outside polls", duration(parts.rest_ns)));
    }
    if let Some(irqs) = parts.irqs.filter(|irqs| irqs.runs > 0) {
        phrases.push(format!("hard IRQs {} in {}", duration(irqs.ns), counted(irqs.runs, "run")));
    }
    if let Some(tasks) = &parts.tasks {
        let longest = match tasks.longest.pid {
            0 => format!("the idle task for {}", duration(tasks.longest_ns)),
            pid => {
                let comm = printable(&tasks.longest.comm);
                format!("{comm} (pid {pid}) for {}", duration(tasks.longest_ns))
            }
        };
        let (ns, times) = (duration(tasks.ns), counted(tasks.runs, "time"));
        phrases.push(format!("other tasks ran for {ns}, {times}, longest {longest}"));
    }
    if let Some(wait) = parts.wait_ns {
        phrases.push(format!("waited {} before", duration(wait)));
    }
    phrases
}

fn describe_wait(interference: &Interference) -> Vec<String> {
    let mut phrases = Vec::new();
    for share in interference.tasks.iter().take(2) {
        let task = format!("{} (pid {})", printable(&share.task.comm), share.task.pid);
        phrases.push(format!("{task} ran in {}", counted(share.samples, "sample")));
    }
    if interference.in_softirq > 0 {
        phrases.push(format!("a softirq ran in {}", counted(interference.in_softirq, "sample")));
    } else if interference.tasks.is_empty() {
        let task = &interference.task;
        phrases.push(format!("{} (pid {}) at its end", printable(&task.comm), task.pid));
    }
    for part in &interference.vectors {
        let runs = counted(part.runs, "run");
        phrases.push(format!("{} {} in {runs}", part.vector, duration(part.ns)));
    }
    if let Some(irqs) = interference.irqs.filter(|irqs| irqs.runs > 0) {
        phrases.push(format!("hard IRQs {} in {}", duration(irqs.ns), counted(irqs.runs, "run")));
    }
    phrases
}

fn describe_socket(total: &SocketTotal) -> String {
    let socket = &total.socket;
    let owner = total.owner.as_ref().map(owner).unwrap_or_else(|| "no process found".into());
    let state = &total.worst;
    let queue = total.worst_queue.map(|queue| format!(", of its {}", queue.name()));
    let queue = queue.unwrap_or_default();
    let data = match state.payload_ratio {
        Some(ratio) => {
            format!(" held {} of data ({:.1} %)", bytes(state.payload_bytes.into()), ratio * 100.0)
        }
        None => format!(", {} of data unread in sequence", bytes(state.payload_bytes.into())),
    };
    format!(
        "{} from {}, {owner}: {}, {}, longest {}{queue}; before that one {} of {} receive \
         buffer{data}.",
        socket.local,
        socket.remote,
        counted(total.calls, "call"),
        duration(total.sum_ns),
        duration(total.max_ns),
        bytes(state.rmem_alloc),
        bytes(state.rcvbuf),
    )
}

fn owner(owner: &SocketOwner) -> String {
    let mut text = format!("{} (pid {})", printable(&owner.comm), owner.pid);
    if let Some(pod) = &owner.pod {
        text.push_str(&format!(" of pod {}", printable(pod)));
    }
    if let Some(container) = &owner.container {
        let short = container.get(..12).unwrap_or(container);
        text.push_str(&format!(" in container {}", printable(short)));
    }
    text
}

fn describe_pressure(pressure: &TcpPressure) -> String {
    let ended =
        if pressure.ended { " It ended: counts after the last reading are missing." } else { "" };
    format!(
        "Network namespace {}: {} of receive buffers, {} collapsed into others, {} dropped.{ended}",
        pressure.netns,
        counted(pressure.prune_called, "prune"),
        counted(pressure.rcv_collapsed, "packet"),
        count(pressure.rcv_pruned + pressure.ofo_pruned),
    )
}

/// `eth0 q2`, `backlog`, `irq 24 eth0-TxRx-2`; empty for a stage that a CPU has only once.
fn place(labels: &Labels) -> String {
    let iface = labels.iface.as_deref().map(printable);
    let queue = match (labels.queue, &labels.queue_kind) {
        (Some(queue), _) => Some(format!("q{queue}")),
        (None, Some(kind)) => Some(printable(kind)),
        (None, None) => None,
    };
    let irq = match (queue.is_none(), labels.irq) {
        (true, Some(irq)) => Some(format!("irq {irq}")),
        _ => None,
    };
    let name = labels.irq_name.as_deref().map(printable);
    [iface, queue, irq, name].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// Which records were not sent.
pub(super) fn limited(summary: &Summary) -> Option<String> {
    let ledger = &summary.ledger;
    let records = || ledger.stages.iter().map(|counts| &counts.records);
    let sum = |of: fn(&RecordCounts) -> u64| records().map(of).sum::<u64>();
    let stalls = missing("stall", sum(|counts| counts.limited), sum(|counts| counts.dropped));
    let calls =
        missing("slow tcp_collapse call", ledger.collapses.limited, ledger.collapses.dropped);
    let mut sentences: Vec<String> =
        [stalls, calls].into_iter().flatten().map(|what| format!("{what}.")).collect();
    if ledger.samples.dropped > 0 {
        let samples = counted(ledger.samples.dropped, "sample");
        sentences
            .push(format!("{samples} of stacks found the ring buffer full: not in the shares."));
    }
    (!sentences.is_empty()).then(|| format!("  {}", sentences.join(" ")))
}

/// `5 stalls counted but not described: 2 over --max-stalls, 3 found the ring buffer full`
fn missing(what: &str, limited: u64, dropped: u64) -> Option<String> {
    (limited + dropped > 0).then(|| {
        format!(
            "{} counted but not described: {} over --max-stalls, {} found the ring buffer full",
            counted(limited + dropped, what),
            count(limited),
            count(dropped)
        )
    })
}
