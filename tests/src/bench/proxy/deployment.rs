//! What the proxy needs around it, and the proxy: database, customers, a provider, Redis.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use sqlx::PgPool;
use tempfile::TempDir;
use tidepool_coordinator::{
    ambient::{Chance, Clock as _, SystemClock},
    model::{ModelAlias, Provider, sample},
    store::{InstanceStore as _, ModelStore as _, postgres::PostgresStore, throwaway},
};
use tokio::{net::TcpListener, process::Command, time::sleep};

use super::{
    client::{Connection, Question},
    program::Program,
    redis::Redis,
    until,
    upstream::Upstream,
};
use crate::{bench::links::stock, programs::program};

const PATIENCE: Duration = Duration::from_secs(30);
/// After a start, until nothing of it is going on.
const SETTLING: Duration = Duration::from_secs(2);

/// Everything, and the servers whose addresses are trusted.
#[derive(Debug)]
pub(super) struct Deployment {
    proxy: Proxy,
    /// Another one, for connections that one process cannot have.
    further: Option<Proxy>,
    upstream: Upstream,
    redis: Redis,
    servers: usize,
    pool: PgPool,
    database: throwaway::Throwaway,
    folder: TempDir,
}

/// One process, with a journal and a log of its own.
#[derive(Debug)]
struct Proxy {
    program: Program,
    address: SocketAddr,
}

impl Deployment {
    pub(super) async fn start(servers: usize) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("tidepool-bench-proxy-")?;
        let upstream = Upstream::start().await?;
        let server = throwaway::server(&["durable"])?.context("PostgreSQL is not installed")?;
        let database = throwaway::Throwaway::on(server).await?;
        fill(&database, servers, upstream.address).await?;
        let pool = PgPool::connect_with(database.options()?).await?;
        limits_on(&pool).await?;
        let redis = Redis::start(folder.path()).await?;
        let address = free_address().await?;
        let proxy = start(&folder, &database, &redis, "first", address).await?;
        Ok(Self {
            proxy,
            further: None,
            upstream,
            redis,
            servers,
            pool,
            database,
            folder,
        })
    }

    pub(super) fn proxy(&self) -> SocketAddr {
        self.proxy.address
    }

    /// Of all processes, to be asked in turns.
    pub(super) fn proxies(&self) -> Vec<SocketAddr> {
        self.all().map(|proxy| proxy.address).collect()
    }

    fn all(&self) -> impl Iterator<Item = &Proxy> {
        [&self.proxy].into_iter().chain(&self.further)
    }

    pub(super) fn upstream(&self) -> SocketAddr {
        self.upstream.address
    }

    pub(super) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// The address of one of the servers; they are taken in turns.
    pub(super) fn address_of(&self, number: usize) -> anyhow::Result<IpAddr> {
        stock::address(number % self.servers)
    }

    /// Of all processes together.
    pub(super) fn rss_kib(&self) -> anyhow::Result<u32> {
        self.all().map(|proxy| proxy.program.rss_kib()).sum()
    }

    /// Of proxies that have answered one request and have nothing to do.
    pub(super) async fn idle_rss_kib(&self) -> anyhow::Result<u32> {
        sleep(SETTLING).await;
        self.rss_kib()
    }

    /// CPU time of the proxy, when it has written down all that it was asked.
    pub(super) async fn cpu_when_written(&self, rows: u64) -> anyhow::Result<Duration> {
        until("the ledger has all rows", PATIENCE, async || {
            self.rows().await.is_ok_and(|found| found >= rows)
        })
        .await?;
        self.proxy.program.cpu()
    }

    pub(super) fn cpu(&self) -> anyhow::Result<Duration> {
        self.proxy.program.cpu()
    }

    /// Rows in the ledger's table.
    pub(super) async fn rows(&self) -> anyhow::Result<u64> {
        let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM usage_records")
            .fetch_one(&self.pool)
            .await?;
        Ok(u64::try_from(rows)?)
    }

    /// Starts so many fresh processes, one or two, the first at the same address as before.
    pub(super) async fn restart_proxies(&mut self, count: usize) -> anyhow::Result<()> {
        // A new one cannot have the address or the journal of an old one before that is gone.
        if let Some(further) = self.further.take() {
            further.program.end().await?;
        }
        let placeholder =
            Program::logged(&mut Command::new("true"), &self.folder.path().join("none"))?;
        std::mem::replace(&mut self.proxy.program, placeholder)
            .end()
            .await?;
        self.proxy = self.start_one("first", self.proxy.address).await?;
        if count > 1 {
            self.further = Some(self.start_one("further", free_address().await?).await?);
        }
        Ok(())
    }

    async fn start_one(&self, name: &'static str, address: SocketAddr) -> anyhow::Result<Proxy> {
        start(&self.folder, &self.database, &self.redis, name, address).await
    }
}

