//! Percentile curves: duration over 1/(1-p), both on log scales, so that the tail is not squeezed
//! into the last pixel.

use latency_common::stage::Stage;

use super::{Figure, Recording, svg};
use crate::{
    model::distribution::Distribution,
    views::{
        format::{count, duration},
        table,
    },
};

const WIDTH: u32 = 960;
const HEIGHT: u32 = 300;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 220.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 40.0;

/// Series with a colour of their own; more are grey.
const COLOURED: usize = 6;

/// Points of a curve for each power of ten.
const STEPS: u32 = 6;

/// Percentiles of the table, as powers of ten of 1/(1-p): p90 to p99.9999.
const TABLE: [(u32, &str); 6] =
    [(1, "p90"), (2, "p99"), (3, "p99.9"), (4, "p99.99"), (5, "p99.999"), (6, "p99.9999")];

struct Curve<'a> {
    name: String,
    class: String,
    distribution: &'a Distribution,
    count: u64,
}

/// One figure for each stage that recorded something.
pub(super) fn figures(recordings: &[Recording<'_>]) -> Vec<Figure> {
    Stage::ALL.into_iter().filter_map(|stage| figure(recordings, stage)).collect()
}

fn figure(recordings: &[Recording<'_>], stage: Stage) -> Option<Figure> {
    // Two recordings are overlaid by stage: curves of all their series would be unreadable.
    let sums: Vec<Distribution> = recordings
        .iter()
        .map(|recording| {
            let mut sum = Distribution::default();
            let of = recording.series.iter().filter(|series| series.id.stage == stage);
            of.for_each(|series| sum.add(&series.distribution));
            sum
        })
        .collect();
    let mut curves: Vec<Curve<'_>> = Vec::new();
    if let [recording] = recordings {
        let of = recording.series.iter().filter(|series| series.id.stage == stage);
        curves.extend(of.map(|series| Curve {
            name: table::label(series),
            class: "l".into(),
            distribution: &series.distribution,
            count: series.distribution.count(),
        }));
        curves.sort_by_key(|curve| std::cmp::Reverse(curve.distribution.max_ns));
    } else {
        for (at, distribution) in sums.iter().enumerate() {
            let name = if at == 0 { "before" } else { "after" };
            let count = distribution.count();
            curves.push(Curve { name: name.into(), class: String::new(), distribution, count });
        }
    }
    curves.retain(|curve| curve.count > 0);
    for (at, curve) in curves.iter_mut().take(COLOURED).enumerate() {
        curve.class = format!("l l{at}");
    }
    let most = curves.iter().map(|curve| curve.count).max()?;
    let title = format!("{}: durations by percentile", stage.name());
    let rows = curves.iter().map(|curve| {
        let values = TABLE.iter().map(|(power, _)| match 10_u64.pow(*power) {
            beyond if beyond > curve.count => "-".to_owned(),
            _ => duration(value(curve, f64::from(*power))),
        });
        let mut row = vec![curve.name.clone(), count(curve.count)];
        row.extend(values);
        row.push(duration(curve.distribution.max_ns));
        row
    });
    let mut head: Vec<String> = ["series", "count"].map(str::to_owned).to_vec();
    head.extend(TABLE.iter().map(|(_, name)| (*name).to_owned()));
    head.push("max".into());
    let rows = rows.collect();
    Some(Figure { svg: draw(&curves, most, &title), title, note: String::new(), head, rows })
}

fn draw(curves: &[Curve<'_>], most: u64, title: &str) -> String {
    let powers = f64::from(most.max(10).ilog10() + 1);
    let lowest = curves.iter().map(|c| c.distribution.min_ns()).min().unwrap_or(1).max(1);
    let highest = curves.iter().map(|c| c.distribution.max_ns).max().unwrap_or(10).max(10);
    let (low, high) = (lowest.ilog10(), (highest.ilog10() + 1).max(lowest.ilog10() + 1));
    let (width, height) = (f64::from(WIDTH) - LEFT - RIGHT, f64::from(HEIGHT) - TOP - BOTTOM);
    let x = |power: f64| LEFT + width * power / powers;
    let y = |ns: f64| {
        let part = (ns.max(1.0).log10() - f64::from(low)) / f64::from(high - low);
        TOP + height * (1.0 - part.clamp(0.0, 1.0))
    };
    let mut figure = svg::begin(WIDTH, HEIGHT, title);
    for power in low..=high {
        let at = y(10_f64.powi(power as i32));
        figure.push_str(&svg::grid(LEFT, at, LEFT + width, at));
        let name = crate::views::format::short_duration(10_u64.pow(power));
        figure.push_str(&svg::label(LEFT - 6.0, at + 4.0, "end", &name));
    }
    for power in 0..=powers as u32 {
        let at = x(f64::from(power));
        figure.push_str(&svg::grid(at, TOP, at, TOP + height));
        let name = match power {
            0 => "0%".into(),
            1 => "90%".into(),
            2 => "99%".into(),
            more => format!("99.{}%", "9".repeat(more as usize - 2)),
        };
        figure.push_str(&svg::label(at, TOP + height + 16.0, "middle", &name));
    }
    figure.push_str(&svg::label(LEFT + width / 2.0, TOP + height + 34.0, "middle", "percentile"));
    // Draw the worst last, so that they are on top.
    for curve in curves.iter().rev() {
        let ends = (curve.count as f64).log10();
        let mut points: Vec<(f64, f64)> = (0..)
            .map(|step| f64::from(step) / f64::from(STEPS))
            .take_while(|power| *power < ends)
            .map(|power| (power, value(curve, power) as f64))
            .collect();
        points.push((ends, curve.distribution.max_ns as f64));
        let points: Vec<String> =
            points.iter().map(|(power, ns)| format!("{:.0},{:.0}", x(*power), y(*ns))).collect();
        let (class, points) = (&curve.class, points.join(" "));
        figure.push_str(&format!("<polyline class=\"{class}\" points=\"{points}\"/>"));
    }
    for (at, curve) in curves.iter().take(COLOURED).enumerate() {
        let (left, at) = (LEFT + width + 14.0, TOP + 12.0 + 18.0 * at as f64);
        let class = &curve.class;
        figure.push_str(&format!(
            "<path class=\"{class}\" d=\"M{left:.0} {at:.0}h26\"/>{}",
            svg::label(left + 32.0, at + 4.0, "start", &curve.name)
        ));
    }
    if curves.len() > COLOURED {
        let text = format!("+ {} more, grey", curves.len() - COLOURED);
        let at = TOP + 16.0 + 18.0 * COLOURED as f64;
        figure.push_str(&svg::label(LEFT + width + 14.0, at, "start", &text));
    }
    figure + "</svg>"
}

/// The duration at the percentile whose 1/(1-p) is `10^power`.
fn value(curve: &Curve<'_>, power: f64) -> u64 {
    let above = (curve.count as f64 / 10_f64.powf(power)).floor() as u64;
    let rank = (curve.count - above.min(curve.count)).max(1);
    let mut seen = 0;
    for (index, n) in &curve.distribution.buckets {
        seen += n;
        if seen >= rank {
            return curve.distribution.upper_end(*index);
        }
    }
    curve.distribution.max_ns
}
