//! Stalls: when, where, in which functions, and for which sockets.

use latency_common::stage::Stage;
use serde::Serialize;

use super::{Figure, Recording, share, svg};
use crate::{
    model::{
        series::labels::Labels,
        stall::{
            Stall,
            collapse::{Collapse, CollapsedQueue, SocketOwner, SocketTotal},
            parts::{Interference, TaskShare},
        },
        tcp_pressure::TcpPressure,
        timeline::Cell,
    },
    views::{
        format::{bytes, count, counted, duration},
        stall_time,
        table::without_parts,
    },
};

const WIDTH: u32 = 960;
const HEIGHT: u32 = 140;
const LEFT: f64 = 60.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 22.0;

/// Stalls shown individually.
const MOST: usize = 20;

/// Functions named per stall.
const FUNCTIONS: usize = 3;

/// A stall for the template.
#[derive(Serialize)]
pub(super) struct HtmlStall {
    at: String,
    stage: String,
    place: String,
    duration: String,
    spent: String,
    stacks: Vec<(u64, String)>,
}

/// Stalls over time, of the first stage that has any.
pub(super) fn timeline(recording: &Recording<'_>) -> Option<Figure> {
    let leaders = [Stage::NetRx, Stage::NapiPoll, Stage::RxWait, Stage::Irq, Stage::Softirq];
    let columns = &recording.timeline.seconds;
    let (stage, cells) = leaders.into_iter().find_map(|stage| {
        let mut sum = vec![Cell::default(); columns.len()];
        for (_, cells) in recording.timeline.rows().filter(|(id, _)| id.stage == stage) {
            sum.iter_mut().zip(cells).for_each(|(sum, cell)| sum.add(cell));
        }
        sum.iter().any(|cell| cell.stalls > 0).then_some((stage, sum))
    })?;
    let most = cells.iter().map(|cell| cell.stalls).max()?.max(1);
    let title = format!("{}: stalls over time", stage.name());
    let (width, height) = (f64::from(WIDTH) - LEFT, f64::from(HEIGHT) - TOP - BOTTOM);
    let mut figure = svg::begin(WIDTH, HEIGHT, &title);
    for part in [0.0, 0.5, 1.0] {
        let y = TOP + height * (1.0 - part);
        figure.push_str(&svg::grid(LEFT, y, LEFT + width, y));
        let value = (most as f64 * part).round() as u64;
        if part != 0.5 || most > 1 {
            figure.push_str(&svg::label(LEFT - 6.0, y + 4.0, "end", &count(value)));
        }
    }
    let step = width / cells.len() as f64;
    let mut bars = String::new();
    for (at, cell) in cells.iter().enumerate().filter(|(_, cell)| cell.stalls > 0) {
        let tall = height * cell.stalls as f64 / most as f64;
        bars.push_str(&format!(
            "M{:.1} {:.1}h{:.1}V{:.1}h-{2:.1}z",
            LEFT + step * at as f64,
            TOP + height - tall,
            (step - 1.0).max(1.0),
            TOP + height
        ));
    }
    figure.push_str(&format!("<path class=\"s1\" d=\"{bars}\"/>"));
    let total = columns.iter().sum();
    figure.push_str(&svg::time_axis(LEFT, width, f64::from(HEIGHT) - 6.0, total));
    figure.push_str("</svg>");
    let mut start = 0.0;
    let rows = cells.iter().zip(columns).map(|(cell, length)| {
        let at = duration((start * 1e9) as u64);
        start += length;
        vec![at, count(cell.count), count(cell.stalls), duration(cell.max_ns)]
    });
    let rows = rows.collect();
    let head = ["from", "events", "stalls", "longest"].map(str::to_owned).to_vec();
    Some(Figure { title, note: String::new(), svg: figure, head, rows })
}

/// The longest stalls and where their time was spent.
pub(super) fn worst(stalls: &[Stall]) -> Vec<HtmlStall> {
    let show = |stall: &Stall| HtmlStall {
        at: moment(&stall.at),
        stage: stall.stage.name().to_owned(),
        place: place(&stall.labels, stall.cpu),
        duration: duration(stall.duration_ns),
        spent: spent(stall),
        stacks: stall
            .stacks
            .iter()
            .take(3)
            .map(|stack| (stack.count, stack.frames.join(" < ")))
            .collect(),
    };
    without_parts(stalls).take(MOST).map(show).collect()
}

/// `2026-01-02 03:04:05.912Z`: cut to milliseconds, to keep the column narrow.
fn moment(at: &str) -> String {
    match at.get(..23) {
        Some(at) => format!("{}Z", at.replace('T', " ")),
        None => at.to_owned(),
    }
}

