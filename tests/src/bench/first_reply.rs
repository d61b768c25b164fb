//! What a customer's first word costs beyond the model's own time, on a gateway that was just claimed.
//!
//! The demo model answers at once, so the whole time from `chat.send` to the first piece of the reply
//! is OpenClaw's and ours.

use std::{path::PathBuf, time::Duration};

use anyhow::ensure;
use futures_util::SinkExt as _;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use super::Sample;
use crate::{
    api::Api,
    customer::{Customer, next_json},
    deployment::{Deployment, Options},
};

const WARMING: Duration = Duration::from_mins(20);

/// Gateways spoken to unless told otherwise.
const GATEWAYS: u32 = 5;

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Gateways claimed and spoken to [default: as many as memory allows, at most 5]
    #[arg(long)]
    pub gateways: Option<u32>,
    /// The real OpenClaw's image
    #[arg(long, env = "TIDEPOOL_MANIFEST")]
    pub manifest: PathBuf,
}

/// Measures and prints.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let count = match arguments.gateways {
        Some(count) => count,
        None => super::real_gateways_that_fit(GATEWAYS)?,
    };
    let manifest = Some(arguments.manifest);
    let options = Options {
        pool_size: count,
        max_servers: count,
        starting_at_once: 2,
        manifest,
        ..Options::default()
    };
    let tidepool = Deployment::start("bench-first-reply", options).await?;
    let api = tidepool.api()?;
    eprintln!("first-reply: warming {count} servers");
    let warm = |pool: &Value| super::claim::in_state(pool, "warm") >= count as usize;
    api.until("/pool", WARMING, warm).await?;
    let mut sample = Sample::default();
    for number in 0..count {
        sample.add(first_reply(&api, &format!("first-{number}")).await?);
    }
    sample.print(
        "first-reply",
        "first_reply",
        "ms",
        [Some(600.0), Some(2000.0)],
    )?;
    Ok(())
}

async fn first_reply(api: &Api, name: &str) -> anyhow::Result<f64> {
    let instance = api.create(name, 60).await?;
    let owner = Customer::owner_of(api, &instance).await?;
    let (mut socket, _) = owner.hello().await?;
    let begun = Instant::now();
    let say = json!({
        "type": "req", "id": "say", "method": "chat.send",
        "params": {
            "sessionKey": "main", "message": "Hello", "idempotencyKey": format!("bench-{name}"),
        },
    });
    socket.send(Message::text(say.to_string())).await?;
    loop {
        let frame = next_json(&mut socket).await?;
        ensure!(
            frame.get("id").and_then(Value::as_str) != Some("say")
                || frame.get("ok") == Some(&json!(true)),
            "chat.send was refused: {frame}"
        );
        let is_reply = frame.get("event").and_then(Value::as_str) == Some("chat")
            && matches!(
                frame.pointer("/payload/state").and_then(Value::as_str),
                Some("delta" | "final")
            );
        if is_reply {
            return Ok(begun.elapsed().as_secs_f64() * 1000.0);
        }
    }
}
