//! Clients that others wrote, against the fake provider and against the real proxy in front of it.
//!
//! Straight, they show that the fake is what their authors take for a provider. Through the proxy they
//! must see the same, and the ledger must have what the fake counted, row for row.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "sdk/client.rs"]
mod client;
#[path = "sdk/expect.rs"]
mod expect;
#[path = "sdk/ledger.rs"]
mod ledger;
#[path = "sdk/lists.rs"]
mod lists;
#[path = "sdk/proxy.rs"]
mod proxy;

use std::time::Duration;

use tidepool_tests::fake_provider::FakeProvider;

use self::{
    client::{Client, Runtime},
    expect::{Errors, Route},
    proxy::Proxy,
};

const PATIENCE: Duration = Duration::from_mins(2);

const GPT: &str = "gpt-4o-mini";
const CLAUDE: &str = "claude-haiku-4-5";
const GEMINI: &str = "gemini-2.5-flash";

const REFUSED: [&str; 4] = ["refused 400", "refused 401", "refused 429", "refused 500"];
const OPENAI: &[&str] = &[
    "responses plain",
    "responses stream",
    "responses tool",
    "embeddings",
    "models",
    "bare stream",
    "responses broken",
    "responses stumbled",
    "responses left",
];

const PYTHON: Client = Client {
    runtime: Runtime::Python,
    script: "",
    provider: "",
    kind: "openai",
    model: GPT,
    more: &[],
    errors: Errors::Named,
};
const NODE: Client = Client {
    runtime: Runtime::Node,
    ..PYTHON
};

/// Straight, then through the proxy; each with a provider of its own.
async fn is_content(client: Client) -> anyhow::Result<()> {
    if client.is_missing() {
        return Ok(());
    }
    let fake = FakeProvider::start().await?;
    let told = client.run(&fake.url(), fake.key()).await?;
    let served = fake.settled(PATIENCE).await?;
    expect::all(&client, Route::Straight, &told, &served);

    let fake = FakeProvider::start().await?;
    let proxy = Proxy::start(&client, &fake).await?;
    let told = client.run(&proxy.url(), "no-key-of-ours").await?;
    let served = fake.settled(PATIENCE).await?;
    expect::all(&client, Route::Proxy, &told, &served);
    let rows = proxy.rows(served.len()).await?;
    ledger::agrees(&client, &served, &rows);
    Ok(())
}

#[tokio::test]
async fn openais_python_client_is_content() -> anyhow::Result<()> {
    is_content(Client {
        script: "openai_python.py",
        more: &[OPENAI, &["tool stream"]],
        ..PYTHON
    })
    .await
}

#[tokio::test]
async fn anthropics_python_client_is_content() -> anyhow::Result<()> {
    is_content(Client {
        script: "anthropic_python.py",
        kind: "anthropic",
        model: CLAUDE,
        more: &[&["count", "models"]],
        ..PYTHON
    })
    .await
}

#[tokio::test]
async fn googles_python_client_is_content() -> anyhow::Result<()> {
    is_content(Client {
        script: "genai_python.py",
        kind: "gemini",
        model: GEMINI,
        more: &[&["count", "models"]],
        errors: Errors::ClientOrServer,
        ..PYTHON
    })
    .await
}

#[tokio::test]
async fn openais_node_client_is_content() -> anyhow::Result<()> {
    is_content(Client {
        script: "openai_node.mjs",
        more: &[OPENAI],
        ..NODE
    })
    .await
}

#[tokio::test]
async fn anthropics_node_client_is_content() -> anyhow::Result<()> {
    is_content(Client {
        script: "anthropic_node.mjs",
        kind: "anthropic",
        model: CLAUDE,
        more: &[&["count", "models"]],
        ..NODE
    })
    .await
}

#[tokio::test]
async fn googles_node_client_is_content() -> anyhow::Result<()> {
    is_content(Client {
        script: "genai_node.mjs",
        kind: "gemini",
        model: GEMINI,
        more: &[&["count", "models"]],
        errors: Errors::Only("ApiError"),
        ..NODE
    })
    .await
}

const VERCEL: Client = Client {
    script: "vercel_node.mjs",
    errors: Errors::Only("AI_APICallError"),
    ..NODE
};

#[tokio::test]
async fn vercels_sdk_is_content_with_openai() -> anyhow::Result<()> {
    is_content(Client {
        provider: "openai",
        ..VERCEL
    })
    .await
}

#[tokio::test]
async fn vercels_sdk_is_content_with_compatible() -> anyhow::Result<()> {
    is_content(Client {
        provider: "compatible",
        kind: "compatible",
        ..VERCEL
    })
    .await
}

#[tokio::test]
async fn vercels_sdk_is_content_with_anthropic() -> anyhow::Result<()> {
    is_content(Client {
        provider: "anthropic",
        kind: "anthropic",
        model: CLAUDE,
        ..VERCEL
    })
    .await
}

#[tokio::test]
async fn vercels_sdk_is_content_with_google() -> anyhow::Result<()> {
    is_content(Client {
        provider: "google",
        kind: "gemini",
        model: GEMINI,
        ..VERCEL
    })
    .await
}
