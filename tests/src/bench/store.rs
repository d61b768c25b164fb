//! The claim at the store: how many in a second, how long one takes, and that none is given twice.
//!
//! On both databases, with real syncs; PostgreSQL is a throw-away server on this machine, which shares its
//! cores. `*_claims_per_s` is the most that the clients get when each asks again as soon as it was answered
//! (closed loop). `postgres_claim_p99_ms` is measured at the rate that the design promises, 1,000 claims/s
//! spread over the clients (open loop): a claim's time counts from when it was due, so one that waits behind
//! a slow one is as slow. Afterwards every row is read: a server with two instances fails the bench.

use std::{collections::HashSet, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use tidepool_coordinator::{
    ambient::{Chance, Clock as _, SystemClock},
    model::ServerState,
    store::{Page, Store, postgres::PostgresStore, sqlite::SqliteStore, throwaway},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{Figure, Sample, links::stock};

const BENCH: &str = "store";

const CLAIMS_PER_S_BUDGET: f64 = 1000.0;
const P99_BUDGET_MS: f64 = 10.0;

/// The open loop's claims a second.
const PACE: u32 = 1000;

/// Claims before anything is measured: connections and plans are made.
const WARM_UP: usize = 500;

/// Instances read at a time.
const PAGE: u32 = 1000;

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Clients at the same time
    #[arg(long, default_value_t = 64)]
    pub clients: usize,
    /// Claims of the closed loop on PostgreSQL
    #[arg(long, default_value_t = 10_000)]
    pub claims: usize,
    /// Seconds of the open loop on PostgreSQL
    #[arg(long, default_value_t = 10)]
    pub seconds: u32,
    /// Claims on SQLite
    #[arg(long, default_value_t = 3_000)]
    pub sqlite_claims: usize,
}

/// Measures and prints.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let server = throwaway::server(&["durable"])?.context("PostgreSQL is not installed")?;
    let database = throwaway::Throwaway::on(server).await?;
    let chance = Arc::new(Chance::from_os());
    let store = PostgresStore::open(database.options()?, Arc::clone(&chance)).await?;
    postgres(&arguments, &Arc::new(store.clone()), &chance).await?;
    store.close().await;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("tidepool.db");
    let store = SqliteStore::open(&file, Arc::clone(&chance)).await?;
    sqlite(&arguments, &Arc::new(store.clone()), &chance).await?;
    store.close().await;
    Ok(())
}

async fn postgres(
    arguments: &Arguments,
    store: &Arc<PostgresStore>,
    chance: &Arc<Chance>,
) -> anyhow::Result<()> {
    let paced = usize::try_from(PACE * arguments.seconds)?;
    let bench = Bench::fill(
        store,
        chance,
        arguments.clients,
        WARM_UP + arguments.claims + paced,
    )
    .await?;
    bench.as_fast_as_possible(0..WARM_UP).await?;
    let closed_loop = WARM_UP..WARM_UP + arguments.claims;
    let per_s = bench.as_fast_as_possible(closed_loop.clone()).await?;
    let latency = bench
        .paced(closed_loop.end..closed_loop.end + paced)
        .await?;
    figure(
        "postgres_claims_per_s",
        per_s,
        "1/s",
        Some(CLAIMS_PER_S_BUDGET),
    )
    .print_at_least()?;
    for (name, share, budget) in [
        ("postgres_claim_p50_ms", 0.5, None),
        ("postgres_claim_p99_ms", 0.99, Some(P99_BUDGET_MS)),
    ] {
        let value = latency.quantile(share).context("nothing was measured")?;
        figure(name, value, "ms", budget).print()?;
    }
    bench.verify(closed_loop.end + paced).await
}

