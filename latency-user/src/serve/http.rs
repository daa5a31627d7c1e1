//! HTTP, read-only: metrics, health, a page about the last minutes, and pages of recordings.

use std::{
    collections::VecDeque,
    convert::Infallible,
    fs, io,
    net::SocketAddr,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use sha2::{Digest, Sha256};
use tokio::{
    net::{TcpListener, UnixListener},
    task::AbortHandle,
    time::timeout,
};

use super::{
    config::Listen,
    dump,
    metrics::{self, Form},
    shared::{Front, Shared, lock},
};
use crate::{
    recording::loaded::LoadedRecording,
    views::{format::bytes, html},
};

/// Connections at a time. With more, the oldest is closed: those that say nothing keep nobody out.
const MOST_CONNECTIONS: usize = 64;

/// A request's head comes within this time, and so does the next one on the same connection.
const HEAD_TIME: Duration = Duration::from_secs(60);

/// The page is made anew after this time.
const PAGE_AGE: Duration = Duration::from_secs(2);

/// A connection is closed after this time, and cut off after twice of it.
const CONNECTION_TIME: Duration = Duration::from_secs(300);

/// The page is fetched again after this time.
const REFRESH_S: u64 = 30;

/// Recordings on the page.
const MOST_KEPT: usize = 50;

/// What HTTP is answered at.
pub enum Listener {
    /// An address.
    Tcp(std::net::TcpListener),
    /// A Unix socket.
    Unix(net::UnixListener),
}

/// A listener in the event loop.
enum Accepting {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// How a request came.
#[derive(Clone, Debug)]
struct Via {
    /// The address that it came to; `None`: a Unix socket.
    local: Option<SocketAddr>,
}

/// The listeners of the configuration.
///
/// # Errors
///
/// When the kernel refuses; systemd passes none.
pub fn listen(listen: &Listen) -> Result<Vec<Listener>> {
    match listen {
        Listen::Nowhere => Ok(Vec::new()),
        Listen::Address(address) => {
            let place = || format!("cannot listen at {address}");
            let listener = std::net::TcpListener::bind(address).with_context(place)?;
            listener.set_nonblocking(true).with_context(place)?;
            Ok(vec![Listener::Tcp(listener)])
        }
        Listen::Unix(path) => {
            let place = || format!("cannot listen at {}", path.display());
            let is_left_over = fs::symlink_metadata(path)
                .is_ok_and(|there| there.file_type().is_socket())
                && net::UnixStream::connect(path).is_err();
            if is_left_over {
                fs::remove_file(path).with_context(place)?;
            }
            let listener = net::UnixListener::bind(path).with_context(place)?;
            listener.set_nonblocking(true).with_context(place)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o660)).with_context(place)?;
            Ok(vec![Listener::Unix(listener)])
        }
        Listen::Systemd => {
            let passed: Vec<_> = sd_notify::listen_fds().context("sockets of systemd")?.collect();
            anyhow::ensure!(
                !passed.is_empty(),
                "systemd passed no socket: is there a .socket unit?"
            );
            passed.into_iter().map(from_systemd).collect()
        }
    }
}

fn from_systemd(fd: std::os::fd::RawFd) -> Result<Listener> {
    use std::os::fd::FromRawFd;
    // SAFETY: systemd passed it to this process for this purpose, and nothing else uses it.
    let socket = unsafe { std::net::TcpListener::from_raw_fd(fd) };
    socket.set_nonblocking(true).context("a socket of systemd")?;
    if socket.local_addr().is_ok() {
        return Ok(Listener::Tcp(socket));
    }
    Ok(Listener::Unix(net::UnixListener::from(std::os::fd::OwnedFd::from(socket))))
}

/// Answers requests for ever.
pub async fn serve(listener: Listener, shared: Arc<Shared>) {
    let listener = match listener {
        Listener::Tcp(tcp) => TcpListener::from_std(tcp).map(Accepting::Tcp),
        Listener::Unix(unix) => UnixListener::from_std(unix).map(Accepting::Unix),
    };
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => return log::warn!("HTTP: {error}"),
    };
    let mut connections: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let accepted = match &listener {
            Accepting::Tcp(tcp) => tcp.accept().await.map(|(stream, _)| {
                let via = Via { local: stream.local_addr().ok() };
                (via, Stream::Tcp(stream))
            }),
            Accepting::Unix(unix) => {
                unix.accept().await.map(|(stream, _)| (Via { local: None }, Stream::Unix(stream)))
            }
        };
        let (via, stream) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Too many descriptors, as a rule.
                log::warn!("HTTP: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let shared = Arc::clone(&shared);
        connections.retain(|connection| !connection.is_finished());
        if connections.len() >= MOST_CONNECTIONS
            && let Some(oldest) = connections.pop_front()
        {
            oldest.abort();
        }
        let answered = tokio::spawn(async move {
            match stream {
                Stream::Tcp(stream) => connection(TokioIo::new(stream), via, shared).await,
                Stream::Unix(stream) => connection(TokioIo::new(stream), via, shared).await,
            }
        });
        connections.push_back(answered.abort_handle());
    }
}

