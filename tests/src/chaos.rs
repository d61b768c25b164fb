//! The chaos run: customers come and go while the cloud misbehaves and coordinators are killed; afterwards
//! the books of cloud, store, agents and events are held against each other.
//!
//! What is done is decided by a seed and by nothing else ([`decision`]): the same seed decides the same,
//! whatever becomes of it. The cloud is the fake of Hetzner's API whose servers are real agents with stub
//! gateways ([`world`]); coordinators are the real program, one on SQLite, two on PostgreSQL. A leak that
//! the sweep mends counts as mended, because nothing else here would mend it.

mod books;
mod decision;
pub mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::Context as _;
use rand::{SeedableRng as _, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};
use tidepool_coordinator::store::throwaway::Throwaway;
use tokio::time::{Instant, sleep, timeout};

use self::{
    decision::{Decider, Decision},
    world::World,
};

/// Between two decisions.
const PACE: Duration = Duration::from_millis(250);

/// How long everything may take to settle once nothing is made to fail any more: a boot that never comes
/// to anything, the pause after it, the sweep's minimum age.
const SETTLE: Duration = Duration::from_mins(5);

/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Database {
    Sqlite,
    Postgres,
    Both,
}

/// How to run it.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Decides everything
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How long things are made to fail
    #[arg(long, default_value_t = 2.0)]
    pub minutes: f64,
    #[arg(long, value_enum, default_value = "both")]
    pub database: Database,
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Clean,
    /// What does not agree, a line each.
    Broken(Vec<String>),
}

/// Runs on the database, or on one after the other.
pub async fn run(arguments: &Options, say: &dyn Fn(&str)) -> anyhow::Result<Verdict> {
    let mut broken = Vec::new();
    if arguments.database != Database::Postgres {
        say("chaos on SQLite, one coordinator");
        broken.extend(one(arguments, None, say).await?);
    }
    if arguments.database != Database::Sqlite {
        match Throwaway::database().await? {
            Some(database) => {
                say("chaos on PostgreSQL, two coordinators");
                broken.extend(one(arguments, Some(database), say).await?);
            }
            None => {
                broken.push("PostgreSQL is not installed, so nothing was tried on it".to_owned());
            }
        }
    }
    Ok(if broken.is_empty() {
        Verdict::Clean
    } else {
        Verdict::Broken(broken)
    })
}

async fn one(
    arguments: &Options,
    database: Option<Throwaway>,
    say: &dyn Fn(&str),
) -> anyhow::Result<Vec<String>> {
    let mut run = Run {
        world: World::start(database, arguments.seed).await?,
        promises: BTreeMap::new(),
        calls: 0,
    };
    run.world.up_all().await?;
    let mut decider = Decider::new(StdRng::seed_from_u64(arguments.seed));
    let lasts = Duration::from_secs_f64(arguments.minutes.clamp(0.0, 600.0) * 60.0);
    let steps = lasts.as_millis() / PACE.as_millis();
    for number in 0..steps {
        let decision = decider.next();
        say(&format!("{number:>5} {decision}"));
        let due = Instant::now() + PACE;
        run.carry_out(&decision).await?;
        tokio::time::sleep_until(due).await;
    }
    say("nothing is made to fail any more");
    let broken = run.end(say).await?;
    run.world.end().await?;
    Ok(broken)
}

/// A run: the world, and what it promised.
struct Run {
    world: World,
    /// By name: whether an instance was promised by an answer.
    promises: BTreeMap<String, Promise>,
    calls: usize,
}

/// What is known of a name.
#[derive(Debug, Clone, Copy, Default)]
struct Promise {
    /// A create was answered well.
    created: bool,
    /// A deletion was asked for, whatever was answered: it may be gone.
    deletion: bool,
}

