//! Leftovers of an experiment that did not end: reported by every command, undone by `--undo`.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
};

use anyhow::{Result, bail};

use super::WatchArguments;
use crate::{
    cli::Console,
    cli::stdout::Output,
    experiment::{
        journal::{self, JournalDirectory},
        watchdog,
    },
    model::{exit::Exit, failure::Failure},
};

/// Warns if an experiment left something changed.
pub fn mention(err: &mut dyn Write) {
    for left in JournalDirectory::new(journal::DIRECTORY).left_over() {
        let what = match &left.entry {
            Some(entry) => format!("({}) did not end", entry.requested.join(", ")),
            None if left.is_torn => {
                "did not start to change anything, and its journal is torn".into()
            }
            None => "of another version of this program did not end".into(),
        };
        let _ = writeln!(
            err,
            "warning: an experiment {what}: `latency-user experiment --undo` cleans up"
        );
    }
}

/// Restores everything that was left changed.
pub(super) fn undo(directory: &JournalDirectory, console: Console) -> Result<Exit> {
    if let Err(error) = directory.path().read_dir()
        && error.kind() != io::ErrorKind::NotFound
    {
        let path = directory.path().display();
        return Err(Failure::unsupported(format!("cannot read {path}: {error}"))
            .hint("run it as the user whose experiment it was: root")
            .into());
    }
    directory.clean();
    let left = directory.left_over();
    let mut text = String::new();
    let mut failed = Vec::new();
    if left.is_empty() {
        text.push_str("nothing to undo\n");
    }
    for entry in directory.in_progress() {
        text.push_str(&format!(
            "an experiment is in progress (process {}: {}): it puts its setting back itself\n",
            entry.pid,
            entry.requested.join(", ")
        ));
    }
    for journal in left {
        let entry = journal.entry.as_ref();
        if let Some(knob) = entry.and_then(|entry| entry.unknown()) {
            failed.push(format!(
                "{} names {knob}, which no experiment changes: it is not of this program, and is \
                 left as is",
                journal.path().display()
            ));
            continue;
        }
        let failures = entry.map(|entry| entry.restore()).unwrap_or_default();
        match entry {
            Some(entry) if entry.is_of_another_boot() => {
                text.push_str(
                    "the machine was restarted since: its own configuration decides the settings\n",
                );
                for saved in &entry.saved {
                    let now = saved.knob.read();
                    let now =
                        now.map_or_else(|error| format!("({error:#})"), |now| format!("{now:?}"));
                    text.push_str(&format!("{} is {now}, was {:?}\n", saved.knob, saved.old));
                }
            }
            Some(entry) if failures.is_empty() => {
                for saved in entry.saved.iter().filter(|saved| !saved.follows) {
                    text.push_str(&format!("{} is {:?}, as before\n", saved.knob, saved.old));
                }
            }
            Some(_) => {}
            None if journal.is_torn => {
                text.push_str("a torn journal was removed: no change had started\n");
            }
            None => {
                // Only that version knows what it changed, so its journal stays.
                failed.push(format!(
                    "{} is of another version of this program, which can undo it",
                    journal.path().display()
                ));
                continue;
            }
        }
        if !failures.iter().any(|failure| failure.may_retry) {
            journal.done()?;
        }
        failed.extend(failures.into_iter().map(|failure| failure.text));
    }
    Output::new(console.out, 0).write(text.as_bytes())?;
    if !failed.is_empty() {
        bail!("{}", failed.join("; "));
    }
    Ok(Exit::Ok)
}

/// Runs the watchdog of an experiment.
///
/// # Errors
///
/// When something could not be put back.
pub fn watch(args: &WatchArguments, mut console: Console) -> Result<Exit> {
    // Not buffered: the watchdog waits for the descriptor.
    let mut orders = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let failures = watchdog::watch(&args.directory, &args.journal, &mut console.out, &mut orders)?;
    if failures.is_empty() {
        return Ok(Exit::Ok);
    }
    let texts: Vec<String> = failures.into_iter().map(|failure| failure.text).collect();
    bail!("the experiment's watchdog: {}", texts.join("; "))
}
