//! `experiment`: changes one setting, measures the effect, and restores the setting.

mod arguments;
mod plan;
mod undo;

use std::{
    fs::{self, DirBuilder},
    io::Write,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::SystemTime,
};

use anyhow::{Context, Result};

pub use self::{
    arguments::{Arguments, WatchArguments},
    undo::{mention, watch},
};
use super::report;
use crate::cli::{
    Console,
    masked::{Allowed, Masked},
    new_file::NewFile,
    stdout::Output,
    values::Format,
};
pub use crate::experiment::watchdog::COMMAND as WATCHDOG;
use crate::{
    commands::tracer::Tracer,
    experiment::{
        change::ChangeSet,
        guards,
        journal::JournalDirectory,
        knob::Knob,
        looks::Ends,
        netns,
        rounds::{self, Finished, Plan, Progress},
        schedule,
        tunable::{self, Scope},
        window::WindowConfig,
    },
    kernel::{confine::Task, privileges},
    measure::daemon,
    model::{
        exit::Exit,
        experiment::{Conclusion, Experiment},
        failure::Failure,
        note::Note,
        run::DEFAULT_THRESHOLD_NS,
    },
    recording::output,
    views::{self, Style},
};

/// Set by a signal: the experiment must end and restore everything.
static STOP: AtomicBool = AtomicBool::new(false);

/// Runs the command: [`Exit::Found`] when it became worse.
///
/// # Errors
///
/// Errors in the arguments, the privileges or the kernel are found before anything is changed.
pub fn run(args: &Arguments, mut console: Console) -> Result<Exit> {
    let journals = JournalDirectory::new(&args.state);
    if args.undo {
        return undo::undo(&journals, console);
    }
    let netns = netns::resolve(args.netns.as_deref())?;
    let scope = Scope { root: "/".into(), netns, ifaces: args.iface.clone() };
    if args.list {
        return list(&scope, console);
    }
    if args.plan {
        return plan::run(args, netns, console);
    }
    let mut window = window_config(args, netns);
    let is_attached = daemon::is_there(&args.daemon.socket) && !args.daemon.take_over;
    if !args.dry_run && !is_attached {
        privileges::check_experiment()?;
    }
    let mut wanted = Vec::new();
    for setting in &args.set {
        wanted.extend(tunable::plan(setting, &scope)?);
    }
    let change = ChangeSet::new(wanted, tunable::followers(&args.set, &scope)?)?;
    for warning in tunable::warnings(&args.set, &scope) {
        let _ = writeln!(console.err, "warning: {warning}");
    }
    let output = args.output.clone().unwrap_or_else(default_output);
    if args.dry_run {
        return dry_run(args, &change, &output, console);
    }
    if let Some(iface) = guards::lost_link(netns, &args.iface)? {
        return Err(Failure::new(format!("{iface} does not exist or has no link")).into());
    }
    let check = privileges::check_experiment;
    // It compares durations, so the daemon's stacks and slow collapses may be what they are.
    let counts = |option: &str| match option {
        "--threshold" => args.threshold.is_some(),
        option => option == "--interval",
    };
    let config = window.measurement();
    let tracer = Tracer::choose(&config, counts, &args.daemon, check, &mut console.err)?;
    window.daemon = tracer.daemon();
    make_directory(&output, args.mode)?;
    let pairs = pairs(args);
    let plan = Plan {
        requested: args.set.clone(),
        window,
        settle: args.settle,
        pairs,
        seed: args.seed.unwrap_or_else(|| fastrand::u64(..1 << 32)),
        keep: args.keep_if.is_some(),
        output: output.clone(),
        journals,
    };
    let followers: Vec<String> = change.followers().map(Knob::to_string).collect();
    let _ = console.err.write_all(views::experiment::followers(&followers).as_bytes());
    let about = schedule::duration(pairs, args.window, args.settle);
    let _ = console.err.write_all(
        views::experiment::announcement(pairs, args.window, about, plan.seed).as_bytes(),
    );
    take_signals()?;
    super::confine(Task::Experiment { network: change.is_of_network() });
    let found = rounds::run(&plan, &change, &STOP, &mut |progress| {
        // A closed stderr must not end the experiment.
        let _ = console.err.write_all(progress_lines(&progress).as_bytes());
    })
    .map_err(stopped)?;
    let page = report(&output, args.mode, &found)?;
    let _ = writeln!(console.err, "recordings and report: {}", page.display());
    show(&found.experiment, args.format, console)
}

fn pairs(args: &Arguments) -> u32 {
    args.rounds.unwrap_or_else(|| schedule::pairs_within(args.time, args.window, args.settle))
}

fn window_config(args: &Arguments, netns: u32) -> WindowConfig {
    WindowConfig {
        length: args.window,
        netns,
        ifaces: args.iface.clone(),
        mode: args.mode,
        threshold_ns: args.threshold.map_or(DEFAULT_THRESHOLD_NS, |time| time.as_nanos() as u64),
        limit: args.abort_if,
        max_overhead: args.max_overhead,
        daemon: None,
    }
}

fn show(found: &Experiment, format: Format, console: Console) -> Result<Exit> {
    let mut text = Vec::new();
    match format {
        Format::Table => {
            let style = Style { colour: console.colour, width: Style::MAX_WIDTH };
            views::experiment::experiment(found, style, &mut text)?;
        }
        Format::Json => views::json::experiment(found, &mut text)?,
    }
    Ok(match (deliver(&text, console)?, found.conclusion) {
        (false, _) | (_, Conclusion::Interrupted) => Exit::Failed,
        (_, Conclusion::Worse | Conclusion::ImprovedAtACost | Conclusion::EndedEarly) => {
            Exit::Found
        }
        _ => Exit::Ok,
    })
}

