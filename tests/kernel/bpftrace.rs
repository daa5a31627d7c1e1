//! NAPI poll counts from bpftrace, as an independent reference.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

/// Counts the NAPI polls of one device.
pub(crate) struct PollCounter {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl PollCounter {
    /// Starts bpftrace, which begins to count some time after this returns. It has started once
    /// [`Self::count`] returns more than 0.
    pub(crate) fn start(device: &str) -> Result<Self> {
        // `str(args->dev_name)` is empty in bpftrace 0.23.
        let script = format!(
            "tracepoint:napi:napi_poll \
             /((struct napi_struct *)args->napi)->dev->name == \"{device}\"/ \
             {{ @polls = @polls + 1; }} \
             interval:ms:100 {{ printf(\"%llu %d\\n\", nsecs, @polls); }}"
        );
        let mut child = Command::new("bpftrace")
            .args(["-q", "-B", "line", "-e", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start bpftrace")?;
        let stdout = child.stdout.take().context("its output")?;
        Ok(Self { child, lines: BufReader::new(stdout) })
    }

    /// Number of polls so far.
    pub(crate) fn count(&mut self) -> Result<u64> {
        let now = now_ns()?;
        // Skip older reports that are still in the pipe.
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line)? == 0 {
                let mut message = String::new();
                if let Some(stderr) = &mut self.child.stderr {
                    stderr.read_to_string(&mut message)?;
                }
                bail!("bpftrace ended with {}: {message}", self.child.wait()?);
            }
            let Some((at, count)) = line.trim().split_once(' ') else { continue };
            if at.parse::<u64>().with_context(|| format!("parse {line:?}"))? > now {
                return count.parse().with_context(|| format!("parse {line:?}"));
            }
        }
    }
}

/// Time since boot, suspend included: the clock of bpftrace's `nsecs`.
fn now_ns() -> Result<u64> {
    // SAFETY: all zero is a valid timespec, which the call overwrites.
    let (result, now) = unsafe {
        let mut now: libc::timespec = std::mem::zeroed();
        (libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut now), now)
    };
    ensure!(result == 0, "read the clock: {}", std::io::Error::last_os_error());
    Ok(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
}

impl Drop for PollCounter {
    fn drop(&mut self) {
        // Fails if it has already exited: nothing to do then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
