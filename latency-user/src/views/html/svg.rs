//! Pieces of SVG.

/// Text that is safe between tags and in attributes.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Opens a figure that scales with the page and has a name for screen readers.
pub(super) fn begin(width: u32, height: u32, name: &str) -> String {
    let name = escaped(name);
    format!(
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{name}\" \
         preserveAspectRatio=\"xMidYMid meet\">"
    )
}

/// A label. `anchor` is `start`, `middle` or `end`.
pub(super) fn label(x: f64, y: f64, anchor: &str, text: &str) -> String {
    format!("<text x=\"{x:.0}\" y=\"{y:.0}\" text-anchor=\"{anchor}\">{}</text>", escaped(text))
}

/// A line of the grid.
pub(super) fn grid(x1: f64, y1: f64, x2: f64, y2: f64) -> String {
    format!("<path class=\"g\" d=\"M{x1:.0} {y1:.0}L{x2:.0} {y2:.0}\"/>")
}

/// Five labels along the time axis at `y`, from 0 to `seconds`.
pub(super) fn time_axis(left: f64, width: f64, y: f64, seconds: f64) -> String {
    [0.0, 0.25, 0.5, 0.75, 1.0]
        .map(|part| {
            let anchor = if part == 0.0 {
                "start"
            } else if part == 1.0 {
                "end"
            } else {
                "middle"
            };
            let time = crate::views::format::duration((seconds * part * 1e9) as u64);
            label(left + width * part, y, anchor, &time)
        })
        .concat()
}