/// Writes the result. Returns whether somebody read it.
fn deliver(text: &[u8], mut console: Console) -> Result<bool> {
    let mut reader = console.unblock();
    Output::new(console.out, 0).write(text)?;
    let is_read = reader.drain();
    if !is_read {
        let note = Note::OutputNotRead { lines: reader.dropped_lines() };
        let _ = writeln!(console.err, "warning: {note}");
    }
    Ok(is_read)
}

/// Writes the page of the experiment and returns its path.
fn report(output: &Path, mode: u32, found: &Finished) -> Result<PathBuf> {
    let page = output.join("report.html");
    let Finished { experiment, sides } = found;
    let mut text = Vec::new();
    let comparison = Some(&experiment.comparison);
    report::page(&[&sides.before, &sides.after], comparison, Some(experiment), &mut text)?;
    let mut file = Masked::new(NewFile::private(&page, mode, &[])?, Allowed::Nothing);
    file.write_all(&text).with_context(|| format!("write {}", page.display()))?;
    file.into_inner().finish()?;
    Ok(page)
}

fn progress_lines(progress: &Progress<'_>) -> String {
    match progress {
        Progress::Window { at, of, role, length } => {
            views::experiment::window_starts(*at, *of, *role, *length)
        }
        Progress::Measured(window) => views::experiment::measured(window),
        Progress::Applied(changed) => {
            let rounded = changed.iter().filter_map(views::experiment::rounded);
            rounded.map(|line| format!("  {line}\n")).chain(["  changed\n".into()]).collect()
        }
        Progress::Reverted => "  put back\n".into(),
        Progress::Aborted(reason) => format!("  ended early: {reason}\n"),
        Progress::Ends(Ends::Clear) => "the windows are clear\n".into(),
        Progress::Ends(Ends::Hopeless(why)) => format!("ends: {why}\n"),
        Progress::Keeping => "improved: the change is kept\n".into(),
    }
}

fn list(scope: &Scope, console: Console) -> Result<Exit> {
    let style = Style { colour: console.colour, width: Style::MAX_WIDTH };
    let mut text = Vec::new();
    for tunable in tunable::ALL {
        let title = format!("{}:{}", tunable.name(), tunable.usage());
        let values: Vec<(String, String)> = tunable::list(*tunable, scope)?
            .into_iter()
            .map(|knob| (knob.key, knob.value.unwrap_or_else(|error| format!("({error:#})"))))
            .collect();
        views::experiment::tunable(&title, tunable.describe(), &values, style, &mut text)?;
    }
    Output::new(console.out, 0).write(&text)?;
    Ok(Exit::Ok)
}

/// Prints each read and write in order.
fn dry_run(args: &Arguments, change: &ChangeSet, output: &Path, console: Console) -> Result<Exit> {
    let mut text = String::new();
    for saved in change.saved() {
        text.push_str(&format!("read {}: {:?}\n", saved.knob, saved.old));
    }
    text.push_str(&format!("write a journal below {}\n", args.state.display()));
    let window = humantime::format_duration(args.window);
    let write = |knob: &Knob, value: &str| format!("write {value:?} to {knob}, read it back\n");
    text.push_str(&format!("measure a lead-in of {window} into {}\n", output.display()));
    text.push_str(&format!("{} times, in random order:\n", pairs(args)));
    text.push_str(&format!("  measure {window} as it is\n"));
    let first = || change.saved().iter().filter(|saved| !saved.follows);
    text.extend(first().map(|s| format!("  {}", write(&s.knob, &s.requested))));
    text.push_str(&format!("  measure {window} with the change\n"));
    text.extend(first().rev().map(|s| format!("  {}", write(&s.knob, &s.old))));
    let followers = change.saved().iter().filter(|saved| saved.follows);
    text.extend(followers.map(|s| format!("  if it moved too, {}", write(&s.knob, &s.old))));
    text.push_str("remove the journal\n");
    Output::new(console.out, 0).write(text.as_bytes())?;
    Ok(Exit::Ok)
}

/// Makes the directory for recordings. Those who may read them may enter it.
fn make_directory(path: &Path, mode: u32) -> Result<()> {
    let enter = (mode & 0o444) >> 2;
    let made = DirBuilder::new().recursive(true).mode(mode | enter).create(path);
    made.with_context(|| format!("make {}", path.display()))?;
    let there = fs::symlink_metadata(path).with_context(|| format!("open {}", path.display()))?;
    match there.is_dir() && output::is_ours(&there) {
        true => Ok(()),
        false => Err(Failure::new(format!(
            "{} is a link, or a directory of another user",
            path.display()
        ))
        .hint("name another --output")
        .into()),
    }
}

/// A directory for the recordings, named after the time.
fn default_output() -> PathBuf {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    format!("experiment-{}", now.replace(['-', ':'], "")).into()
}

/// Marks an error as the result of a signal if one arrived.
fn stopped(error: anyhow::Error) -> anyhow::Error {
    if STOP.load(Ordering::Relaxed) {
        error.context("ended by a signal; every setting was put back unless reported otherwise")
    } else {
        error
    }
}

fn take_signals() -> Result<()> {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler does nothing but store to an atomic.
        let before = unsafe { libc::signal(signal, stop as *const () as libc::sighandler_t) };
        if before == libc::SIG_ERR {
            return Err(std::io::Error::last_os_error()).context("install a signal handler");
        }
    }
    Ok(())
}

/// The second signal ends the process at once; the watchdog then puts everything back.
extern "C" fn stop(_: libc::c_int) {
    STOP.store(true, Ordering::Relaxed);
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: may be called in a handler, and touches no memory of ours.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}
