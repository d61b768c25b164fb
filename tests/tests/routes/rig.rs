//! An edge, the reconciler, Redis, Traefik and servers, over a store in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use reqwest::{Client, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tidepool_coordinator::{
    ambient::{Chance, Moment, SECRET_CHARS, SystemClock},
    doorbell::{Doorbell, Ring},
    edge::{Edge, EdgeHandle, EdgeSettings, EdgeStore, Questions},
    model::{Destination, Door, EdgeLimits, Event, InstanceStatus, Route, Upstream},
    routes::{RedisUrl, Routes, RoutesSettings, RoutesStore},
    store::{EventStore, Stored},
};
use tidepool_shared::{
    document::{Digest, EdgeProof},
    hops::Hops,
    id::{InstanceId, ServerId},
};
use tidepool_tests::{
    deployment::free_port,
    doors::Doors,
    front::{self, Places, Ports, Redis, Servers, Told, Traefik},
};
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::fake::FakeStore;

pub(crate) const DOMAIN: &str = "rig.localhost";
/// Nothing in these tests takes this long unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// The first server's address; each has its own, and none is used twice.
const FIRST: u32 = (127 << 24) + (70 << 16);

pub(crate) struct Rig {
    pub(crate) store: Arc<FakeStore>,
    pub(crate) events: Arc<FakeEvents>,
    pub(crate) bell: Doorbell,
    /// The first.
    pub(crate) edge: EdgeHandle,
    /// End them one by one.
    edges: Vec<CancellationToken>,
    pub(crate) redis: Redis,
    pub(crate) traefik: Traefik,
    pub(crate) client: Client,
    next: AtomicU32,
    cancel: CancellationToken,
    running: JoinSet<()>,
    servers: Servers,
    _folder: TempDir,
}

/// What a visitor got.
pub(crate) struct Got {
    pub(crate) status: StatusCode,
    pub(crate) body: String,
}

impl Got {
    pub(crate) fn told(&self) -> Told {
        let told = Told::read(&self.body).filter(|_| self.status == StatusCode::OK);
        told.unwrap_or_else(|| panic!("{}: {}", self.status, self.body))
    }
}

pub(crate) fn id(number: u32) -> InstanceId {
    InstanceId::new(Uuid::from_u128(number.into()))
}

pub(crate) fn host(number: u32) -> String {
    format!("a{number}.{DOMAIN}")
}

/// The name that it has when it is renamed.
pub(crate) fn other_host(number: u32) -> String {
    format!("b{number}.{DOMAIN}")
}

pub(crate) fn proof(number: u32) -> String {
    format!("proof-{number}")
}

impl Rig {
    /// Everything is up; there are no instances. `None`: there is no Traefik.
    pub(crate) async fn start() -> Option<Self> {
        Self::with_edges(1).await
    }

    /// With so many edges.
    pub(crate) async fn with_edges(count: usize) -> Option<Self> {
        let program = front::program()?;
        let folder = TempDir::with_prefix("tidepool-rig-").unwrap();
        let doors = Doors::of(folder.path()).unwrap();
        let servers = Servers::start(doors.clone()).await.unwrap();
        let ports = Ports::free().unwrap();
        let redis_port = free_port().unwrap();
        let edge_ports: Vec<u16> = (0..count).map(|_| free_port().unwrap()).collect();
        let url = format!("redis://tidepool:own@127.0.0.1:{redis_port}/1");
        let configuration = folder.path().join("tidepool.toml");
        let places = Places {
            state_dir: folder.path(),
            domain: DOMAIN,
            redis: &url,
            edge_port: edge_ports[0],
            ports,
            server_port: servers.port,
        };
        places.write(&configuration).unwrap();
        let setting_up = Traefik::set_up(&program, &configuration, DOMAIN, ports, &edge_ports);
        let mut traefik = setting_up.await.unwrap();
        traefik.note_requests().unwrap();
        let acl = traefik.file("redis.acl");
        let redis = Redis::start(redis_port, Some(acl)).await.unwrap();
        let store = Arc::new(FakeStore::default());
        let (bell, cancel, mut running) = (
            Doorbell::default(),
            CancellationToken::new(),
            JoinSet::new(),
        );
        let (mut handles, mut edges) = (Vec::new(), Vec::new());
        for port in edge_ports {
            let edge = edge(&store, &bell, &places, places.secrets(), &doors, port).await;
            let token = cancel.child_token();
            handles.push(edge.handle());
            running.spawn(edge.run(token.clone()));
            edges.push(token);
        }
        traefik.start().await.unwrap();
        let events = Arc::new(FakeEvents::default());
        let routes = routes(&store, &events, &bell, &places);
        let token = cancel.clone();
        running.spawn(async move { routes.run(token).await });
        let client = traefik.browser(Ipv4Addr::LOCALHOST.into()).build().unwrap();
        Some(Self {
            store,
            events,
            bell,
            edge: handles.swap_remove(0),
            edges,
            redis,
            traefik,
            client,
            next: AtomicU32::new(1),
            cancel,
            running,
            servers,
            _folder: folder,
        })
    }

