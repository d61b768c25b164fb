//! `tidepool instance create`.

#[cfg(test)]
mod tests;

use clap::Args;
use reqwest::Method;
use serde_json::json;
use tokio::time::{Duration, Instant, sleep};

use super::{lines, path};
use crate::{
    ambient::Chance,
    api::{
        idempotency,
        instances::{create::CreateInstance, login_links::LoginLink, view::InstanceView},
        params::MAX_WAIT_S,
    },
    cli::{
        CommandFailed,
        client::{CallFailed, Client},
        config::read_json,
        output::Output,
        spinner,
    },
    model::InstanceStatus,
};

/// What to create.
#[derive(Debug, Args)]
pub struct Options {
    /// The first label of its host name
    name: String,
    #[arg(long)]
    tier: Option<String>,
    /// The tier's first if not given
    #[arg(long)]
    region: Option<String>,
    /// The caller's own id for it; unique
    #[arg(long)]
    external_id: Option<String>,
    /// File with OpenClaw configuration, or - for standard input
    #[arg(long, value_name = "FILE")]
    config: Option<String>,
    /// Wait until it runs, up to so many seconds [default when given alone: 120]
    #[arg(long, value_name = "SECS", num_args = 0..=1, require_equals = true, default_missing_value = "120")]
    wait: Option<u64>,
    /// Print no login link
    #[arg(long)]
    no_login_link: bool,
}

pub(super) async fn run(
    options: Options,
    client: &Client,
    output: &mut Output,
) -> Result<(), CommandFailed> {
    let body = CreateInstance {
        name: options.name,
        tier: options.tier,
        region: options.region,
        external_id: options.external_id,
        config: options.config.as_deref().map(read_json).transpose()?,
    };
    let patience = Duration::from_secs(options.wait.unwrap_or(0));
    let created = create(&body, patience, client);
    let view = spinner::during("creating", created).await?;
    let link: Option<LoginLink> =
        if view.status == InstanceStatus::Running && !options.no_login_link {
            Some(
                client
                    .post(&path(&view.id, "/login_links"), &json!({}))
                    .await?,
            )
        } else {
            None
        };
    if output.wants_json() {
        return output.json(&json!({"instance": view, "login_link": link}));
    }
    for line in lines::details(&view) {
        output.line(&line)?;
    }
    match link {
        Some(link) => output.line(&format!("  sign in     {}", link.url)),
        None => Ok(()),
    }
}

/// Tries of a request whose answer was lost, and the pause between two.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(300);

/// Asks for it, under one key, so that a try whose answer was lost makes no second instance.
async fn ask(
    body: &CreateInstance,
    patience: Duration,
    client: &Client,
) -> Result<InstanceView, CallFailed> {
    let key = Chance::from_os().secret();
    let mut tries = 0;
    loop {
        let request = client
            .request(Method::POST, "/v1/instances")
            .header(idempotency::HEADER, &key)
            .header("prefer", format!("wait={}", patience.as_secs()))
            .json(body);
        tries += 1;
        match client.send(request).await {
            Err(CallFailed::NotReachable { source, .. })
                if !source.is_connect() && tries < TRIES =>
            {
                sleep(PAUSE).await;
            }
            answer => return answer,
        }
    }
}

/// Creates, and waits on by as many calls as the patience takes.
async fn create(
    body: &CreateInstance,
    patience: Duration,
    client: &Client,
) -> Result<InstanceView, CallFailed> {
    let deadline = Instant::now() + patience;
    let first = patience.min(Duration::from_secs(MAX_WAIT_S));
    let mut view = ask(body, first, client).await?;
    while matches!(
        view.status,
        InstanceStatus::Pending | InstanceStatus::Starting
    ) {
        let left = deadline.saturating_duration_since(Instant::now()).as_secs();
        if left == 0 {
            break;
        }
        let wait = format!("/wait?timeout_s={}", left.min(MAX_WAIT_S));
        view = match client.get(&path(&view.id, &wait)).await {
            Ok(view) => view,
            Err(CallFailed::NotYet) => client.get(&path(&view.id, "")).await?,
            Err(error) => return Err(error),
        };
    }
    Ok(view)
}
