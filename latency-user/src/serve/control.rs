//! The control socket: follow, dump, status. Nothing here changes a setting of the machine.
//!
//! The protocol is [`measure::daemon`](crate::measure::daemon)'s.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net,
    },
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::oneshot,
    time::timeout,
};

use super::{
    client::{self, MOST_CLIENTS},
    request::{BY_DUMP, Request as Dump},
    shared::{Pause, Shared, lock},
};
use crate::{
    measure::daemon::{Answer, END, Request},
    model::failure::Failure,
};

/// A request is not longer, and comes within this time.
const LONGEST_REQUEST: u64 = 4096;
const PATIENCE: Duration = Duration::from_secs(5);

/// A client that takes nothing for this time is left.
const WRITE_TIME: Duration = Duration::from_secs(120);

/// Listens at `path`. What a daemon that was killed has left there is replaced.
///
/// # Errors
///
/// When something else is there, another daemon listens, or the kernel refuses.
pub fn listen(path: &Path) -> Result<net::UnixListener> {
    let place = || format!("cannot listen at {}", path.display());
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(place)?;
    }
    if let Ok(there) = fs::symlink_metadata(path) {
        if !there.file_type().is_socket() {
            let what = format!("cannot listen at {}: something else is there", path.display());
            return Err(Failure::new(what)
                .hint("remove it, or set `socket` to another path")
                .into());
        }
        if net::UnixStream::connect(path).is_ok() {
            let what = format!("another daemon listens at {}", path.display());
            return Err(Failure::new(what).hint("stop it, or set `socket` to another path").into());
        }
        fs::remove_file(path).with_context(place)?;
    }
    let listener = net::UnixListener::bind(path).with_context(place)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).with_context(place)?;
    listener.set_nonblocking(true).with_context(place)?;
    Ok(listener)
}

/// Answers clients for ever.
pub async fn serve(listener: net::UnixListener, shared: Arc<Shared>) {
    let listener = match UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return log::warn!("control socket: {error}"),
    };
    let next = Arc::new(AtomicU64::new(1));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = Arc::clone(&shared);
                let id = next.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    if let Err(error) = answer(stream, &shared, id).await {
                        log::debug!("client {id}: {error:#}");
                    }
                });
            }
            Err(error) => {
                // Too many descriptors, as a rule.
                log::warn!("control socket: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn answer(stream: UnixStream, shared: &Arc<Shared>, id: u64) -> Result<()> {
    let (from, mut to) = stream.into_split();
    let mut from = BufReader::new(from);
    let mut line = String::new();
    timeout(PATIENCE, (&mut from).take(LONGEST_REQUEST).read_line(&mut line)).await??;
    let request = serde_json::from_str(&line);
    let mut hold = None;
    let answer = match &request {
        Err(error) => Answer { error: Some(format!("no request: {error}")), ..Answer::default() },
        Ok(Request::Status) => status(shared),
        Ok(Request::Follow) if shared.clients().len() >= MOST_CLIENTS => {
            let error = format!("{MOST_CLIENTS} clients follow already");
            Answer { error: Some(error), ..Answer::default() }
        }
        Ok(Request::Follow) => status(shared),
        Ok(Request::Pause) => pause(shared, &mut hold).await,
        Ok(Request::Dump { last_s, reason }) => dump(shared, *last_s, reason).await,
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    to.write_all(&text).await?;
    match request {
        Ok(Request::Follow) if answer.error.is_none() => follow(from, to, shared, id).await?,
        Ok(Request::Pause) => {
            // Until the client has gone.
            let mut rest = [0; 64];
            while from.read(&mut rest).await? > 0 {}
        }
        _ => {}
    }
    drop(hold);
    Ok(())
}

/// Stops tracing until what is put into `hold` is dropped.
async fn pause(shared: &Shared, hold: &mut Option<oneshot::Sender<()>>) -> Answer {
    if shared.config().gives_up_privileges {
        let error = "it has given up its privileges, and could not trace again".to_owned();
        return Answer { error: Some(error), ..Answer::default() };
    }
    let (resume, resumed) = oneshot::channel();
    let (paused, is_paused) = oneshot::channel();
    if !shared.pause(Pause { paused, resumed }) {
        return Answer { error: Some("somebody else has taken over".into()), ..Answer::default() };
    }
    *hold = Some(resume);
    match is_paused.await {
        Ok(()) => status(shared),
        Err(_) => Answer { error: Some("the daemon has ended".into()), ..Answer::default() },
    }
}

fn status(shared: &Shared) -> Answer {
    Answer {
        pid: Some(std::process::id()),
        run: Some(shared.page().run.clone()),
        interval_s: Some(shared.config().measure.interval.as_secs_f64()),
        collapse_threshold_ns: Some(shared.config().measure.tracer.collapse_threshold_ns),
        ..Answer::default()
    }
}

async fn dump(shared: &Shared, last_s: f64, reason: &str) -> Answer {
    let Ok(last) = Duration::try_from_secs_f64(last_s) else {
        let error = format!("{last_s} is no time");
        return Answer { error: Some(error), ..Answer::default() };
    };
    let (reply, written) = oneshot::channel();
    let reason = reason.chars().filter(|c| !c.is_control()).take(200).collect();
    let request = Dump { last, trigger: BY_DUMP, reason, reply: Some(reply) };
    lock(&shared.requests).push(request);
    shared.early.notify_one();
    match written.await {
        Ok(Ok(path)) => Answer { recording: Some(path), ..Answer::default() },
        Ok(Err(error)) => Answer { error: Some(error), ..Answer::default() },
        Err(_) => Answer { error: Some("the daemon has ended".into()), ..Answer::default() },
    }
}

async fn follow(
    mut from: BufReader<tokio::net::unix::OwnedReadHalf>,
    mut to: tokio::net::unix::OwnedWriteHalf,
    shared: &Shared,
    id: u64,
) -> io::Result<()> {
    let (client, mut reader) = client::new(id);
    shared.clients().push(client);
    shared.early.notify_one();
    let (mut said, mut bytes) = (Vec::new(), [0; 256]);
    let mut is_ending = false;
    loop {
        tokio::select! {
            piece = reader.next() => match piece {
                None => return to.shutdown().await,
                Some(piece) => {
                    // While it is written, what follows waits, and is counted.
                    let written = timeout(WRITE_TIME, to.write_all(&piece)).await;
                    if written.is_err() {
                        log::warn!("client {id} was cut off: it took nothing for {WRITE_TIME:?}");
                        shared.metrics().slow_clients += 1;
                    }
                    if let Err(error) = written.unwrap_or_else(|late| Err(late.into())) {
                        leave(shared, id);
                        return Err(error);
                    }
                }
            },
            read = from.read(&mut bytes), if !is_ending => match read {
                Ok(length) if length > 0 && said.len() < LONGEST_REQUEST as usize => {
                    said.extend_from_slice(&bytes[..length]);
                    is_ending = said.split_inclusive(|byte| *byte == b'\n').any(is_end);
                    if is_ending {
                        let mut clients = shared.clients();
                        clients.iter_mut().filter(|c| c.id() == id).for_each(client::Client::end);
                        drop(clients);
                        shared.early.notify_one();
                    }
                }
                _ => {
                    leave(shared, id);
                    return Ok(());
                }
            },
        }
    }
}

/// Whether a client that follows says with this line that it wants no more.
fn is_end(line: &[u8]) -> bool {
    line.strip_suffix(b"\n").is_some_and(|line| line.trim_ascii_end() == END.as_bytes())
}

fn leave(shared: &Shared, id: u64) {
    shared.clients().retain(|client| client.id() != id);
}
