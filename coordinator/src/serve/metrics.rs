//! Metrics in Prometheus' text form, on a port of their own.

use std::net::SocketAddr;

use anyhow::Context as _;
use axum::{Router, routing::get};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::api;

/// Binds the port and answers `GET /metrics` until cancelled.
pub(super) async fn serve(
    address: SocketAddr,
    exporter: PrometheusHandle,
    tasks: &TaskTracker,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address} for metrics"))?;
    let router = Router::new().route("/metrics", get(async move || exporter.render()));
    tasks.spawn(api::serve(listener, router, cancel));
    Ok(())
}