    /// A new server that is nobody's.
    pub(crate) fn add_server(&self) -> ServerId {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let server = ServerId::new(Uuid::from_u128(number.into()));
        let address = Ipv4Addr::from(FIRST + number).into();
        self.servers.add(address, server).unwrap();
        let destination = Destination {
            upstream: Upstream {
                server,
                address,
                door: Door::Mutual,
            },
            hosts: Vec::new(),
        };
        self.store.state().destinations.push(destination);
        server
    }

    /// Gives a server that is nobody's, or a new one, to an instance that has none; its address.
    pub(crate) fn create(&self, number: u32) -> IpAddr {
        let idle = {
            let state = self.store.state();
            let mut idle = state.destinations.iter().filter(|to| to.hosts.is_empty());
            idle.next().map(|to| to.upstream.server)
        };
        let server = idle.unwrap_or_else(|| self.add_server());
        let upstream = {
            let mut state = self.store.state();
            let mut to = state.destinations.iter_mut();
            let to = to.find(|to| to.upstream.server == server).unwrap();
            to.hosts = vec![host(number)];
            let upstream = to.upstream;
            state.routes.push(Route {
                host: host(number),
                instance: id(number),
                upstream: Some(upstream),
                edge_proof: EdgeProof(proof(number)),
                basic_auth: None,
                limits: EdgeLimits::default(),
                status: InstanceStatus::Running,
                notice: None,
                hooks: Vec::new(),
                is_renaming: false,
                moved_to: None,
            });
            let secret = Digest::of(secret(number).as_bytes()).0;
            state.sessions.insert(secret, id(number));
            upstream.address
        };
        self.bell.ring(Ring::Instance(id(number)));
        upstream
    }

    /// Changes an instance's route, and waits until the edge knows.
    pub(crate) async fn change(&self, number: u32, change: impl FnOnce(&mut Route)) {
        {
            let mut state = self.store.state();
            let mut routes = state.routes.iter_mut();
            change(routes.find(|route| route.instance == id(number)).unwrap());
        }
        // The first new table may be of a look that began before.
        for _ in 0..2 {
            let before = self.edge.table_version();
            self.bell.ring(Ring::Instance(id(number)));
            self.edge.table_changed(before).await;
        }
    }

    /// Takes an instance's route away, and its server for ever.
    pub(crate) fn delete(&self, number: u32) {
        {
            let mut state = self.store.state();
            state.routes.retain(|route| route.instance != id(number));
            state.sessions.retain(|_, of| *of != id(number));
            state.destinations.retain(|to| !is_of(to, number));
        }
        self.bell.ring(Ring::Instance(id(number)));
    }

    /// Gives an instance its other name; the one that it had leads there.
    pub(crate) fn rename(&self, number: u32) {
        {
            let mut state = self.store.state();
            let mut routes = state.routes.iter();
            let present = routes.find(|it| it.instance == id(number) && it.moved_to.is_none());
            let present = present.unwrap().clone();
            let names = [host(number), other_host(number)];
            let next = names.into_iter().find(|name| *name != present.host);
            let next = next.unwrap();
            state.routes.retain(|route| route.instance != id(number));
            let of_destination = state.destinations.iter_mut();
            for to in of_destination.filter(|to| is_of(to, number)) {
                to.hosts = vec![next.clone()];
            }
            let moved_to = Some(format!("https://{next}"));
            let now = Route {
                host: next,
                ..present.clone()
            };
            let before = Route {
                moved_to,
                ..present
            };
            state.routes.extend([now, before]);
        }
        self.bell.ring(Ring::Instance(id(number)));
    }

