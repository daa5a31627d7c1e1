//! Runs the command line in this process and captures its output.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use clap::Parser;
use latency_user::{cli::Console, commands::Cli, model::exit::Exit};

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs `latency-user` with `arguments`. Returns its exit status and its standard output followed
/// by its standard error.
///
/// # Errors
///
/// When the arguments are refused, or the command fails.
pub fn run(arguments: &[&str]) -> Result<(Exit, String)> {
    let (out, err) = (Captured::default(), Captured::default());
    let console = Console {
        out: Box::new(out.clone()),
        err: Box::new(err.clone()),
        rows: 0,
        colour: false,
        err_is_terminal: false,
    };
    let exit = Cli::try_parse_from([&["latency-user"], arguments].concat())?.run(console)?;
    Ok((exit, out.text() + &err.text()))
}
