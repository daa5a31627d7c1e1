//! The command line in this process, its output kept.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use clap::Parser;
use latency_user::{cli::Console, commands::Cli, model::exit::Exit};

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs `latency-user` with `arguments`. Returns its exit status and what it printed: on standard
/// output, then on standard error.
///
/// # Errors
///
/// When the arguments are refused, or the command fails.
pub fn run(arguments: &[&str]) -> Result<(Exit, String)> {
    let (out, err) = (Kept::default(), Kept::default());
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
