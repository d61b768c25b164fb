//! A served API over a real store, with servers put into the store by hand.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use async_trait::async_trait;
use reqwest::Method;
use serde_json::Value;
use tempfile::TempDir;
use tidepool_certs::sealed::MasterKeys;
use tidepool_coordinator::{
    ambient::{Chance, Clock as _, ManualClock, Moment},
    api::{
        self, ApiState, GatewayLogs, KeyTrial, LogsUnavailable, Neighbours, PoolOutlook, Prices,
        auth,
    },
    artefacts::Artefacts,
    cloud::memory::MemoryCloud,
    config::ConfigSchema,
    doorbell::{Doorbell, Ring},
    instance::PublicNames,
    model::{Health, NewServer, ServerReport, StepMs, sample},
    store::{AccessStore as _, InstanceStore as _, ServerStore as _, sqlite::SqliteStore},
};
use tidepool_shared::{
    document::Generation,
    id::{CoordinatorId, InstanceId, ServerId},
};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::contract::Contract;

/// 2026-11-23T07:00:00Z.
const START: Moment = Moment(1_795_417_200_000_000);

/// No server has a link here.
#[derive(Debug)]
struct NoLinks;

#[async_trait]
impl GatewayLogs for NoLinks {
    async fn logs(&self, _server: ServerId, _lines: u32) -> Result<Vec<String>, LogsUnavailable> {
        Err(LogsUnavailable)
    }
}

/// An answer, already held against the contract.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn at(&self, pointer: &str) -> &Value {
        self.body.pointer(pointer).unwrap_or(&Value::Null)
    }

    pub(crate) fn text(&self, pointer: &str) -> &str {
        self.at(pointer).as_str().unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// Pointer and code of each fault.
    pub(crate) fn faults(&self) -> Vec<(&str, &str)> {
        let faults = self
            .at("/errors")
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        faults
            .iter()
            .filter_map(|fault| {
                Some((
                    fault.get("pointer")?.as_str()?,
                    fault.get("code")?.as_str()?,
                ))
            })
            .collect()
    }
}

pub(crate) struct World {
    pub(crate) url: String,
    pub(crate) token: String,
    pub(crate) store: Arc<SqliteStore>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) chance: Arc<Chance>,
    pub(crate) doorbell: Doorbell,
    pub(crate) http: reqwest::Client,
    contract: Contract,
    closing: CancellationToken,
    tasks: TaskTracker,
    dir: TempDir,
}

impl World {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let chance = Arc::new(Chance::from_seed(7));
        let store =
            Arc::new(SqliteStore::open(&dir.path().join("store.db"), chance.clone()).await?);
        let clock = Arc::new(ManualClock::at(START));
        let (token, text) = auth::issue("test".into(), None, clock.now(), &chance);
        store.create_api_token(&token).await?;
        let (doorbell, closing, tasks) = (
            Doorbell::default(),
            CancellationToken::new(),
            TaskTracker::new(),
        );
        let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/stub-schema.json");
        let master_keys = dir.path().join("master.keys");
        MasterKeys::read_or_create(&master_keys)?;
        let state = ApiState {
            store: store.clone(),
            doorbell: doorbell.clone(),
            clock: clock.clone(),
            chance: chance.clone(),
            domain_target: Some("edge.example".to_owned()),
            names: PublicNames {
                domain: "localhost".into(),
                scheme: "http".into(),
                port: Some(8080),
            },
            schema: Arc::new(ConfigSchema::read(&schema)?),
            logs: Arc::new(NoLinks),
            cloud: Arc::new(MemoryCloud::default()),
            prices: Prices::of(Arc::new(MemoryCloud::default())),
            master_keys,
            artefacts: Artefacts::new(dir.path().join("artefacts")),
            key_trial: KeyTrial::new()?,
            neighbours: Neighbours::new(format!("coord_{:026}", 1).parse()?),
            pools: vec![PoolOutlook::new(
                sample::pool(),
                2,
                Duration::from_secs(70),
                2,
            )],
            deletion_grace: Duration::ZERO,
            tasks: tasks.clone(),
            closing: closing.clone(),
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        tasks.spawn(api::serve(listener, api::router(state), closing.clone()));
        let http = reqwest::Client::builder()
            .timeout(Duration::from_mins(1))
            .build()?;
        let document = http
            .get(format!("{url}/v1/openapi.json"))
            .send()
            .await?
            .json()
            .await?;
        let contract = Contract::new(document);
        Ok(Self {
            url,
            token: text,
            store,
            clock,
            chance,
            doorbell,
            http,
            contract,
            closing,
            tasks,
            dir,
        })
    }

