//! A visitor who is refused too often is refused by nginx, and nobody else is.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tidepool_tests::{
    doors, evidence,
    rack::{Rack, SERVER_PORT, Server},
};
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_mins(1);

/// Addresses for documentation: nobody's.
const GUESSER: &str = "198.51.100.7";
const NEIGHBOUR: &str = "198.51.100.8";
/// Of one network, as a host has it, and of the next one.
const GUESSER_V6: &str = "2001:db8:0:1::7";
const ITSELF_V6: &str = "2001:db8:0:1:ffff::1";
const NEIGHBOUR_V6: &str = "2001:db8:0:2::7";

/// Who is banned, by nginx's list and by fail2ban's own.
const EVIDENCE: &str = "cat /var/lib/tidepool/nginx/banned; fail2ban-client status tidepool-nginx; \
                        journalctl -u fail2ban -n 20 -o cat; ps -ef | grep -E 'nginx|flock|sleep'";

/// The edge's side of the hop to one server: this machine is the main server.
struct Edge {
    server: Server,
    host: String,
    proof: String,
    http: reqwest::Client,
}

impl Edge {
    async fn of(rack: &Rack, url: &str) -> anyhow::Result<Self> {
        let server = rack.server()?;
        let configured = "sed -n 's/^ *\"~^\\([0-9a-f]*\\)\\$\" right;$/\\1/p' \
                          /var/lib/tidepool/nginx/nginx.conf";
        let proof = server.run(configured).await?;
        ensure!(proof.len() == 64, "the edge's proof");
        evidence::note_secret(&proof);
        let host = url.trim_start_matches("http://");
        Ok(Self {
            host: host.split(':').next().unwrap_or_default().to_owned(),
            http: rack.doors()?.client((server.address, SERVER_PORT).into())?,
            server,
            proof,
        })
    }

    /// Asks on behalf of a visitor who is not signed in; the status.
    async fn ask(&self, visitor: &str) -> anyhow::Result<u16> {
        let path = "/control-ui-config.json";
        let answer = self
            .http
            .get(doors::url((self.server.address, SERVER_PORT).into(), path))
            .header("host", &self.host)
            .header("x-tidepool-proof", &self.proof)
            .header("x-tidepool-visitor", "hook")
            .header("x-tidepool-client", visitor)
            .send()
            .await?;
        Ok(answer.status().as_u16())
    }

    async fn until(&self, visitor: &str, status: u16) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let got = self.ask(visitor).await?;
            if got == status {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let told = self.server.run(EVIDENCE).await?;
                bail!("{visitor} gets {got}, not {status}: {told}");
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test]
async fn a_guesser_is_banned_by_the_edges_word_and_its_neighbour_is_not() -> anyhow::Result<()> {
    let rack = Rack::start("visitors", 1).await?;
    rack.warm(1).await?;
    let instance = rack.api.create("alice", 60).await?;
    let url = instance["url"].as_str().context("its url")?;
    let edge = Edge::of(&rack, url).await?;
    let clear = format!("http://{}:{SERVER_PORT}/", edge.server.address);
    let client = reqwest::Client::builder().timeout(PATIENCE).build()?;
    let clear = client.get(clear).send().await?.status();
    ensure!(
        clear == reqwest::StatusCode::BAD_REQUEST,
        "in clear: {clear}"
    );
    // The gateway refuses who is not signed in.
    ensure!(edge.ask(GUESSER).await? == 401);
    edge.until(GUESSER, 429).await?;
    ensure!(edge.ask(NEIGHBOUR).await? == 401);
    // By IPv6 a host has a whole network to choose from.
    ensure!(edge.ask(ITSELF_V6).await? == 401);
    edge.until(GUESSER_V6, 429).await?;
    ensure!(edge.ask(ITSELF_V6).await? == 429);
    ensure!(edge.ask(NEIGHBOUR_V6).await? == 401);
    // A ban outlives fail2ban itself.
    edge.server.run("systemctl restart fail2ban").await?;
    let listed = format!("grep -cxF '{GUESSER} 1;' /var/lib/tidepool/nginx/banned");
    // Until it has done what it remembers, it would do it after an unban.
    edge.server.until(&listed, |said| said == "1").await?;
    edge.until(GUESSER, 429).await?;
    let unban = format!("fail2ban-client set tidepool-nginx unbanip {GUESSER}");
    edge.server.until(&unban, |said| said == "1").await?;
    edge.until(GUESSER, 401).await?;
    rack.end().await
}