    /// Asks an instance's visitors for a password of this hash, or for none.
    pub(crate) fn lock(&self, number: u32, hash: Option<&str>) {
        {
            let mut state = self.store.state();
            let routes = state.routes.iter_mut();
            for route in routes.filter(|route| route.instance == id(number)) {
                route.basic_auth = hash.map(|hash| format!("ann:{hash}"));
            }
        }
        self.bell.ring(Ring::Instance(id(number)));
    }

    /// Gives an instance a new server; its address.
    pub(crate) fn replace_server(&self, number: u32) -> IpAddr {
        let server = self.add_server();
        let upstream = {
            let mut state = self.store.state();
            let mut had = state.destinations.iter().filter(|to| is_of(to, number));
            let hosts = had.next().unwrap().hosts.clone();
            state.destinations.retain(|to| !is_of(to, number));
            let mut to = state.destinations.iter_mut();
            let to = to.find(|to| to.upstream.server == server).unwrap();
            to.hosts = hosts;
            let upstream = to.upstream;
            let routes = state.routes.iter_mut();
            for route in routes.filter(|route| route.instance == id(number)) {
                route.upstream = Some(upstream);
            }
            upstream.address
        };
        self.bell.ring(Ring::Instance(id(number)));
        upstream
    }

    /// A login link of this secret.
    pub(crate) fn link(&self, number: u32, secret: &str) -> String {
        let secret = format!("{secret:-<SECRET_CHARS$}");
        let hash = Digest::of(secret.as_bytes()).0;
        self.store.state().links.insert(hash, id(number));
        let port = self.traefik.ports.https;
        format!(
            "https://{}:{port}/.tidepool/login?token={secret}",
            host(number)
        )
    }

    /// Asks as the owner, or as somebody who shows these headers.
    pub(crate) async fn get(&self, number: u32, headers: &[(&str, &str)]) -> reqwest::Result<Got> {
        self.get_at(&host(number), headers).await
    }

    /// The same by a name.
    pub(crate) async fn get_at(
        &self,
        host: &str,
        headers: &[(&str, &str)],
    ) -> reqwest::Result<Got> {
        let url = format!("https://{host}:{}/x", self.traefik.ports.https);
        let request = headers
            .iter()
            .fold(self.client.get(url), |request, (name, value)| {
                request.header(*name, *value)
            });
        let answer = request.send().await?;
        Ok(Got {
            status: answer.status(),
            body: answer.text().await?,
        })
    }

    pub(crate) async fn as_owner(&self, number: u32) -> reqwest::Result<Got> {
        self.get(number, &[("cookie", &cookie(number))]).await
    }

    /// The rules that Traefik goes by for names that somebody can ask for, by router.
    pub(crate) async fn live(&self) -> BTreeMap<String, String> {
        let port = self.traefik.ports.status;
        let mut rules = BTreeMap::new();
        for page in 1.. {
            let url = format!("http://127.0.0.1:{port}/api/http/routers?per_page=500&page={page}");
            let answer = self.client.get(url).send().await;
            let Ok(answer) = answer.and_then(reqwest::Response::error_for_status) else {
                break;
            };
            let routers: Vec<Value> = answer.json().await.unwrap();
            if routers.is_empty() {
                break;
            }
            rules.extend(routers.iter().filter_map(|router| {
                let text = |field: &str| router.get(field)?.as_str().map(str::to_owned);
                let is_live = text("provider")? == "redis" && text("status")? == "enabled";
                let rule = text("rule")?;
                (is_live && !rule.contains(".invalid")).then_some((text("name")?, rule))
            }));
        }
        rules
    }

    /// Waits until Traefik leads exactly the names that the store has.
    pub(crate) async fn settled(&self) {
        let wanted = || -> BTreeSet<String> {
            let state = self.store.state();
            let hosts = state.destinations.iter().flat_map(|to| &to.hosts);
            hosts.map(|host| format!("Host(`{host}`)")).collect()
        };
        let settling = async {
            while self.live().await.into_values().collect::<BTreeSet<_>>() != wanted() {
                sleep(Duration::from_millis(100)).await;
            }
        };
        let settled = tokio::time::timeout(PATIENCE, settling).await;
        let few = |all: BTreeSet<String>| all.into_iter().take(5).collect::<Vec<_>>();
        let live = few(self.live().await.into_values().collect());
        let log = self.traefik.log();
        let log = log
            .get(log.len().saturating_sub(3000)..)
            .unwrap_or_default();
        assert!(
            settled.is_ok(),
            "{live:?} are not {:?}; {log}",
            few(wanted())
        );
    }