/// Rates and budgets that are counted and not reached.
async fn limits_on(pool: &PgPool) -> anyhow::Result<()> {
    sqlx::query("INSERT INTO model_limits VALUES ($1, 1000000, 10000000000, 100000000000, 1000000000000, 0)")
        .bind(format!("tier/{}", sample::pool().tier))
        .execute(pool)
        .await?;
    Ok(())
}

/// A free port of the loopback.
pub(super) async fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    Ok(listener.local_addr()?)
}

/// Customers with their servers, the way that the coordinator would, and the upstream as `default`.
async fn fill(
    database: &throwaway::Throwaway,
    servers: usize,
    upstream: SocketAddr,
) -> anyhow::Result<()> {
    eprintln!("proxy: filling a store with {servers} claimed servers");
    let chance = Arc::new(Chance::from_os());
    let store = PostgresStore::open(database.options()?, Arc::clone(&chance)).await?;
    for number in 0..servers {
        let now = SystemClock.now();
        stock::warm(&store, &chance, stock::address(number)?, now).await?;
        let created = store
            .create_instance(&stock::instance(number, &chance, now), now)
            .await?;
        ensure!(created.server.is_some(), "no warm server was taken");
    }
    let now = SystemClock.now();
    let provider = Provider {
        name: "main".to_owned(),
        kind: "openai".to_owned(),
        base_url: format!("http://{upstream}"),
        sealed_key: None,
        created_at: now,
        updated_at: now,
    };
    store.put_provider(&provider).await?;
    let targets = serde_json::json!([{"provider": "main", "model": "gpt-4o-mini", "weight": 1}]);
    let alias = ModelAlias {
        tier: sample::pool().tier,
        alias: "default".to_owned(),
        targets: targets.to_string(),
        updated_at: now,
    };
    store.put_alias(&alias).await?;
    store.close().await;
    Ok(())
}

async fn start(
    folder: &TempDir,
    database: &throwaway::Throwaway,
    redis: &Redis,
    name: &'static str,
    address: SocketAddr,
) -> anyhow::Result<Proxy> {
    let mut command = Command::new(program("tidepool-proxy")?);
    command
        .arg("--listen")
        .arg(address.to_string())
        .arg("--journal")
        .arg(folder.path().join(format!("{name}-journal")))
        .env(tidepool_shared::database_url::VARIABLE, database.url());
    command.args(["--redis", &redis.url]);
    let log = folder.path().join(format!("{name}.log"));
    let program = Program::logged(&mut command, &log)?;
    let (question, from) = (Question::plain(0), stock::address(0)?);
    let answered = until("the proxy answers", PATIENCE, async || {
        let Ok(mut connection) = Connection::open(from, address).await else {
            return false;
        };
        connection.timed(&question).await.is_ok()
    });
    answered
        .await
        .with_context(|| std::fs::read_to_string(log).unwrap_or_default())?;
    Ok(Proxy { program, address })
}
