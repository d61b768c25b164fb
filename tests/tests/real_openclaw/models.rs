//! From a customer's word to the ledger: the real OpenClaw, its proxy, a provider that counts.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::SinkExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use tidepool_tests::{
    api::Api,
    customer::{Customer, Socket, next_json},
    fake_provider::{Ending, FakeProvider, Served},
};
use tokio_tungstenite::tungstenite::Message;

const PATIENCE: Duration = Duration::from_mins(1);
/// Turns until the proxy must have heard of the provider; the demo model answers those before.
const TURNS_MAX: u32 = 10;

/// A turn with a call of a tool is in the customer's usage as the provider counted it.
pub(crate) async fn usage_is_what_the_provider_counted(
    api: &Api,
    instance: &Value,
) -> anyhow::Result<()> {
    let fake = FakeProvider::start().await?;
    let provider = json!({"kind": "openai", "base_url": fake.url(), "key": fake.key()});
    put(api, "/providers/fake", &provider).await?;
    let targets = json!({"targets": [{"provider": "fake", "model": "gpt-4o-mini"}]});
    put(api, "/models/basic/default", &targets).await?;

    let owner = Customer::owner_of(api, instance).await?;
    let (mut socket, _) = owner.hello().await?;
    for number in 0..TURNS_MAX {
        turn(&mut socket, number).await?;
        if !fake.served().is_empty() {
            break;
        }
    }
    let served = fake.settled(PATIENCE).await?;
    let is_whole =
        |one: &Served| one.ending == Ending::Whole && one.key.as_deref() == Some(fake.key());
    ensure!(served.iter().all(is_whole), "{served:?}");
    let called = served
        .iter()
        .position(|one| one.called.as_deref() == Some("ls"));
    let answered = served.iter().position(|one| one.has_result);
    ensure!(
        called.is_some() && called < answered,
        "no tool answered: {served:?}"
    );

    let id = instance
        .get("id")
        .and_then(Value::as_str)
        .context("an id")?;
    let counted = counted(&served);
    let is_counted = |usage: &Value| told(usage) == counted;
    let path = format!("/instances/{id}/usage");
    api.until(&path, PATIENCE, is_counted)
        .await
        .with_context(|| format!("the provider counted {counted:?}"))?;
    Ok(())
}

async fn put(api: &Api, path: &str, body: &Value) -> anyhow::Result<()> {
    let (status, answer) = api.send(Method::PUT, path, &[], Some(body)).await?;
    ensure!(status.is_success(), "{path}: {status} {answer}");
    Ok(())
}

/// Says something, and waits for the end of the run that it starts.
async fn turn(socket: &mut Socket, number: u32) -> anyhow::Result<()> {
    let say = json!({
        "type": "req", "id": format!("say-{number}"), "method": "chat.send",
        "params": {
            "sessionKey": "main", "message": "Please use ls {\"path\": \".\"} once.",
            "idempotencyKey": format!("models-{number}"),
        },
    });
    socket.send(Message::text(say.to_string())).await?;
    loop {
        let frame = next_json(socket).await?;
        let is_answer = frame.get("id") == say.get("id");
        ensure!(
            !is_answer || frame.get("ok") == Some(&json!(true)),
            "chat.send was refused: {frame}"
        );
        if frame.get("event").and_then(Value::as_str) != Some("chat") {
            continue;
        }
        match frame.pointer("/payload/state").and_then(Value::as_str) {
            Some("final") => return Ok(()),
            Some("error" | "aborted") => anyhow::bail!("the turn ended badly: {frame}"),
            _ => {}
        }
    }
}

/// Requests, of these without an exact count, tokens from no cache, from the cache, generated, and the cost.
type Sums = [u64; 6];

/// Each request is rounded by itself; prices in picodollars from OpenAI's list.
fn counted(served: &[Served]) -> Sums {
    served.iter().fold([0; 6], |sums, one| {
        let tokens = &one.tokens;
        let pico = 150_000 * tokens.input + 75_000 * tokens.cache_read + 600_000 * tokens.output;
        let cost = (pico + 5000) / 10_000;
        let of_one = [1, 0, tokens.input, tokens.cache_read, tokens.output, cost];
        std::array::from_fn(|at| sums[at] + of_one[at])
    })
}

fn told(usage: &Value) -> Sums {
    let rows = usage.get("data").and_then(Value::as_array);
    let of_fake = rows
        .into_iter()
        .flatten()
        .filter(|row| row["provider"] == "fake");
    of_fake.fold([0; 6], |sums, row| {
        let of_one = [
            "requests",
            "estimated",
            "input_tokens",
            "cache_read_tokens",
            "output_tokens",
            "cost_microcents",
        ]
        .map(|field| row[field].as_u64().unwrap_or_default());
        std::array::from_fn(|at| sums[at] + of_one[at])
    })
}
