//! A visitor who is refused too often is refused by nginx, and nobody else is.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use tidepool_tests::rack::Rack;
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_mins(1);

/// Addresses for documentation: nobody's.
const GUESSER: &str = "198.51.100.7";
const NEIGHBOUR: &str = "198.51.100.8";

/// A web hook that a page of another site sends, by way of the edge; the status that it gets.
async fn guess(rack: &Rack, host: &str, visitor: &str) -> anyhow::Result<u16> {
    let client = reqwest::Client::builder().timeout(PATIENCE).build()?;
    let answer = client
        .post(format!("http://127.0.0.1:{}/hooks/wake", rack.edge_port()))
        .header("host", host)
        .header("x-forwarded-for", visitor)
        .header("authorization", "Bearer wrong")
        .header("origin", "https://elsewhere.example")
        .body("{}")
        .send()
        .await?;
    Ok(answer.status().as_u16())
}

async fn until(rack: &Rack, host: &str, visitor: &str, status: u16) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let got = guess(rack, host, visitor).await?;
        if got == status {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "{visitor} gets {got}, not {status}"
        );
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_guesser_is_banned_by_the_edges_word_and_its_neighbour_is_not() -> anyhow::Result<()> {
    let rack = Rack::start("visitors", 1).await?;
    rack.warm(1).await?;
    let server = rack.server()?;
    let instance = rack.api.create("alice", 60).await?;
    let url = instance["url"].as_str().context("its url")?;
    let host = url.trim_start_matches("http://");
    ensure!(guess(&rack, host, GUESSER).await? == 403);
    until(&rack, host, GUESSER, 429).await?;
    ensure!(guess(&rack, host, NEIGHBOUR).await? == 403);
    // The list outlives nginx's next configuration and fail2ban itself.
    server.run("systemctl restart fail2ban").await?;
    until(&rack, host, GUESSER, 429).await?;
    server
        .run(&format!(
            "fail2ban-client set tidepool-nginx unbanip {GUESSER}"
        ))
        .await?;
    until(&rack, host, GUESSER, 403).await
}
