//! Streams that a client cuts, row by row against what the provider had given by then.
//!
//! Output is held to 15 %. So is a long prompt where the provider had not told its count; of a short one most is
//! what the dialect puts around it, which bytes say little about, and a few tokens are allowed. Prompts of other
//! kinds, tables or code or an alphabet of two bytes, can be further away: no count of bytes is right for all.

use serde_json::json;
use tidepool_tests::fake_provider::{Dialect, LONG_TEXT, Served};

use super::*;

/// Of a short prompt.
const APART_MAX: u64 = 40;

#[tokio::test(flavor = "multi_thread")]
async fn postgres_a_stream_that_its_client_cut_is_a_row_within_fifteen_percent()
-> anyhow::Result<()> {
    let Some(postgres) = Postgres::start().await? else {
        return Ok(());
    };
    let Some(redis) = Redis::start()? else {
        return Ok(());
    };
    let fake = FakeProvider::start().await?;
    let mut proxy = Proxy::start(&postgres, &redis, &fake).await?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let long = LONG_TEXT.repeat(60);
    let mut number = 0;
    for events in [150, 600] {
        for prompt in ["", &long] {
            for (path, body) in requests(&format!("{prompt}never end, at length")) {
                let url = format!("{}{path}", proxy.url());
                let mut stream = client.post(url).json(&body).send().await?.bytes_stream();
                let mut read = Vec::new();
                while memchr::memmem::find_iter(&read, b"data: ").count() < events {
                    read.extend_from_slice(&stream.next().await.unwrap()?);
                }
                drop(stream);
                number += 1;
                let row = loop {
                    if let Some(row) = postgres.rows().await?.get(number - 1) {
                        break row.clone();
                    }
                    sleep(Duration::from_millis(20)).await;
                };
                let served = fake.settled(PATIENCE).await?;
                assert_eq!(served.len(), number);
                assert_eq!((row.outcome.as_str(), row.estimated), ("client_left", true));
                compare(&row, &served[number - 1], prompt.is_empty());
            }
        }
    }
    proxy.stop().await
}

fn requests(said: &str) -> [(&'static str, serde_json::Value); 4] {
    let messages = json!([{"role": "user", "content": said}]);
    [
        (
            "/v1/chat/completions",
            json!({"model": "gpt-4o-mini", "stream": true, "messages": messages}),
        ),
        (
            "/v1/responses",
            json!({"model": "gpt-4o-mini", "stream": true, "input": said}),
        ),
        (
            "/v1/messages",
            json!({"model": "claude-haiku-4-5", "max_tokens": 9000, "stream": true, "messages": messages}),
        ),
        (
            "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
            json!({"contents": [{"role": "user", "parts": [{"text": said}]}]}),
        ),
    ]
}

fn compare(row: &books::Row, served: &Served, is_short: bool) {
    let (guessed, counted) = (row.tokens(), served.tokens);
    eprintln!(
        "{:?}: {} of {} read, {} of {} said",
        served.dialect,
        guessed.prompt(),
        counted.prompt(),
        guessed.output,
        counted.output
    );
    let near = |one: u64, other: u64| one.abs_diff(other) * 100 <= other * 15;
    assert!(near(guessed.output, counted.output), "{row:?}: {served:?}");
    let (read, was_read) = (guessed.prompt(), counted.prompt());
    match served.dialect {
        // Told at the beginning, or all the time.
        Dialect::Messages | Dialect::Gemini => assert_eq!(read, was_read),
        _ if is_short => assert!(read.abs_diff(was_read) <= APART_MAX, "{read}, {was_read}"),
        _ => assert!(near(read, was_read), "{row:?}: {served:?}"),
    }
}
