//! One tracer at a time: two would time each other's probes.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{ErrorKind, Read, Seek, Write},
    path::Path,
};

use crate::model::failure::Failure;

/// The lock file of a tracer. The kernel releases the lock when the process dies.
const PATH: &str = "/run/latency-user.lock";

/// Held while tracing.
#[derive(Debug)]
pub struct SingleInstance {
    _lock: Option<File>,
}

impl SingleInstance {
    /// Takes the lock.
    ///
    /// A process that may trace but not write to `/run` locks a file created by root. If there is
    /// none, other tracers cannot be detected, and this succeeds without a lock.
    ///
    /// # Errors
    ///
    /// Another process has the lock, which the error names; exit status 1.
    pub fn claim() -> Result<Self, Failure> {
        Self::claim_at(Path::new(PATH))
    }

    fn claim_at(path: &Path) -> Result<Self, Failure> {
        let created =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let opened = match created {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => File::open(path),
            other => other,
        };
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self { _lock: None }),
            Err(error) => {
                return Err(Failure::new(format!("open lock file {}: {error}", path.display())));
            }
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => "another process".to_owned(),
                    pid => format!("process {pid}"),
                };
                return Err(Failure::new(format!("another latency-user is tracing: {holder}"))
                    .hint("wait until it ends, or stop it with Ctrl-C or SIGTERM"));
            }
            Err(TryLockError::Error(error)) => {
                return Err(Failure::new(format!("lock {}: {error}", path.display())));
            }
        }
        // The PID is only for the error message of a second instance.
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| write!(file, "{}", std::process::id()));
        Ok(Self { _lock: Some(file) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::exit::Exit;

    #[test]
    fn a_second_instance_fails_with_the_pid_of_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let first = SingleInstance::claim_at(&path).unwrap();
        let failure = SingleInstance::claim_at(&path).unwrap_err();
        assert_eq!(failure.exit, Exit::Failed);
        assert!(failure.message.contains(&std::process::id().to_string()), "{failure}");
        drop(first);
        SingleInstance::claim_at(&path).unwrap();
    }
}
