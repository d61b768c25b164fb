//! Anything is asked and anything dies meanwhile: in the end all is as it was asked, once, and nothing
//! is left over.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tidepool_tests::{
    api::Api,
    customer::Customer,
    deployment::{Deployment, Options},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{PATIENCE, bindings, in_state, rows, text};

/// Each kind of victim dies in so many rounds.
const DEATHS_OF_EACH: usize = 4;
const WARM: usize = 2;
/// The most instances at once.
const MOST: usize = 5;

#[derive(Debug, Clone, Copy)]
enum Victim {
    Coordinator,
    /// A process of this name.
    Program(&'static str),
}

const VICTIMS: [Victim; 5] = [
    Victim::Coordinator,
    Victim::Program("tidepool-agent"),
    Victim::Program("stub-gateway"),
    Victim::Program("tidepool-proxy"),
    Victim::Program("nginx"),
];

/// What is asked of an instance.
#[derive(Debug, Clone)]
enum Wish {
    Create,
    Configure(usize),
    Restart,
    Login,
    Delete,
}

/// What an instance must be in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    There,
    Gone,
}

#[tokio::test]
async fn whatever_is_asked_and_whatever_dies_all_converges() -> anyhow::Result<()> {
    // Another run of the same seed kills the same things, though not at the very same moments.
    let seed = match std::env::var("TIDEPOOL_CHAOS_SEED") {
        Ok(seed) => seed.parse().context("TIDEPOOL_CHAOS_SEED is a number")?,
        Err(_) => 20,
    };
    let mut chaos = Chaos::start(seed).await?;
    let mut victims = VICTIMS.repeat(DEATHS_OF_EACH);
    victims.shuffle(&mut chaos.rng);
    for (round, victim) in victims.into_iter().enumerate() {
        let done = chaos.round(round, victim).await;
        done.with_context(|| format!("seed {seed}, round {round}, {victim:?}"))?;
    }
    chaos
        .converges()
        .await
        .with_context(|| format!("seed {seed}, {:?}", chaos.ends))?;
    chaos.tidepool.stop().await?;
    let left = chaos.tidepool.processes();
    ensure!(left.is_empty(), "left running: {left:?}");
    Ok(())
}

struct Chaos {
    tidepool: Deployment,
    rng: StdRng,
    ends: BTreeMap<String, End>,
}

impl Chaos {
    async fn start(seed: u64) -> anyhow::Result<Self> {
        let options = Options {
            pool_size: u32::try_from(WARM)?,
            max_servers: 12,
            starting_at_once: 4,
            ..Options::default()
        };
        let tidepool = Deployment::start("chaos", options).await?;
        let warm = |pool: &Value| in_state(pool, "warm") >= WARM;
        tidepool.api()?.until("/pool", PATIENCE, warm).await?;
        Ok(Self {
            tidepool,
            rng: StdRng::seed_from_u64(seed),
            ends: BTreeMap::new(),
        })
    }

    /// Something is asked, and before or after it was done something dies.
    async fn round(&mut self, round: usize, victim: Victim) -> anyhow::Result<()> {
        let (name, wish) = self.wish(round);
        let mut asked = JoinSet::new();
        asked.spawn(ask(self.tidepool.api()?, name, wish));
        sleep(Duration::from_millis(self.rng.random_range(0..250))).await;
        match victim {
            Victim::Coordinator => {
                self.tidepool.kill_coordinator().await?;
                self.tidepool.up().await?;
            }
            Victim::Program(program) => {
                let running: Vec<_> = self.tidepool.programs(program).into_iter().collect();
                if let Some(pid) = running.get(self.rng.random_range(0..running.len().max(1))) {
                    // It may have ended by itself meanwhile.
                    kill(Pid::from_raw(*pid), Signal::SIGKILL).ok();
                }
            }
        }
        asked.join_next().await.context("one was asked")??
    }

    fn wish(&mut self, round: usize) -> (String, Wish) {
        let there: Vec<_> = self
            .ends
            .iter()
            .filter(|(_, end)| **end == End::There)
            .map(|(name, _)| name.clone())
            .collect();
        let dice = self.rng.random_range(0..10);
        if there.len() < 2 || (dice < 3 && there.len() < MOST) {
            let name = format!("chaos-{round}");
            self.ends.insert(name.clone(), End::There);
            return (name, Wish::Create);
        }
        let name = there[self.rng.random_range(0..there.len())].clone();
        let wish = match dice {
            0..=4 => Wish::Configure(round),
            5..=6 => Wish::Restart,
            7 => Wish::Login,
            _ => {
                self.ends.insert(name.clone(), End::Gone);
                Wish::Delete
            }
        };
        (name, wish)
    }

