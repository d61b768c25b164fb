//! What the model proxy adds: time, CPU and memory, against the same upstream asked directly in the same run.
//!
//! The proxy is the real program in a process of its own, with PostgreSQL for directory and ledger and, as
//! soon as it takes one, Redis for limits; the upstream is another process, so that its CPU is not the proxy's.
//! All share the machine's cores, so every latency is a difference of two distributions that were measured in
//! turns. CPU is the proxy's own user and kernel time, read after the ledger has written every row.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::time::{Instant, sleep};

use self::{
    client::{Connection, Question},
    deployment::Deployment,
};
use super::{Figure, Sample, resources};

mod client;
mod copier;
mod deployment;
mod litellm;
mod load;
mod program;
mod redis;
mod streams;
mod upstream;

pub use self::{
    copier::{Arguments as CopierArguments, copy},
    upstream::{Arguments as UpstreamArguments, serve},
};

const BENCH: &str = "proxy";

/// The body of a request as OpenClaw sends it: instructions, tools and a short conversation.
const LARGE_BYTES: usize = 66 * 1024;
const SMALL_BYTES: usize = 2 * 1024;

/// At the same time for CPU, and for saturation.
const SOME: usize = 8;
const MANY: usize = 64;

/// File descriptors of this process beside one for each stream.
const SPARE_FILES: u64 = 500;

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Requests of each kind, one at a time, direct and proxied in turns
    #[arg(long, default_value_t = 3_000)]
    pub requests: usize,
    /// Requests of each kind for CPU and saturation
    #[arg(long, default_value_t = 20_000)]
    pub load: usize,
    /// Streams open at once; two proxies share them where one may not open that many files
    #[arg(long, default_value_t = 10_000)]
    pub streams: u16,
    /// A few of everything, to see that it works; the figures mean little
    #[arg(long)]
    pub quick: bool,
    /// LiteLLM as well, from the Python in TIDEPOOL_LITELLM_PYTHON
    #[arg(long)]
    pub with_litellm: bool,
}

impl Arguments {
    fn settled(mut self) -> Self {
        if self.quick {
            self.requests = self.requests.min(100);
            self.load = self.load.min(400);
            self.streams = self.streams.min(200);
        }
        self
    }
}

