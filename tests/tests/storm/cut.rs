//! Streams that a client cuts, row by row against what the provider had given by then.
//!
//! The provider counts with the tokenizer of OpenAI's models. Output and prompts, long ones and short ones, of prose,
//! code, tables and Chinese, are held to 15 %, or exact where the provider had told its count by then.

use serde_json::json;
use tidepool_tests::fake_provider::{Dialect, LONG_TEXT, Served};

use super::*;

const CODE: &str = include_str!("cut.rs");
const CHINESE: &str = "\u{6e2f}\u{52a1}\u{957f}\u{5728}\u{9000}\u{6f6e}\u{65f6}\u{6e05}\u{70b9}\u{8239}\u{53ea}\u{ff0c}\
    \u{5e76}\u{628a}\u{6570}\u{76ee}\u{5199}\u{5728}\u{6728}\u{677f}\u{4e0a}\u{3002}";

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
    let rows = (0..200).map(|row| {
        let (metres, rest) = (row * 7 % 9, row * 13 % 100);
        format!("| {row} | {metres}.{rest:02} m | falling |\n")
    });
    let table = rows.collect::<Vec<_>>().concat();
    let prompts = ["", &LONG_TEXT.repeat(60), CODE, &table, &CHINESE.repeat(20)];
    let mut number = 0;
    for events in [150, 600] {
        for prompt in prompts {
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
                compare(&row, &served[number - 1]);
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

fn compare(row: &books::Row, served: &Served) {
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
        _ => assert!(near(read, was_read), "{row:?}: {served:?}"),
    }
}
