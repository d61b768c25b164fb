//! Everything around the proxy fails while it works; afterwards the ledger has what the provider counted.
//!
//! A thousand requests in four dialects, plain and as streams, through the real proxy with the real PostgreSQL
//! and the real Redis. The provider refuses, breaks off and reports errors; clients leave; PostgreSQL is shut
//! down in the middle of it, Redis is killed or hangs; in the second storm the proxy is killed as well.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "storm/books.rs"]
mod books;
#[path = "storm/cut.rs"]
mod cut;
#[path = "storm/load.rs"]
mod load;
#[path = "storm/postgres.rs"]
mod postgres;
#[path = "storm/proxy.rs"]
mod proxy;
#[path = "storm/redis.rs"]
mod redis;

use std::time::Duration;

use futures_util::StreamExt as _;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tidepool_tests::fake_provider::FakeProvider;
use tokio::time::sleep;

use self::{books::Books, load::Load, postgres::Postgres, proxy::Proxy, redis::Redis};

const PATIENCE: Duration = Duration::from_mins(2);
const REQUESTS: usize = 1000;
const CLIENTS: usize = 24;

#[tokio::test(flavor = "multi_thread")]
async fn postgres_the_ledger_is_what_the_provider_counted_whatever_fails_around_it()
-> anyhow::Result<()> {
    storm(1, false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_a_proxy_killed_in_the_storm_loses_no_row_and_doubles_none() -> anyhow::Result<()>
{
    storm(2, true).await
}

async fn storm(seed: u64, kills_proxy: bool) -> anyhow::Result<()> {
    let Some(mut postgres) = Postgres::start().await? else {
        return Ok(());
    };
    let Some(mut redis) = Redis::start()? else {
        return Ok(());
    };
    let fake = FakeProvider::start().await?;
    let mut proxy = Proxy::start(&postgres, &redis, &fake).await?;
    let load = Load::start(&proxy.url(), REQUESTS, CLIENTS, seed);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut killed = 0;
    while !load.is_done() {
        sleep(Duration::from_millis(rng.random_range(100..600))).await;
        match rng.random_range(0..if kills_proxy { 4 } else { 3 }) {
            0 => {
                postgres.crash().await?;
                sleep(Duration::from_millis(rng.random_range(0..2000))).await;
                postgres.start_again().await?;
            }
            1 => {
                redis.kill()?;
                sleep(Duration::from_millis(rng.random_range(0..1000))).await;
                redis.start_again()?;
            }
            2 => {
                redis.hang()?;
                sleep(Duration::from_millis(rng.random_range(0..1000))).await;
                redis.go_on()?;
            }
            _ => {
                proxy.kill().await?;
                killed += 1;
                proxy.start_again().await?;
            }
        }
    }
    let told = load.end().await;
    let served = fake.settled(PATIENCE).await?;
    eprintln!(
        "{told:?}; {} served; the proxy was killed {killed} times",
        served.len()
    );
    // What a killed proxy had begun was written when it came up again; the rest is on its way.
    proxy.stop().await?;
    let rows = postgres.rows().await?;
    let books = Books { served, rows };
    if killed == 0 {
        books.agree();
    } else {
        books.agree_but_for_what_died(killed * CLIENTS);
    }
    books.was_charged(postgres.spent().await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_a_stream_goes_on_while_configuration_is_read_again() -> anyhow::Result<()> {
    let Some(postgres) = Postgres::start().await? else {
        return Ok(());
    };
    let Some(redis) = Redis::start()? else {
        return Ok(());
    };
    let fake = FakeProvider::start().await?;
    let mut proxy = Proxy::start(&postgres, &redis, &fake).await?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("{}/v1/chat/completions", proxy.url());
    let ask = |model: &str, words: &str| {
        let messages = serde_json::json!([{"role": "user", "content": words}]);
        let body = serde_json::json!({"model": model, "stream": true, "messages": messages});
        client.post(&url).json(&body).send()
    };
    let mut stream = ask("gpt-4o-mini", "never end").await?.bytes_stream();
    assert_eq!(ask("new-name", "speak").await?.status(), 404);
    postgres.name_model("new-name").await?;
    for _ in 0..20 {
        proxy.read_again()?;
        for _ in 0..5 {
            stream.next().await.unwrap()?;
        }
    }
    let named = async {
        while ask("new-name", "speak").await?.status() != 200 {
            sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, named).await??;
    stream.next().await.unwrap()?;
    drop(stream);
    proxy.stop().await
}