async fn sqlite(
    arguments: &Arguments,
    store: &Arc<SqliteStore>,
    chance: &Arc<Chance>,
) -> anyhow::Result<()> {
    let claims = arguments.sqlite_claims;
    let bench = Bench::fill(store, chance, arguments.clients, claims).await?;
    let per_s = bench.as_fast_as_possible(0..claims).await?;
    figure("sqlite_claims_per_s", per_s, "1/s", None).print_at_least()?;
    bench.verify(claims).await
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

/// A store full of warm servers, and its clients.
struct Bench<S> {
    store: Arc<S>,
    chance: Arc<Chance>,
    clients: usize,
}

impl<S: Store> Bench<S> {
    /// Puts warm servers into the store, the way that the coordinator would.
    async fn fill(
        store: &Arc<S>,
        chance: &Arc<Chance>,
        clients: usize,
        servers: usize,
    ) -> anyhow::Result<Self> {
        eprintln!("store: warming {servers} servers");
        let bench = Self {
            store: Arc::clone(store),
            chance: Arc::clone(chance),
            clients,
        };
        bench
            .each(0..servers, |bench, number| async move {
                let address = stock::address(number)?;
                stock::warm(&*bench.store, &bench.chance, address, SystemClock.now()).await
            })
            .await?;
        Ok(bench)
    }

    /// Claims a second, when each client asks again as soon as it was answered.
    async fn as_fast_as_possible(&self, numbers: std::ops::Range<usize>) -> anyhow::Result<f64> {
        let count = u32::try_from(numbers.len())?;
        let begun = Instant::now();
        self.each(
            numbers,
            |bench, number| async move { bench.claim(number).await },
        )
        .await?;
        Ok(f64::from(count) / begun.elapsed().as_secs_f64())
    }

    /// Milliseconds of each claim since it was due.
    async fn paced(&self, numbers: std::ops::Range<usize>) -> anyhow::Result<Sample> {
        let first = numbers.start;
        let begin = Instant::now() + Duration::from_millis(50);
        let took = self
            .each(numbers, move |bench, number| async move {
                let due = begin + Duration::from_secs(1) * u32::try_from(number - first)? / PACE;
                sleep_until(due).await;
                bench.claim(number).await?;
                Ok(due.elapsed().as_secs_f64() * 1000.0)
            })
            .await?;
        let mut sample = Sample::default();
        for ms in took {
            sample.add(ms);
        }
        Ok(sample)
    }

    async fn claim(&self, number: usize) -> anyhow::Result<()> {
        let now = SystemClock.now();
        let new = stock::instance(number, &self.chance, now);
        let created = self.store.create_instance(&new, now).await?;
        ensure!(created.server.is_some(), "no warm server was taken");
        Ok(())
    }

    /// Does something with each number, on all clients at once: each takes every so many-th.
    async fn each<T, F>(
        &self,
        numbers: std::ops::Range<usize>,
        work: impl Fn(Self, usize) -> F + Send + Copy + 'static,
    ) -> anyhow::Result<Vec<T>>
    where
        T: Send + 'static,
        F: Future<Output = anyhow::Result<T>> + Send + 'static,
    {
        let mut clients = JoinSet::new();
        for client in 0..self.clients {
            let (bench, own) = (
                self.clone(),
                numbers.clone().skip(client).step_by(self.clients),
            );
            clients.spawn(async move {
                let mut done = Vec::new();
                for number in own {
                    done.push(work(bench.clone(), number).await?);
                }
                anyhow::Ok(done)
            });
        }
        let mut all = Vec::with_capacity(numbers.len());
        while let Some(done) = clients.join_next().await {
            all.extend(done??);
        }
        Ok(all)
    }

    /// Reads every row: as many claims as were made, each server with one instance, which says the same.
    async fn verify(&self, claims: usize) -> anyhow::Result<()> {
        let servers = self.store.servers().await?;
        let claimed: HashSet<_> = servers
            .iter()
            .filter(|server| server.state == ServerState::Claimed)
            .filter_map(|server| Some((server.instance?, server.id)))
            .collect();
        let mut told = HashSet::new();
        let mut page = Page {
            after: None,
            limit: PAGE,
        };
        loop {
            let instances = self.store.instances(None, &page).await?;
            let Some(last) = instances.last() else { break };
            page.after = Some(last.id);
            told.extend(instances.iter().filter_map(|it| Some((it.id, it.server?))));
        }
        let used: HashSet<_> = told.iter().map(|(_, server)| server).collect();
        ensure!(
            used.len() == claims && told.len() == claims && told == claimed,
            "{claims} claims, but {} instances on {} servers, {} of which say so",
            told.len(),
            used.len(),
            claimed.len(),
        );
        eprintln!("store: {claims} claims, no server given twice");
        Ok(())
    }
}

impl<S> Clone for Bench<S> {
    fn clone(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            chance: Arc::clone(&self.chance),
            clients: self.clients,
        }
    }
}