enum Stream {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

async fn connection<I>(io: I, via: Via, shared: Arc<Shared>)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let (via, shared) = (via.clone(), Arc::clone(&shared));
        async move { Ok::<_, Infallible>(answer(&request, &via, &shared).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(16 << 10)
        .serve_connection(io, service);
    let mut served = std::pin::pin!(served);
    if timeout(CONNECTION_TIME, served.as_mut()).await.is_err() {
        served.as_mut().graceful_shutdown();
        let _ = timeout(CONNECTION_TIME, served).await;
    }
}

async fn answer(
    request: &Request<Incoming>,
    via: &Via,
    shared: &Arc<Shared>,
) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let path = request.uri().path();
    match path {
        "/metrics" => metrics(request.headers(), shared),
        "/healthz" => match shared.is_healthy() {
            true => text(StatusCode::OK, "ok\n"),
            false => text(StatusCode::SERVICE_UNAVAILABLE, "no interval for too long\n"),
        },
        "/readyz" => match shared.page().last_interval {
            Some(_) => text(StatusCode::OK, "ok\n"),
            None => text(StatusCode::SERVICE_UNAVAILABLE, "no interval yet\n"),
        },
        _ => match may_see_page(request.headers(), via, shared) {
            Err(why) => text(StatusCode::FORBIDDEN, why),
            Ok(()) => {
                // Who reads slowly, or has it read aloud, keeps the page still.
                let refresh_s =
                    (path == "/" && request.uri().query() != Some("still")).then_some(REFRESH_S);
                page_of(path, refresh_s, shared).await
            }
        },
    }
}

/// Whether the page and recordings are shown, which name processes and addresses.
fn may_see_page(headers: &HeaderMap, via: &Via, shared: &Shared) -> Result<(), &'static str> {
    let Some(local) = via.local else { return Ok(()) };
    if !local.ip().is_loopback() && !shared.config().page_everywhere {
        return Err(
            "the page is shown on loopback and Unix sockets only, unless the configuration \
                    has `page-everywhere = true`\n",
        );
    }
    // A page of another site may make its name point here, and read what it gets.
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let is_own = host == local.to_string()
        || (local.ip().is_loopback() && host == format!("localhost:{}", local.port()));
    if is_own { Ok(()) } else { Err("the Host of the request is not this listener\n") }
}

