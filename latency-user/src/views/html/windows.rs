//! The windows of an experiment in time: each a point with its rate of stalls.

use std::time::SystemTime;

use super::{Figure, svg};
use crate::{
    model::experiment::WindowSummary,
    views::{experiment, format::count},
};

const WIDTH: u32 = 960;
const HEIGHT: u32 = 220;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 30.0;

/// Classes and names of the kinds of windows.
const KINDS: [(&str, &str); 3] = [("w0", "as it was"), ("w1", "changed"), ("w2", "lead-in")];

/// The figure; `None` without windows.
pub(super) fn figure(windows: &[WindowSummary], stage: &str) -> Option<Figure> {
    let middle = |window: &WindowSummary| -> Option<f64> {
        let start = |text: &str| humantime::parse_rfc3339(text).ok();
        let first: SystemTime = start(&windows.first()?.started_at)?;
        let offset = start(&window.started_at)?.duration_since(first).ok()?;
        Some(offset.as_secs_f64() + window.duration_s / 2.0)
    };
    let places: Vec<f64> = windows.iter().filter_map(middle).collect();
    if places.is_empty() || places.len() != windows.len() {
        return None;
    }
    let title = format!("{stage}: stalls a second in each window");
    let end = places.iter().copied().fold(1.0, f64::max)
        + windows.last().map_or(0.0, |window| window.duration_s / 2.0);
    let most = windows.iter().map(|window| window.stalls_per_second).fold(0.0, f64::max);
    let top = ceiling(most);
    let (width, height) = (f64::from(WIDTH) - LEFT - RIGHT, f64::from(HEIGHT) - TOP - BOTTOM);
    let x = |seconds: f64| LEFT + width * seconds / end;
    let y = |rate: f64| TOP + height * (1.0 - rate / top);
    let mut drawn = svg::begin(WIDTH, HEIGHT, &title);
    for part in [0.0, 0.5, 1.0] {
        let at = y(top * part);
        drawn.push_str(&svg::grid(LEFT, at, LEFT + width, at));
        drawn.push_str(&svg::label(LEFT - 6.0, at + 4.0, "end", &rate(top * part)));
    }
    drawn.push_str(&svg::time_axis(LEFT, width, TOP + height + 18.0, end));
    for (window, place) in windows.iter().zip(&places) {
        drawn.push_str(&point(class(window), x(*place), y(window.stalls_per_second)));
    }
    for (at, (class, name)) in KINDS.into_iter().enumerate() {
        let at = TOP + 10.0 + 20.0 * at as f64;
        let left = LEFT + width + 20.0;
        drawn.push_str(&point(class, left, at));
        drawn.push_str(&svg::label(left + 14.0, at + 4.0, "start", name));
    }
    let rows = windows.iter().zip(&places).enumerate().map(|(at, (window, place))| {
        vec![
            (at + 1).to_string(),
            experiment::kind(window).to_owned(),
            format!("{place:.0}"),
            rate(window.stalls_per_second),
        ]
    });
    let head = ["window", "kind", "middle, s", "stalls/s"].map(str::to_owned).to_vec();
    let rows = rows.collect();
    Some(Figure { title, svg: drawn + "</svg>", note: String::new(), head, rows })
}

fn class(window: &WindowSummary) -> &'static str {
    let kind = match (window.lead_in, window.changed) {
        (true, _) => 2,
        (_, true) => 1,
        (_, false) => 0,
    };
    KINDS[kind].0
}

/// A square for windows with the change, a circle for others: not told by colour alone.
fn point(class: &str, x: f64, y: f64) -> String {
    match class {
        "w1" => format!(
            "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"10\" height=\"10\"/>",
            x - 5.0,
            y - 5.0
        ),
        _ => format!("<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5.5\"/>"),
    }
}

/// The next higher number with one digit: 1, 2, 5, 10.
fn ceiling(rate: f64) -> f64 {
    if rate <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(rate.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    steps.into_iter().find(|step| *step >= rate).unwrap_or(10.0 * power)
}

fn rate(per_second: f64) -> String {
    match per_second {
        ..10.0 => format!("{per_second:.1}"),
        _ => count(per_second.round() as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_window_is_a_point() {
        let windows: Vec<WindowSummary> = (0..5)
            .map(|at| WindowSummary {
                lead_in: at == 0,
                changed: at % 2 == 1,
                started_at: format!("2026-01-02T03:04:{:02}Z", 12 * at),
                duration_s: 10.0,
                stalls_per_second: f64::from(at),
                ..WindowSummary::default()
            })
            .collect();
        let figure = figure(&windows, "net_rx").unwrap();
        // With those of the legend.
        assert_eq!(figure.svg.matches("<circle").count(), 3 + 2);
        assert_eq!(figure.svg.matches("<rect").count(), 2 + 1);
        assert_eq!(figure.rows[4], ["5", "as it was", "53", "4.0"]);
        assert_eq!([0.0, 0.3, 1.0, 6.0].map(ceiling), [1.0, 0.5, 1.0, 10.0]);
    }
}
