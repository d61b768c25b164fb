//! From the commit of a route to the first right answer through Traefik, by a route of Redis' and by the wildcard
//! route to the edge, and through the edge alone; and what each chain adds to a request.
//!
//! Traefik, Redis and the servers' nginx are the real ones, the store is SQLite, edge and reconciler are in
//! this process, which also asks. Traefik's wildcard route, by which the edge serves what is not in Redis
//! yet, is taken away: with it the first answer would be the edge's.

use std::time::Duration;

use anyhow::Context as _;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use self::{
    asking::{Asked, Way},
    deployment::Deployment,
};
use super::{Figure, Sample};

mod asking;
mod deployment;

const BENCH: &str = "routes";

/// Of a route by Redis, at 1,000; and by the built-in edge.
const TRAEFIK_BUDGET_MS: f64 = 300.0;
const EDGE_BUDGET_MS: f64 = 5.0;
/// So that a change finds everybody idle.
const PAUSE: Duration = Duration::from_millis(1200);
/// Who ask at the same time for requests a second.
const MANY: usize = 8;

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Routes that are there already, in growing order
    #[arg(long, value_delimiter = ',', default_value = "10,1000,5000")]
    pub routes: Vec<usize>,
    /// New routes at each of these
    #[arg(long, default_value_t = 30)]
    pub changes: usize,
    /// Requests, one at a time, on each way
    #[arg(long, default_value_t = 2000)]
    pub requests: usize,
}

/// Measures and prints.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut deployment = Deployment::start().await?;
    for routes in &arguments.routes {
        deployment.grow(*routes, 3 * arguments.changes).await?;
        eprintln!("routes: {} new ones at {routes}", arguments.changes);
        let budget = (*routes == 1000).then_some(TRAEFIK_BUDGET_MS);
        let sample = changes(&mut deployment, Way::Traefik, arguments.changes).await?;
        sample.print(BENCH, &format!("traefik_{routes}"), "ms", [budget, None])?;
        let sample = changes(&mut deployment, Way::Wildcard, arguments.changes).await?;
        sample.print(BENCH, &format!("wildcard_{routes}"), "ms", [None, None])?;
        let sample = changes(&mut deployment, Way::Edge, arguments.changes).await?;
        let name = match arguments.routes.last() {
            Some(last) if last == routes => "edge".to_owned(),
            _ => format!("edge_{routes}"),
        };
        sample.print(BENCH, &name, "ms", [Some(EDGE_BUDGET_MS), None])?;
    }
    chain(&deployment, arguments.requests).await
}

/// From commits to first right answers.
async fn changes(deployment: &mut Deployment, way: Way, count: usize) -> anyhow::Result<Sample> {
    let mut sample = Sample::default();
    for _ in 0..count {
        deployment.is_idle().await?;
        sleep(PAUSE).await;
        let (instance, committed) = deployment.claim().await?;
        while !deployment
            .ask(way, &instance, Asked::AsHook)
            .await?
            .is_right
        {
            sleep(Duration::from_millis(1)).await;
        }
        sample.add(committed.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(sample)
}

/// The whole way against the server asked directly.
async fn chain(deployment: &Deployment, requests: usize) -> anyhow::Result<()> {
    let instance = deployment.signed_in().await?;
    let ways = [Way::Direct, Way::Edge, Way::Traefik, Way::Wildcard];
    let askers: Vec<_> = ways
        .iter()
        .map(|way| deployment.asker(*way, &instance))
        .collect::<anyhow::Result<_>>()?;
    let mut samples = ways.map(|_| Sample::default());
    for asker in &askers {
        // What is measured is no handshake.
        asker.ask(Asked::AsOwner).await?;
    }
    eprintln!("routes: {requests} requests on each way, in turns");
    for _ in 0..requests {
        for (asker, sample) in askers.iter().zip(&mut samples) {
            let asked = Instant::now();
            let answer = asker.ask(Asked::AsOwner).await?;
            anyhow::ensure!(answer.is_right, "{}: {}", asker.url, answer.status);
            sample.add(asked.elapsed().as_secs_f64() * 1000.0);
        }
    }
    let [direct, edge, traefik, wildcard] = &samples;
    let p50 = |sample: &Sample| sample.quantile(0.5).context("nothing was measured");
    print("direct_p50_ms", p50(direct)?, "ms")?;
    print("edge_added_p50_ms", p50(edge)? - p50(direct)?, "ms")?;
    print("chain_added_p50_ms", p50(traefik)? - p50(direct)?, "ms")?;
    print("wildcard_added_p50_ms", p50(wildcard)? - p50(direct)?, "ms")?;
    for (way, name) in ways.iter().zip(["direct", "edge", "chain", "wildcard"]) {
        let rate = at_once(deployment, *way, requests).await?;
        print(&format!("{name}_requests_per_s"), rate, "1/s")?;
    }
    Ok(())
}

async fn at_once(deployment: &Deployment, way: Way, requests: usize) -> anyhow::Result<f64> {
    let instance = deployment.signed_in().await?;
    let askers: Vec<_> = (0..MANY)
        .map(|_| deployment.asker(way, &instance))
        .collect::<anyhow::Result<_>>()?;
    let mut clients = JoinSet::new();
    let begun = Instant::now();
    for asker in askers {
        clients.spawn(async move {
            for _ in 0..requests {
                anyhow::ensure!(asker.ask(Asked::AsOwner).await?.is_right, "{way:?}");
            }
            Ok(())
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    let asked = f64::from(u32::try_from(MANY * requests)?);
    Ok(asked / begun.elapsed().as_secs_f64())
}

fn print(name: &str, value: f64, unit: &'static str) -> std::io::Result<()> {
    let figure = Figure {
        bench: BENCH,
        name: name.to_owned(),
        value,
        unit,
        budget: None,
    };
    figure.print()
}