/// Measures and prints.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let arguments = arguments.settled();
    let python = arguments.with_litellm.then(litellm::python).transpose()?;
    let streams = arguments.streams;
    resources::allow_files(u64::from(streams) + SPARE_FILES)?;
    let servers = if arguments.quick { MANY } else { 4 * MANY };
    let mut deployment = Deployment::start(servers).await?;

    let idle_kib = deployment.idle_rss_kib().await?;
    print(
        "idle_rss_mib",
        f64::from(idle_kib) / 1024.0,
        "MiB",
        Some(20.0),
    )?;
    let proxies = streams::proxies_for(streams);
    let begun = Question::open_stream(LARGE_BYTES);
    let full = Question::full_stream(LARGE_BYTES);
    for (name, question) in [("stream_rss_kib", begun), ("full_stream_rss_kib", full)] {
        deployment.restart_proxies(proxies).await?;
        let a_stream = streams::rss_kib(&deployment, &question, streams).await?;
        print(name, a_stream, "KiB", Some(24.0))?;
    }
    deployment.restart_proxies(1).await?;

    added(
        &deployment,
        "plain",
        &Question::plain(SMALL_BYTES),
        arguments.requests,
        Some([0.1, 1.0]),
    )
    .await?;
    let streamed = Question::short_stream(SMALL_BYTES);
    added(
        &deployment,
        "first_event",
        &streamed,
        arguments.requests,
        Some([0.15, 1.0]),
    )
    .await?;
    // The proxy has the whole request before it passes it on, so here the way of 66 KB is in it twice.
    let large = Question::plain(LARGE_BYTES);
    added(&deployment, "large", &large, arguments.requests, None).await?;

    let small = load::load(
        &deployment,
        &Question::plain(SMALL_BYTES),
        SOME,
        arguments.load,
    )
    .await?;
    print("cpu_per_request_us", small.cpu_us, "us", Some(80.0))?;
    let large = load::load(
        &deployment,
        &Question::plain(LARGE_BYTES),
        SOME,
        arguments.load,
    )
    .await?;
    print("cpu_per_large_request_us", large.cpu_us, "us", None)?;
    let (streams, events) = if arguments.quick {
        (SOME, 200)
    } else {
        (SOME * 5, 2_000)
    };
    let event = load::cpu_per_event_us(&deployment, streams, events).await?;
    print("cpu_per_event_us", event, "us", Some(8.0))?;
    let copied = load::cpu_per_copied_event_us(&deployment, streams, events).await?;
    print("cpu_per_copied_event_us", copied, "us", None)?;

    let saturated = load::load(
        &deployment,
        &Question::plain(SMALL_BYTES),
        MANY,
        arguments.load,
    )
    .await?;
    // All share the cores, so what the proxy is seen to do in a second depends on what else has to be done for it.
    print("saturated_requests_per_s", saturated.per_s, "1/s", None)?;
    let question = Question::plain(SMALL_BYTES);
    let direct = load::direct_per_s(&deployment, &question, MANY, arguments.load).await?;
    print("saturated_direct_requests_per_s", direct, "1/s", None)?;
    let per_core = 1_000_000.0 / saturated.cpu_us;
    figure("requests_per_s_core", per_core, "1/s", Some(10_000.0)).print_at_least()?;
    if let Some(python) = python {
        let theirs = litellm::requests_per_s_core(&python, &deployment, arguments.quick).await?;
        print("litellm_requests_per_s_core", theirs, "1/s", None)?;
        figure("litellm_ratio", per_core / theirs, "x", Some(20.0)).print_at_least()?;
    }
    Ok(())
}

/// What the proxy adds to the time of a question, one at a time on connections that are kept.
async fn added(
    deployment: &Deployment,
    name: &str,
    question: &Question,
    requests: usize,
    budgets_ms: Option<[f64; 2]>,
) -> anyhow::Result<()> {
    eprintln!("proxy: {requests} x {name}, direct and proxied");
    let mut direct = Connection::open(deployment.address_of(0)?, deployment.upstream()).await?;
    let mut proxied = Connection::open(deployment.address_of(0)?, deployment.proxy()).await?;
    let [mut without, mut with] = [Sample::default(), Sample::default()];
    for number in 0..requests + requests / 10 {
        let direct_ms = direct.timed(question).await?;
        let proxied_ms = proxied.timed(question).await?;
        // The first ones open connections and fill caches.
        if number >= requests / 10 {
            without.add(direct_ms);
            with.add(proxied_ms);
        }
    }
    for (at, (label, share)) in [("p50", 0.5), ("p99", 0.99)].into_iter().enumerate() {
        let proxied = with.quantile(share).context("nothing was measured")?;
        let direct = without.quantile(share).context("nothing was measured")?;
        eprintln!("proxy: {name} {label}: direct {direct:.3} ms, proxied {proxied:.3} ms");
        print(
            &format!("added_{name}_{label}_ms"),
            proxied - direct,
            "ms",
            budgets_ms.map(|budgets| budgets[at]),
        )?;
    }
    Ok(())
}

fn print(name: &str, value: f64, unit: &'static str, budget: Option<f64>) -> std::io::Result<()> {
    figure(name, value, unit, budget).print()
}

fn figure(name: &str, value: f64, unit: &'static str, budget: Option<f64>) -> Figure {
    Figure {
        bench: BENCH,
        name: name.to_owned(),
        value,
        unit,
        budget,
    }
}

/// Asks again and again until it is so.
async fn until<F>(
    what: &str,
    patience: Duration,
    mut is_so: impl FnMut() -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = bool>,
{
    let begun = Instant::now();
    while !is_so().await {
        ensure!(
            begun.elapsed() < patience,
            "{what}: not within {patience:?}"
        );
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
