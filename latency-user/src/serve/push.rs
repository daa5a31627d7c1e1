//! Sends metrics to a collector of OpenTelemetry now and then: one POST of OTLP over HTTP each time.
//! Values count from the start, so a push that fails loses nothing that the next one does not have.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message;
use tokio::{net::TcpStream, time::timeout};

use super::{endpoint::Endpoint, metrics::otlp, shared::Shared};

/// A push that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// The last push, when the daemon ends, may take so long.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// An answer is no longer than this.
const MOST_BYTES: usize = 64 << 10;

/// Pushes for ever.
pub async fn serve(shared: Arc<Shared>) {
    let mut failed_before = false;
    loop {
        tokio::time::sleep(shared.config().otlp_every).await;
        let Some(result) = push(&shared, PATIENCE).await else { continue };
        match (&result, failed_before) {
            (Err(error), false) => log::warn!("metrics are not pushed: {error:#}"),
            (Ok(()), true) => log::warn!("metrics are pushed again"),
            _ => {}
        }
        failed_before = result.is_err();
    }
}

/// Pushes the last values.
pub async fn last(shared: &Shared) {
    if let Some(Err(error)) = push(shared, LAST_PATIENCE).await {
        log::warn!("the last metrics are not pushed: {error:#}");
    }
}

/// Pushes once; `None`: the configuration names no collector.
async fn push(shared: &Shared, patience: Duration) -> Option<Result<()>> {
    let endpoint = shared.config().otlp.clone()?;
    let pushed = timeout(patience, post(shared, &endpoint)).await;
    let pushed = pushed
        .unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {} s", patience.as_secs())))
        .with_context(|| endpoint.to_string());
    if pushed.is_err() {
        shared.metrics().failed_pushes += 1;
    }
    Some(pushed)
}

async fn post(shared: &Shared, endpoint: &Endpoint) -> Result<()> {
    let message = otlp::request(shared.metrics().clone()).context("a metric has no form")?;
    let stream = TcpStream::connect(endpoint.address).await.context("cannot connect")?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.context("no HTTP")?;
    let connection = tokio::spawn(connection);
    let request = Request::post(&endpoint.path)
        .header(header::HOST, endpoint.address.to_string())
        .header(header::CONTENT_TYPE, "application/x-protobuf")
        .header(header::USER_AGENT, concat!("latency-user/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Full::new(Bytes::from(message.encode_to_vec())))
        .context("the path is not one of HTTP")?;
    let answer = sender.send_request(request).await;
    let answer = async {
        let (head, body) = answer?.into_parts();
        let body = Limited::new(body, MOST_BYTES).collect().await;
        anyhow::Ok((head.status, body.map_err(|e| anyhow::anyhow!(e))?.to_bytes()))
    };
    let answer = answer.await;
    connection.abort();
    let (status, body) = answer.context("no answer")?;
    ensure!(status.is_success(), "it answers {status}");
    let partly = ExportMetricsServiceResponse::decode(body).unwrap_or_default().partial_success;
    let rejected = partly.as_ref().map_or(0, |partly| partly.rejected_data_points);
    let why = partly.map(|partly| partly.error_message).unwrap_or_default();
    ensure!(rejected == 0, "it refuses {rejected} values: {}", why.escape_debug());
    Ok(())
}
