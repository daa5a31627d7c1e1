//! `experiment --plan`: how many windows would show a halving.

use std::io::Write;

use anyhow::Result;

use super::{
    Arguments, STOP, default_output, deliver, make_directory, stopped, take_signals, window_config,
};
use crate::{
    cli::{Console, values::Format},
    experiment::plan::{self, WINDOWS},
    kernel::{confine::Task, privileges, single_instance::SingleInstance},
    model::{exit::Exit, experiment::Role},
    views::{self, Style},
};

pub(super) fn run(args: &Arguments, netns: u32, mut console: Console) -> Result<Exit> {
    privileges::check()?;
    let _instance = SingleInstance::claim()?;
    let output = args.output.clone().unwrap_or_else(default_output);
    make_directory(&output, args.mode)?;
    take_signals()?;
    crate::commands::confine(Task::Experiment { network: false });
    let config = window_config(args, netns);
    let mut report = |at, measured: Option<&_>| {
        let line = match measured {
            None => views::experiment::window_starts(at, WINDOWS, Role::Unchanged, args.window),
            Some(window) => views::experiment::measured(window),
        };
        // A closed stderr must not end it.
        let _ = console.err.write_all(line.as_bytes());
    };
    let found = plan::run(&config, args.settle, &output, &STOP, &mut report).map_err(stopped)?;
    let mut text = Vec::new();
    match args.format {
        Format::Table => {
            let style = Style { colour: console.colour, width: Style::MAX_WIDTH };
            views::experiment::plan(&found, style, &mut text)?;
        }
        Format::Json => views::json::plan(&found, &mut text)?,
    }
    Ok(if deliver(&text, console)? { Exit::Ok } else { Exit::Failed })
}
