//! What an experiment that did not end left behind: said by every command, put back by `--undo`.

use std::io::{self, Write};

use anyhow::{Result, bail};

use super::WatchArguments;
use crate::{
    cli::Console,
    cli::stdout::Output,
    experiment::{
        journal::{self, Folder},
        watchdog,
    },
};

/// Says whether an experiment left something changed.
pub fn mention(err: &mut dyn Write) {
    for left in Folder::new(journal::FOLDER).left_over() {
        let what = match &left.entry {
            Some(entry) => format!("({}) did not end", entry.settings.join(", ")),
            None if left.is_torn => {
                "never began to change anything, and its journal is torn".into()
            }
            None => "of another version of this program did not end".into(),
        };
        let _ = writeln!(
            err,
            "warning: an experiment {what}: `latency-user experiment --undo` clears it up"
        );
    }
}

/// Puts everything back that was left changed.
pub(super) fn undo(folder: &Folder, console: Console) -> Result<u8> {
    let left = folder.left_over();
    let mut text = String::new();
    let mut failed = Vec::new();
    if left.is_empty() {
        text.push_str("nothing to undo\n");
    }
    for journal in left {
        let entry = journal.entry.as_ref();
        let complaints = entry.map(|entry| entry.restore()).unwrap_or_default();
        match entry {
            Some(entry) if complaints.is_empty() => {
                for saved in &entry.saved {
                    text.push_str(&format!("{} is {:?}, as before\n", saved.knob, saved.old));
                }
            }
            Some(_) => {}
            None if journal.is_torn => {
                text.push_str("a torn journal was removed: its change never began\n");
            }
            None => {
                // What that version changed is known to it alone: its journal stays.
                failed.push(format!(
                    "{} is of another version of this program, which can undo it",
                    journal.path().display()
                ));
                continue;
            }
        }
        if !complaints.iter().any(|complaint| complaint.may_retry) {
            journal.done()?;
        }
        failed.extend(complaints.into_iter().map(|complaint| complaint.text));
    }
    Output::new(console.out, 0).write(text.as_bytes())?;
    if !failed.is_empty() {
        bail!("{}", failed.join("; "));
    }
    Ok(0)
}

/// Is the watchdog of an experiment.
///
/// # Errors
///
/// When something could not be put back.
pub fn watch(args: &WatchArguments, mut console: Console) -> Result<u8> {
    let complaints =
        watchdog::watch(&args.folder, &args.journal, &mut console.out, &mut io::stdin())?;
    if complaints.is_empty() {
        return Ok(0);
    }
    let texts: Vec<String> = complaints.into_iter().map(|complaint| complaint.text).collect();
    bail!("the experiment's watchdog: {}", texts.join("; "))
}