fn metrics(headers: &HeaderMap, shared: &Shared) -> Response<Full<Bytes>> {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let form = Form::accepted(accept.unwrap_or_default());
    match metrics::render(shared.metrics().clone(), form) {
        Ok(body) => {
            let mut response = Response::new(Full::new(body.into()));
            let kind = HeaderValue::from_static(form.content_type());
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        Err(error) => {
            log::warn!("metrics: {error}");
            text(StatusCode::INTERNAL_SERVER_ERROR, "a metric has no form\n")
        }
    }
}

async fn page_of(
    path: &str,
    refresh_s: Option<u64>,
    shared: &Arc<Shared>,
) -> Response<Full<Bytes>> {
    let shared = Arc::clone(shared);
    let path = path.to_owned();
    let made = tokio::task::spawn_blocking(move || match path.as_str() {
        "/" => front(&shared, refresh_s).map(Some),
        _ => match path.strip_prefix("/recordings/") {
            Some(name) => recording(&shared, name),
            None => Ok(None),
        },
    });
    match made.await {
        Ok(Ok(Some(page))) => {
            let mut response = html_response(page);
            if let Some(seconds) = refresh_s {
                response.headers_mut().insert(header::REFRESH, seconds.into());
            }
            response
        }
        Ok(Ok(None)) => text(StatusCode::NOT_FOUND, "there is no such page\n"),
        Ok(Err(error)) => {
            log::warn!("page: {error:#}");
            text(StatusCode::INTERNAL_SERVER_ERROR, "the page could not be made: see the log\n")
        }
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the page could not be made\n"),
    }
}

/// The page about the last minutes. Who asks for it again and again gets the same one for a while.
fn front(shared: &Shared, refresh_s: Option<u64>) -> Result<Vec<u8>> {
    let mut last = lock(&shared.front);
    let is_fresh = |front: &&Front| front.made.elapsed() < PAGE_AGE && front.refresh_s == refresh_s;
    if let Some(front) = last.as_ref().filter(is_fresh) {
        return Ok(front.text.clone());
    }
    let text = make_front(shared, refresh_s)?;
    *last = Some(Front { made: Instant::now(), refresh_s, text: text.clone() });
    Ok(text)
}

fn make_front(shared: &Shared, refresh_s: Option<u64>) -> Result<Vec<u8>> {
    // The measurement must not wait while sums are made.
    let (window, minute, error, run) = {
        let page = shared.page();
        (page.window.clone(), page.minute.clone(), page.ring_error.clone(), page.run.clone())
    };
    let recent = window.recent(&minute, &run);
    let mut kept = dump::kept(&dump::directory(&shared.config().state));
    kept.reverse();
    let kept = kept.into_iter().take(MOST_KEPT).filter_map(|(path, size)| {
        let name = path.file_stem()?.to_str()?.to_owned();
        Some(html::Kept { href: format!("recordings/{name}"), size: bytes(size), name })
    });
    let notes = error.map(|error| format!("Intervals are not kept: {error}"));
    let live = html::Live { refresh_s, notes: notes.into_iter().collect(), kept: kept.collect() };
    let culprits = recent.totals.stalls.culprits();
    let recording = html::Recording {
        name: format!("{}, the last minutes", run.host),
        summary: &recent.summary,
        series: &recent.series,
        timeline: &recent.timeline,
        stalls: recent.totals.stalls.longest(),
        collapses: recent.totals.stalls.slowest(),
        culprits: &culprits,
        time: recent.totals.stalls.time(),
        settings: None,
        notes: &[],
    };
    let mut text = Vec::new();
    html::live_page(&recording, &live, &mut text)?;
    Ok(text)
}

/// The page of a recording; `None`: there is none of this name.
fn recording(shared: &Shared, name: &str) -> Result<Option<Vec<u8>>> {
    let Some(path) = path_of(&dump::directory(&shared.config().state), name) else {
        return Ok(None);
    };
    let recording = match LoadedRecording::read(&path) {
        Ok(recording) => recording,
        Err(crate::recording::reader::ReadError::Io { source, .. })
            if source.kind() == io::ErrorKind::NotFound =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let (summary, series) =
        recording.totals.summary().context("the recording is another program's log")?;
    let totals = &recording.totals.totals;
    let culprits = totals.stalls.culprits();
    let shown = html::Recording {
        name: name.to_owned(),
        summary: &summary,
        series: &series,
        timeline: &recording.timeline,
        stalls: totals.stalls.longest(),
        collapses: totals.stalls.slowest(),
        culprits: &culprits,
        time: totals.stalls.time(),
        settings: recording.totals.settings.as_ref(),
        notes: &recording.totals.notes,
    };
    let mut text = Vec::new();
    html::page(&[shown], None, None, &mut text)?;
    Ok(Some(text))
}

/// The file of a recording: only names that this program gives.
fn path_of(directory: &Path, name: &str) -> Option<PathBuf> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let is_name = !name.is_empty() && !name.starts_with('.') && name.chars().all(is_plain);
    is_name.then(|| directory.join(format!("{name}.hlog")))
}

fn html_response(page: Vec<u8>) -> Response<Full<Bytes>> {
    let policy = format!(
        "default-src 'none'; style-src '{}'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
        style_hash(&page)
    );
    let mut response = Response::new(Full::new(page.into()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    protect(headers);
    response
}

/// The hash of the style sheet in the page, as a content policy has it.
fn style_hash(page: &[u8]) -> String {
    let text = String::from_utf8_lossy(page);
    let style = text.split_once("<style>").and_then(|(_, rest)| rest.split_once("</style>"));
    let hash = Sha256::digest(style.map_or("", |(style, _)| style).as_bytes());
    format!("sha256-{}", STANDARD.encode(hash))
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(body.as_bytes())));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    protect(response.headers_mut());
    response
}

fn protect(headers: &mut HeaderMap) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let policy = header::HeaderName::from_static("cross-origin-resource-policy");
    headers.insert(policy, HeaderValue::from_static("same-origin"));
}
