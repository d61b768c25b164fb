//! Metrics in Prometheus' text form, on a port of their own on this machine.
//!
//! Labels are words of ours and the operator's names of providers, never a model, an instance or an address:
//! what customers choose would make series without end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use axum::{Router, routing::get};
use metrics::{counter, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::{net::TcpListener, runtime::Handle, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    forward::Forwarder,
    ledger::{Figures, Outcome, Payer},
    serving::{self, Peer, Worker},
    usage::Usage,
};

/// Seconds; a model's first word comes after a tenth of one to some minutes.
const BUCKETS: [f64; 10] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0];
/// Histograms hold what came since the last look.
const UPKEEP: Duration = Duration::from_secs(5);

/// How an attempt ended.
#[derive(Debug)]
pub(crate) struct Ended<'a> {
    pub(crate) provider: &'a str,
    pub(crate) dialect: &'static str,
    pub(crate) payer: Payer,
    pub(crate) outcome: Outcome,
    pub(crate) usage: Usage,
    pub(crate) cost_microcents: Option<u64>,
    pub(crate) first_token: Option<Duration>,
}

/// Counts an attempt.
pub(crate) fn ended(ended: &Ended<'_>) {
    let provider = ended.provider.to_owned();
    let payer = match ended.payer {
        Payer::Managed => "managed",
        Payer::Own => "own",
        Payer::Demo => "demo",
    };
    counter!("tidepool_proxy_attempts_total", "provider" => provider.clone(),
        "dialect" => ended.dialect, "payer" => payer, "outcome" => ended.outcome.word())
    .increment(1);
    for (kind, tokens) in [
        ("input", ended.usage.input),
        ("cache_read", ended.usage.cache_read),
        (
            "cache_write",
            ended
                .usage
                .cache_write_5m
                .saturating_add(ended.usage.cache_write_1h),
        ),
        ("output", ended.usage.output),
    ] {
        if tokens > 0 {
            counter!("tidepool_proxy_tokens_total", "provider" => provider.clone(), "kind" => kind)
                .increment(tokens);
        }
    }
    if let Some(cost) = ended.cost_microcents {
        counter!("tidepool_proxy_cost_microcents_total", "provider" => provider.clone(), "payer" => payer)
            .increment(cost);
    }
    if let Some(first_token) = ended.first_token {
        histogram!("tidepool_proxy_first_token_seconds", "provider" => provider)
            .record(first_token);
    }
}

/// Counts a request that was not passed on.
pub(crate) fn refused(code: &'static str) {
    counter!("tidepool_proxy_refused_total", "code" => code).increment(1);
}

/// Makes the recorder of this process; before anything is counted.
pub fn install() -> anyhow::Result<PrometheusHandle> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)
        .context("set up metrics")?
        .install_recorder()
        .context("set up metrics")
}

/// Binds the port, which must be this machine's alone.
pub async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    ensure!(
        address.ip().is_loopback(),
        "--metrics: {address} is not a loopback address"
    );
    TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address} for metrics"))
}

/// Answers `GET /metrics` until cancelled.
pub async fn serve(
    listener: TcpListener,
    exporter: PrometheusHandle,
    forwarder: Arc<Forwarder>,
    cancel: CancellationToken,
) {
    let upkeep = exporter.clone();
    let render = async move || {
        show(&forwarder);
        exporter.render()
    };
    let router = Router::new().route("/metrics", get(render));
    let worker = Worker {
        runtime: Handle::current(),
        router,
    };
    let upkeep = async {
        loop {
            sleep(UPKEEP).await;
            upkeep.run_upkeep();
        }
    };
    tokio::join!(
        serving::serve(listener, vec![worker], |_| Peer::Known, cancel.clone()),
        cancel.run_until_cancelled(upkeep)
    );
}

fn show(forwarder: &Forwarder) {
    let Figures {
        begun,
        refused,
        ended,
        unjournalled,
        unnoted,
        recovered,
        written,
        waiting,
        failed_batches,
        damaged_lines,
        journal_bytes,
    } = forwarder.ledger.figures();
    for (name, value) in [
        ("tidepool_proxy_ledger_begun_total", begun),
        ("tidepool_proxy_ledger_refused_total", refused),
        ("tidepool_proxy_ledger_ended_total", ended),
        ("tidepool_proxy_ledger_unjournalled_total", unjournalled),
        ("tidepool_proxy_ledger_unnoted_total", unnoted),
        ("tidepool_proxy_ledger_recovered_total", recovered),
        ("tidepool_proxy_ledger_written_total", written),
        ("tidepool_proxy_ledger_failed_batches_total", failed_batches),
        ("tidepool_proxy_ledger_damaged_lines_total", damaged_lines),
    ] {
        counter!(name).absolute(value);
    }
    gauge!("tidepool_proxy_ledger_waiting").set(number(waiting));
    gauge!("tidepool_proxy_ledger_journal_bytes").set(number(journal_bytes));
    gauge!("tidepool_proxy_under_way").set(number(
        begun.saturating_add(recovered).saturating_sub(ended),
    ));
    if let Some(shared) = forwarder.rates.is_shared() {
        gauge!("tidepool_proxy_redis_counts").set(f64::from(u8::from(shared)));
    }
    if let Some(age) = forwarder.directory.age() {
        gauge!("tidepool_proxy_directory_age_seconds").set(age.as_secs_f64());
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn number(value: u64) -> f64 {
    value as f64
}
