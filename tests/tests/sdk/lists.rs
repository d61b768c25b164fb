//! Gemini's stream without `alt=sse`: one JSON list, chunk by chunk. No client of Google's asks for it any more.

use anyhow::Context as _;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tidepool_tests::fake_provider::{FakeProvider, TEXT};

use crate::{GEMINI, PATIENCE, PYTHON, client::Client, ledger, proxy::Proxy};

const CLIENT: Client = Client {
    provider: "lists",
    kind: "gemini",
    model: GEMINI,
    ..PYTHON
};

#[tokio::test]
async fn a_list_in_pieces_is_passed_on_and_counted() -> anyhow::Result<()> {
    let fake = FakeProvider::start().await?;
    let proxy = Proxy::start(&CLIENT, &fake).await?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let url = format!(
        "{}/v1beta/models/{GEMINI}:streamGenerateContent",
        proxy.url()
    );
    let ask = async |text: &str| {
        let body = json!({"contents": [{"role": "user", "parts": [{"text": text}]}]});
        http.post(&url).json(&body).send().await
    };
    let whole: Vec<Value> = serde_json::from_slice(&ask("Hi").await?.bytes().await?)?;
    let said = whole.iter().filter_map(|chunk| {
        chunk
            .pointer("/candidates/0/content/parts/0/text")?
            .as_str()
    });
    assert_eq!(said.collect::<String>(), TEXT);
    let broken = ask("break off").await?.bytes().await;
    broken.expect_err("a list that breaks off looks whole");
    let mut endless = ask("never end").await?.bytes_stream();
    for _ in 0..5 {
        endless.next().await.context("it ended")??;
    }
    drop(endless);
    let served = fake.settled(PATIENCE).await?;
    ledger::agrees(&CLIENT, &served, &proxy.rows(served.len()).await?);
    Ok(())
}
