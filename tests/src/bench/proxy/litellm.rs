//! LiteLLM in front of the same upstream, asked the same.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use tokio::{process::Command, time::Instant};

use super::{
    SMALL_BYTES, SOME,
    client::{Connection, Question},
    deployment::{self, Deployment},
    load,
    program::Program,
    until,
};

const VARIABLE: &str = "TIDEPOOL_LITELLM_PYTHON";
/// It reads a large list of prices first.
const PATIENCE: Duration = Duration::from_mins(3);
const REQUESTS: usize = 2_000;

/// The Python that has it.
pub(super) fn python() -> anyhow::Result<PathBuf> {
    let python = std::env::var_os(VARIABLE)
        .with_context(|| format!("{VARIABLE} names no Python with `litellm[proxy]`"))?;
    Ok(python.into())
}

/// Requests a second of CPU, in its one process.
pub(super) async fn requests_per_s_core(
    python: &PathBuf,
    deployment: &Deployment,
    quick: bool,
) -> anyhow::Result<f64> {
    let requests = if quick { REQUESTS / 10 } else { REQUESTS };
    let address = deployment::free_address().await?;
    let settings = deployment.folder().join("litellm.yaml");
    let upstream = deployment.upstream();
    // JSON is YAML. No master key: it identifies nobody, counts nothing and limits nobody.
    let content = serde_json::json!({
        "model_list": [{
            "model_name": "default",
            "litellm_params": {
                "model": "openai/gpt-4o-mini",
                "api_base": format!("http://{upstream}/v1"),
                "api_key": "none",
            },
        }],
    });
    std::fs::write(&settings, content.to_string())?;
    let mut command = Command::new(python);
    command
        .args(["-c", "from litellm import run_server; run_server()"])
        .arg("--config")
        .arg(&settings)
        .args([
            "--host",
            "127.0.0.1",
            "--num_workers",
            "1",
            "--telemetry",
            "False",
            "--port",
        ])
        .arg(address.port().to_string())
        .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        // It listens on the loopback, for a minute, in front of a provider that is none.
        .env(
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY",
            "true",
        )
        .env("LITELLM_LOG", "ERROR");
    let log = deployment.folder().join("litellm.log");
    let program = Program::logged(&mut command, &log)?;
    let question = Question::plain(SMALL_BYTES);
    let from = deployment.address_of(0)?;
    let started = until("LiteLLM answers", PATIENCE, async || {
        let Ok(mut connection) = Connection::open(from, address).await else {
            return false;
        };
        connection.timed(&question).await.is_ok()
    });
    started
        .await
        .with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
    let mut connections = Vec::new();
    for number in 0..SOME {
        connections.push(Connection::open(deployment.address_of(number)?, address).await?);
    }
    let connections = load::ask(connections, &question, 10).await?;
    let (before, begun) = (program.cpu()?, Instant::now());
    load::ask(connections, &question, requests / SOME).await?;
    let cpu = program.cpu()?.saturating_sub(before).as_secs_f64();
    let asked = f64::from(u32::try_from(requests / SOME * SOME)?);
    let seconds = begun.elapsed().as_secs_f64();
    eprintln!("proxy: LiteLLM: {asked} requests in {seconds:.1} s, {cpu:.1} s of CPU");
    Ok(asked / cpu)
}