    /// Every promise is repeated, as a client does whose answer was lost, and is then kept.
    async fn converges(&self) -> anyhow::Result<()> {
        let api = self.tidepool.api()?;
        for (name, end) in &self.ends {
            match end {
                End::There => ask(api.clone(), name.clone(), Wish::Create).await?,
                End::Gone => ask(api.clone(), name.clone(), Wish::Delete).await?,
            }
        }
        for (name, end) in &self.ends {
            match end {
                End::There => is_well(&api, name).await?,
                End::Gone => {
                    let path = format!("/instances/{name}");
                    let (status, answer) = api.send(Method::GET, &path, &[], None).await?;
                    ensure!(status == StatusCode::NOT_FOUND, "{name}: {status} {answer}");
                }
            }
        }
        let there = self.ends.values().filter(|end| **end == End::There).count();
        let at_rest = |pool: &Value| {
            let all = rows(pool, "servers").len();
            in_state(pool, "claimed") == there
                && in_state(pool, "warm") == WARM
                && all == there + WARM
        };
        api.until("/pool", PATIENCE, at_rest).await?;
        ensure!(bindings(&api).await?.len() == there);
        ensure!(
            self.tidepool.servers().len() == there + WARM,
            "a server leaked: {:?}",
            self.tidepool.servers()
        );
        let proxies = self.tidepool.programs("tidepool-proxy");
        ensure!(proxies.len() == 1, "proxies: {proxies:?}");
        no_event_is_missing(&api).await
    }
}

/// Asks once. No answer at all is fine, as is a refusal; that something inside broke is not.
async fn ask(api: Api, name: String, wish: Wish) -> anyhow::Result<()> {
    let path = format!("/instances/{name}");
    let answer = match wish {
        Wish::Create => {
            let body = json!({ "name": name, "external_id": name });
            api.send(Method::POST, "/instances", &[], Some(&body)).await
        }
        Wish::Configure(round) => {
            let patch = json!({ "messages": { "round": round } });
            let path = format!("{path}/config");
            api.send(Method::PATCH, &path, &[], Some(&patch)).await
        }
        Wish::Restart => {
            let path = format!("{path}/restart");
            api.send(Method::POST, &path, &[], Some(&json!({}))).await
        }
        Wish::Login => {
            let path = format!("{path}/login_links");
            api.send(Method::POST, &path, &[], Some(&json!({}))).await
        }
        Wish::Delete => api.send(Method::DELETE, &path, &[], None).await,
    };
    if let Ok((status, answer)) = answer {
        if let Some(url) = answer.get("url").and_then(Value::as_str) {
            tidepool_tests::evidence::note_secret(url.rsplit("token=").next().unwrap_or_default());
        }
        ensure!(
            status != StatusCode::INTERNAL_SERVER_ERROR,
            "{wish:?}: {answer}"
        );
    }
    Ok(())
}

/// The instance settles and lets its owner in.
async fn is_well(api: &Api, name: &str) -> anyhow::Result<()> {
    let path = format!("/instances/{name}");
    let settled = |instance: &Value| {
        text(instance, "status") == "running"
            && text(instance, "health") == "ok"
            && instance.get("generation") == instance.get("observed_generation")
            && instance.get("operation") == Some(&Value::Null)
    };
    let instance = api.until(&path, PATIENCE, settled).await?;
    let owner = Customer::owner_of(api, &instance)
        .await
        .with_context(|| name.to_owned())?;
    // What was killed last may be known to be so a moment later only.
    let let_in = async {
        while !owner.is_owner().await? {
            sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, let_in)
        .await
        .with_context(|| format!("{name}: the owner was not let in"))??;
    owner.hello().await?;
    Ok(())
}

async fn no_event_is_missing(api: &Api) -> anyhow::Result<()> {
    let events = api.events().await?;
    let numbers: Vec<_> = events
        .iter()
        .filter_map(|event| event.get("sequence").and_then(Value::as_u64))
        .collect();
    ensure!(
        numbers
            .iter()
            .copied()
            .eq(1..=u64::try_from(numbers.len())?),
        "the event log has gaps: {numbers:?}"
    );
    Ok(())
}
