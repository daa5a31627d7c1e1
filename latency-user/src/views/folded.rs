//! Folded stacks for flame graph tools: frames from the outermost to the deepest, joined by `;`,
//! then the number of samples.

use std::io;

/// Writes stacks whose frames come deepest first.
///
/// # Errors
///
/// What `out` fails with.
pub fn stacks<'a>(
    stacks: impl IntoIterator<Item = (&'a [String], u64)>,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let mut text = String::new();
    for (frames, count) in stacks {
        let frames: Vec<String> =
            frames.iter().rev().map(|frame| frame.replace([';', '\n'], "_")).collect();
        text.push_str(&format!("{} {count}\n", frames.join(";")));
    }
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outermost_frame_comes_first() {
        let frames = ["tcp_collapse", "tcp_data_queue", "odd;name"].map(str::to_owned);
        let mut out = Vec::new();
        stacks([(&frames[..], 21)], &mut out).unwrap();
        assert_eq!(out, b"odd_name;tcp_data_queue;tcp_collapse 21\n");
    }
}