    /// A place in this world's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Ends the API; all its tasks must end, too.
    pub(crate) async fn end(self) -> anyhow::Result<()> {
        self.closing.cancel();
        self.tasks.close();
        tokio::time::timeout(Duration::from_secs(20), self.tasks.wait())
            .await
            .context("the API ends")?;
        self.dir.close()?;
        Ok(())
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let mut request = self
            .http
            .request(method.clone(), format!("{}{path}", self.url));
        if !headers.iter().any(|(name, _)| *name == "authorization") {
            request = request.bearer_auth(&self.token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.bytes().await?;
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes)?
        };
        let answer = Answer {
            status,
            headers,
            body,
        };
        self.contract.check(
            method.as_str(),
            path,
            status,
            answer.header("content-type"),
            &answer.body,
        )?;
        Ok(answer)
    }

    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.call(Method::GET, path, &[], None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.call(Method::POST, path, &[], Some(body)).await
    }

    pub(crate) async fn create(&self, name: &str) -> anyhow::Result<Answer> {
        self.post("/v1/instances", &serde_json::json!({ "name": name }))
            .await
    }

    /// A warm server in the store, as an agent would have made it.
    pub(crate) async fn warm_server(&self, number: u8) -> anyhow::Result<ServerId> {
        let now = self.clock.now();
        let id = ServerId::new(self.chance.uuid(now));
        let new = NewServer {
            id,
            name: format!("server-{number}"),
            pool: sample::pool(),
            placement: sample::placement(),
            token_hash: [number; 32],
            token_expires: now.plus(Duration::from_mins(10)),
        };
        self.store.plan_server(&new, now).await?;
        self.store.mark_creating(id, now).await?;
        let address = IpAddr::V4(Ipv4Addr::new(127, 77, 0, number));
        self.store
            .record_created(id, &sample::made(&format!("cloud-{number}"), address), now)
            .await?;
        let holder = CoordinatorId::new(self.chance.uuid(now));
        let (epoch, _) = self
            .store
            .open_session(id, "2026.9.6", holder, now)
            .await?
            .context("a session")?;
        self.store
            .record_report(id, &report(epoch, 0), now)
            .await?
            .context("a report")?;
        Ok(id)
    }

    /// What the agent and the readiness check would say once the instance's first document is served.
    pub(crate) async fn run(&self, instance: &str) -> anyhow::Result<()> {
        let id: InstanceId = instance.parse()?;
        self.clock.advance(Duration::from_millis(86));
        let steps = [("claim", 3), ("agent_ack", 41)].map(|(name, ms)| StepMs {
            name: name.into(),
            ms,
        });
        self.store
            .mark_running(id, &steps, self.clock.now())
            .await?;
        self.doorbell.ring(Ring::Instance(id));
        self.doorbell.ring(Ring::Events);
        Ok(())
    }

    /// A running instance on a server of its own.
    pub(crate) async fn running(
        &self,
        name: &str,
        number: u8,
    ) -> anyhow::Result<(String, ServerId)> {
        let server = self.warm_server(number).await?;
        let id = self.create(name).await?.text("/id").to_owned();
        self.run(&id).await?;
        Ok((id, server))
    }
}

/// A good report of a served generation.
pub(crate) fn report(epoch: u64, generation: u64) -> ServerReport {
    ServerReport {
        epoch,
        warm: true,
        failed: None,
        served: Generation(generation),
        observed: Generation(generation),
        health: Health::Ok,
        reasons: vec![],
        gateway_starts: 1,
        steps: vec![],
        rejected: None,
        openclaw: None,
    }
}