    /// Waits until the built-in edge knows all that the store has.
    pub(crate) async fn edge_knows(&self, routes: usize) {
        let knows = async {
            while self.edge.table_len() != routes {
                sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, knows).await.unwrap();
    }

    /// The last edge goes, in order.
    pub(crate) async fn end_an_edge(&mut self) {
        self.edges.pop().unwrap().cancel();
        self.running.join_next().await.unwrap().unwrap();
    }

    pub(crate) async fn end(mut self) {
        self.cancel.cancel();
        while let Some(ended) = self.running.join_next().await {
            ended.unwrap();
        }
    }
}

/// Whether a server is this instance's.
fn is_of(to: &Destination, number: u32) -> bool {
    to.hosts.contains(&host(number)) || to.hosts.contains(&other_host(number))
}

fn secret(number: u32) -> String {
    format!("{:-<SECRET_CHARS$}", format!("session-of-{number}-"))
}

pub(crate) fn cookie(number: u32) -> String {
    format!("__Host-tidepool_session={}", secret(number))
}

async fn edge(
    store: &Arc<FakeStore>,
    bell: &Doorbell,
    places: &Places<'_>,
    secrets: PathBuf,
    doors: &Doors,
    port: u16,
) -> Edge {
    let settings = EdgeSettings {
        listen: ([127, 0, 0, 1], port).into(),
        https: true,
        public_port: Some(places.ports.https),
        http_port: places.server_port,
        trusted_hops: Hops::of(&[Ipv4Addr::LOCALHOST.into()]),
        questions: Some(Questions {
            domain: DOMAIN.to_owned(),
            secrets,
        }),
        drain: Duration::from_secs(3),
        ..EdgeSettings::default()
    };
    let views = EdgeStore {
        routes: store.clone(),
        access: store.clone(),
        certificates: store.clone(),
    };
    let chance = Arc::new(Chance::from_os());
    let (clock, authority) = (Arc::new(SystemClock), Arc::clone(&doors.authority));
    Edge::bind(settings, views, bell, authority, clock, chance)
        .await
        .unwrap()
}

fn routes(
    store: &Arc<FakeStore>,
    events: &Arc<FakeEvents>,
    bell: &Doorbell,
    places: &Places<'_>,
) -> Routes {
    let settings = RoutesSettings {
        redis: RedisUrl::read(places.redis).unwrap(),
        traefik: vec![places.api()],
        server_port: places.server_port,
    };
    let views = RoutesStore {
        routes: store.clone(),
        events: events.clone(),
    };
    Routes::new(settings, views, bell.clone(), Arc::new(SystemClock)).unwrap()
}

/// The event log, in memory.
#[derive(Default)]
pub(crate) struct FakeEvents(Mutex<Vec<(String, Value)>>);

impl FakeEvents {
    pub(crate) async fn until(&self, kind: &str) -> Value {
        let found = async {
            loop {
                let found = {
                    let events = self.0.lock().unwrap();
                    let mut of_kind = events.iter().filter(|(told, _)| told == kind);
                    of_kind.next().map(|(_, data)| data.clone())
                };
                match found {
                    Some(data) => return data,
                    None => sleep(Duration::from_millis(50)).await,
                }
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap()
    }

    pub(crate) fn kinds(&self) -> Vec<String> {
        let events = self.0.lock().unwrap();
        events.iter().map(|(kind, _)| kind.clone()).collect()
    }
}

#[async_trait]
impl EventStore for FakeEvents {
    async fn events_after(&self, _: u64, _: Option<InstanceId>, _: u32) -> Stored<Vec<Event>> {
        unreachable!("routes read no events")
    }

    async fn event_sequence(&self, _: &str) -> Stored<Option<u64>> {
        unreachable!("routes read no events")
    }

    async fn tell(&self, kind: &str, data: Value, _: Moment) -> Stored<()> {
        self.0.lock().unwrap().push((kind.to_owned(), data));
        Ok(())
    }

    async fn last_sequence(&self) -> Stored<u64> {
        unreachable!("routes read no events")
    }
}