fn place(labels: &Labels, cpu: u32) -> String {
    let mut parts = vec![format!("CPU {cpu}")];
    parts.extend(labels.host.clone());
    parts.extend(labels.iface.clone());
    parts.extend(labels.queue.map(|queue| format!("q{queue}")));
    parts.extend(labels.queue_kind.clone());
    parts.extend(labels.irq.map(|irq| format!("irq {irq}")));
    parts.join(" ")
}

fn spent(stall: &Stall) -> String {
    let mut parts = Vec::new();
    if !stall.culprits.is_empty() || stall.unsampled_ns.is_some() {
        parts.push(stall_time::text(&stall.culprits, &stall.time(), FUNCTIONS));
    }
    if let Some(net_rx) = &stall.net_rx {
        parts.extend(net_rx.wait_ns.map(|ns| format!("waited {} before", duration(ns))));
        for poll in net_rx.polls.iter().flatten() {
            let place = place(&poll.labels, poll.labels.cpu.unwrap_or(stall.cpu));
            let packets = counted(poll.work.into(), "packet");
            parts.push(format!("poll {place} {} for {packets}", duration(poll.ns)));
        }
        if net_rx.more_polls > 0 {
            let ns = duration(net_rx.more_polls_ns);
            parts.push(format!("{} more polls {ns}", net_rx.more_polls));
        }
        if let Some(collapse) = net_rx.collapse.filter(|collapse| collapse.calls > 0) {
            let ns = duration(collapse.ns);
            parts.push(format!("tcp_collapse {ns} in {}", counted(collapse.calls, "call")));
        }
        parts.push(format!("rest {}", duration(net_rx.rest_ns)));
    }
    if let Some(interference) = &stall.interference {
        parts.extend(running(interference));
        let vectors = interference.vectors.iter();
        parts.extend(vectors.map(|v| format!("softirq {} {}", v.vector, duration(v.ns))));
    }
    parts.join("; ")
}

/// The tasks that samples found on the CPU, else the task that ran when the wait ended.
fn running(interference: &Interference) -> Vec<String> {
    let ran = |share: &TaskShare| {
        let samples = counted(share.samples, "sample");
        format!("{} ({}) ran in {samples}", share.task.comm, share.task.pid)
    };
    let mut parts: Vec<String> = interference.tasks.iter().take(2).map(ran).collect();
    if interference.in_softirq > 0 {
        parts.push(format!("softirq in {}", counted(interference.in_softirq, "sample")));
    } else if parts.is_empty() {
        parts.push(format!("{} ({}) at its end", interference.task.comm, interference.task.pid));
    }
    parts
}

/// The sockets whose collapses took the most time.
pub(super) fn sockets(sockets: &[SocketTotal]) -> Vec<Vec<String>> {
    let show = |total: &SocketTotal| {
        vec![
            format!("{} < {}", total.socket.local, total.socket.remote),
            process(total.owner.as_ref()),
            count(total.calls),
            duration(total.sum_ns),
            duration(total.max_ns),
            format!("{} of {}", bytes(total.worst.rmem_alloc), bytes(total.worst.rcvbuf)),
            total.worst_queue.map_or("-", CollapsedQueue::name).to_owned(),
            total.worst.payload_ratio.map_or("-".into(), share),
        ]
    };
    sockets.iter().map(show).collect()
}

fn process(owner: Option<&SocketOwner>) -> String {
    owner.map_or("-".into(), |owner| format!("{} ({})", owner.comm, owner.pid))
}

/// Growth of TCP's receive-buffer counters, by network namespace.
pub(super) fn pressure(tcp: &[TcpPressure]) -> Vec<Vec<String>> {
    let show = |pressure: &TcpPressure| {
        vec![
            format!("{}{}", pressure.netns, if pressure.ended { " (ended)" } else { "" }),
            count(pressure.prune_called),
            count(pressure.rcv_collapsed),
            count(pressure.rcv_pruned + pressure.ofo_pruned),
        ]
    };
    tcp.iter().map(show).collect()
}

/// The slowest collapses.
pub(super) fn collapses(collapses: &[Collapse]) -> Vec<Vec<String>> {
    let show = |collapse: &Collapse| {
        vec![
            duration(collapse.duration_ns),
            format!("{} < {}", collapse.socket.local, collapse.socket.remote),
            process(collapse.owner.as_ref()),
            format!("{} of {}", bytes(collapse.before.rmem_alloc), bytes(collapse.before.rcvbuf)),
            collapse.before.queue_len.to_string(),
            collapse.queue.name().to_owned(),
            collapse.before.payload_ratio.map_or("-".into(), share),
            collapse.polled.as_ref().map(|polled| place(polled, collapse.cpu)).unwrap_or_default(),
        ]
    };
    collapses.iter().take(MOST).map(show).collect()
}