impl Run {
    async fn carry_out(&mut self, decision: &Decision) -> anyhow::Result<()> {
        match decision {
            Decision::Create(name) => self.create(name).await,
            Decision::Configure(name, value) => {
                let body = json!({ "messages": { "round": value } });
                self.ask(
                    Method::PATCH,
                    &format!("/instances/{name}/config"),
                    Some(&body),
                )
                .await;
            }
            Decision::Restart(name) => {
                let path = format!("/instances/{name}/restart");
                self.ask(Method::POST, &path, Some(&json!({}))).await;
            }
            Decision::Delete(name, grace_s) => {
                self.promises.entry(name.clone()).or_default().deletion = true;
                let path = format!("/instances/{name}?grace_s={grace_s}");
                self.ask(Method::DELETE, &path, None).await;
            }
            Decision::Undelete(name) => {
                let path = format!("/instances/{name}/undelete");
                self.ask(Method::POST, &path, Some(&json!({}))).await;
            }
            Decision::Purge(name) => {
                let path = format!("/instances/{name}/purge");
                self.ask(Method::POST, &path, Some(&json!({}))).await;
            }
            Decision::Fault(fault, place, times) => {
                self.world.fake.faults().next(*times, *fault, place);
            }
            Decision::KillCoordinator(number, away) => {
                self.world.kill_coordinator(*number, *away).await?;
            }
            Decision::KillProgram(program, number) => self.world.kill(program, *number),
            Decision::NewSnapshot => self.world.new_snapshot()?,
            Decision::Pause => {
                self.ask(Method::POST, "/pools/basic/pause", Some(&json!({})))
                    .await;
            }
            Decision::Resume => {
                self.ask(Method::POST, "/pools/basic/resume", Some(&json!({})))
                    .await;
            }
        }
        self.world.bring_back().await
    }

    async fn create(&mut self, name: &str) {
        let body = json!({ "name": name, "external_id": name });
        let answer = self.ask(Method::POST, "/instances", Some(&body)).await;
        let created = answer.is_some_and(|(status, _)| (200..300).contains(&status));
        self.promises.entry(name.to_owned()).or_default().created |= created;
    }

    /// Asks the coordinators in turn; a dead one does not answer, which is what it is about.
    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Option<(u16, Value)> {
        self.calls += 1;
        let api = self.world.api(self.calls)?;
        let answer = timeout(PATIENCE, api.send(method, path, &[], body)).await;
        let (status, value) = answer.ok()?.ok()?;
        Some((status.as_u16(), value))
    }

    /// Lets everything settle, then compares.
    async fn end(&mut self, say: &dyn Fn(&str)) -> anyhow::Result<Vec<String>> {
        self.world.fake.faults().clear();
        self.world.up_all().await?;
        let api = self.world.api(0).context("no coordinator is up")?;
        api.post("/pools/basic/resume", &json!({})).await?;
        // As a client would after an answer that it never got.
        let unsure: BTreeSet<_> = self.promises.keys().cloned().collect();
        for name in unsure {
            let promise = self.promises.get(&name).copied().unwrap_or_default();
            if !promise.created && !promise.deletion {
                let body = json!({ "name": name, "external_id": name });
                let (status, answer) = api
                    .send(Method::POST, "/instances", &[], Some(&body))
                    .await?;
                anyhow::ensure!(
                    status.is_success() || status.as_u16() == 409,
                    "{status} {answer}"
                );
                self.promises.entry(name).or_default().created = true;
            }
        }
        let deadline = Instant::now() + SETTLE;
        loop {
            let broken = books::compare(&self.world, api, &self.promised()).await?;
            if broken.is_empty() {
                say("cloud, store, agents and events agree");
                return Ok(broken);
            }
            if Instant::now() > deadline {
                say(&self.world.logs());
                return Ok(broken);
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// Names of instances that must be there, running.
    fn promised(&self) -> BTreeSet<String> {
        let kept = self
            .promises
            .iter()
            .filter(|(_, promise)| promise.created && !promise.deletion);
        kept.map(|(name, _)| name.clone()).collect()
    }
}
