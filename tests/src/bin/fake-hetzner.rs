//! A fake Hetzner Cloud to try things against: point a client at the printed URL with the printed token.
//!
//! Its servers are made of nothing; `Ctrl-C` ends it and says whether any answer was wrong.

use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use tidepool_tests::fake_hetzner::{FakeHetzner, Pace, Settings};

/// A fake of the Hetzner Cloud API on 127.0.0.1.
#[derive(Debug, Parser)]
#[command(name = "fake-hetzner", version)]
struct Arguments {
    /// Port of the API
    #[arg(long, default_value_t = 8090)]
    port: u16,
    /// Port of the switches, the books and the metadata; its paths are in `fake_hetzner/admin.rs`
    #[arg(long, default_value_t = 8091)]
    admin_port: u16,
    /// Everything takes about as long as it does in the real service
    #[arg(long)]
    real_pace: bool,
    /// Milliseconds that every call takes, on top of anything else
    #[arg(long)]
    latency_ms: Option<u64>,
    /// Entries on a page of a list whose caller does not say
    #[arg(long, default_value_t = 25)]
    per_page: usize,
    /// Servers that the Project may have
    #[arg(long, default_value_t = 100)]
    max_servers: usize,
    /// Of everything that happens by chance
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Arguments {
    fn settings(&self) -> Settings {
        let mut settings = Settings::quick();
        settings.port = self.port;
        settings.admin_port = self.admin_port;
        settings.per_page = self.per_page;
        settings.limits.servers = self.max_servers;
        settings.seed = self.seed;
        if self.real_pace {
            settings.pace = Pace::real();
        }
        if let Some(latency) = self.latency_ms {
            settings.pace.call = Duration::from_millis(latency);
        }
        settings
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let fake = FakeHetzner::start(Arguments::parse().settings()).await?;
    say(&format!(
        "HCLOUD_ENDPOINT={} HCLOUD_TOKEN={}\nread-only token: {}\nswitches: {}",
        fake.url(),
        fake.token(),
        fake.read_only_token(),
        fake.admin_url(),
    ));
    tokio::signal::ctrl_c().await.context("wait for Ctrl-C")?;
    fake.end().await?;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what to point a client at")]
fn say(text: &str) {
    println!("{text}");
}
