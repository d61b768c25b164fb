//! What is measured: a store full of instances, an edge, the reconciler, Redis, Traefik and servers.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use reqwest::Client;
use tempfile::TempDir;
use tidepool_certs::door::SERVERS_NAME;
use tidepool_coordinator::{
    ambient::{Chance, Clock as _, SystemClock},
    doorbell::{Doorbell, Ring},
    edge::{Edge, EdgeHandle, EdgeSettings, Questions},
    instance, model,
    routes::{RedisUrl, Routes, RoutesSettings},
    store::{AccessStore as _, InstanceStore as _, ServerStore as _, Store, sqlite::SqliteStore},
};
use tidepool_shared::{
    document::{Digest, GatewayLimits},
    hops::Hops,
    id::OperationId,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::asking::{Answer, Asked, Asker, Instance, Way};
use crate::{
    bench::links::stock,
    deployment::free_port,
    doors::Doors,
    front::{self, Places, Ports, Redis, Servers, Traefik},
};

/// Of two labels: no client takes a wildcard for a whole top-level domain.
const DOMAIN: &str = "routes.localhost";
const PATIENCE: Duration = Duration::from_mins(5);

pub(super) struct Deployment {
    store: Arc<SqliteStore>,
    chance: Arc<Chance>,
    bell: Doorbell,
    edge: EdgeHandle,
    edge_port: u16,
    redis: Redis,
    traefik: Traefik,
    servers: Servers,
    doors: Doors,
    /// Kept open, so that what is measured is no handshake.
    browser: Client,
    plain: Client,
    instances: usize,
    warm: usize,
    addresses: usize,
    first: Option<Instance>,
    _running: JoinSet<()>,
    _folder: TempDir,
}

impl Deployment {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let program = front::program().context("TIDEPOOL_TRAEFIK is not set")?;
        let folder = TempDir::with_prefix("tidepool-bench-routes-")?;
        let doors = Doors::of(folder.path())?;
        let (ports, servers) = (Ports::free()?, Servers::start(doors.clone()).await?);
        let (redis_port, edge_port) = (free_port()?, free_port()?);
        let url = format!("redis://127.0.0.1:{redis_port}/1");
        let places = Places {
            state_dir: folder.path(),
            domain: DOMAIN,
            redis: &url,
            edge_port,
            ports,
            server_port: servers.port,
        };
        let configuration = folder.path().join("tidepool.toml");
        places.write(&configuration)?;
        let mut traefik = Traefik::set_up(&program, &configuration, DOMAIN, ports, &[]).await?;
        without_wildcard(&traefik.file("dynamic.yml"))?;
        let redis = Redis::start(redis_port, Some(traefik.file("redis.acl"))).await?;
        traefik.start().await?;
        let chance = Arc::new(Chance::from_os());
        let path = folder.path().join("tidepool.db");
        let store = Arc::new(SqliteStore::open(&path, Arc::clone(&chance)).await?);
        let (bell, mut running) = (Doorbell::default(), JoinSet::new());
        let edge = start(
            &store,
            &bell,
            (&chance, &doors),
            &places,
            places.secrets(),
            &mut running,
        )
        .await?;
        Ok(Self {
            browser: traefik.browser(Ipv4Addr::LOCALHOST.into()).build()?,
            plain: plain()?,
            store,
            chance,
            bell,
            edge,
            edge_port,
            redis,
            traefik,
            servers,
            doors,
            instances: 0,
            warm: 0,
            addresses: 0,
            first: None,
            _running: running,
            _folder: folder,
        })
    }

    /// Until there are so many instances and so many servers that are nobody's, and Traefik knows them.
    pub(super) async fn grow(&mut self, instances: usize, warm: usize) -> anyhow::Result<()> {
        eprintln!("routes: filling the store with {instances} instances");
        while self.instances < instances {
            self.warm_one().await?;
            let (instance, _) = self.claim().await?;
            self.first.get_or_insert(instance);
        }
        while self.warm < warm {
            self.warm_one().await?;
        }
        self.bell.ring(Ring::Pool);
        self.is_idle().await
    }

    async fn warm_one(&mut self) -> anyhow::Result<()> {
        let address = stock::address(self.addresses)?;
        let now = SystemClock.now();
        let server = stock::warm(&*self.store, &self.chance, address, now).await?;
        self.store.record_door(server).await?;
        self.servers.add(address, server)?;
        self.addresses += 1;
        self.warm += 1;
        Ok(())
    }

    /// Gives a server to a new instance; when that was committed.
    pub(super) async fn claim(&mut self) -> anyhow::Result<(Instance, Instant)> {
        let now = SystemClock.now();
        let mut new = stock::instance(self.instances, &self.chance, now);
        new.hosts = vec![format!("{}.{DOMAIN}", new.name)];
        let made = self.store.create_instance(&new, now).await?;
        // A starting one is the edge's to serve.
        self.store.mark_running(new.id, &[], now).await?;
        let committed = Instant::now();
        self.bell.ring(Ring::Instance(new.id));
        self.instances += 1;
        self.warm -= 1;
        let server = made.server.context("no warm server was taken")?;
        let server = self.store.server(server).await?.context("a server")?;
        let instance = Instance {
            host: new.hosts.first().context("a host")?.clone(),
            server: server.address.context("an address")?.to_string(),
            proof: new.edge_proof.0.clone(),
            cookie: String::new(),
        };
        Ok((instance, committed))
    }

    /// Until Redis has what the store has, and Traefik what Redis has.
    pub(super) async fn is_idle(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let key = "traefik/http/routers/tidepool/rule";
        loop {
            let there = self.redis_routers().await?;
            let shown = self.traefik.shows("routers", "tidepool").await?;
            let shown = shown.as_ref().and_then(|router| router.get("rule"));
            let shown = shown.and_then(|rule| rule.as_str()).map(str::to_owned);
            let is_same = shown.is_some() && shown == self.redis.get(key).await?;
            let live = self.edge.table_len() == self.instances;
            // Each server has one, and one says which revision it is.
            if is_same && live && there == self.instances + self.warm + 1 {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "routes do not settle: {there}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn redis_routers(&self) -> anyhow::Result<usize> {
        let mut keys = redis::cmd("KEYS");
        let keys: Vec<String> = self
            .redis
            .ask(keys.arg("traefik/http/routers/*/rule"))
            .await?;
        Ok(keys.len())
    }

    /// An instance whose owner is signed in.
    pub(super) async fn signed_in(&self) -> anyhow::Result<Instance> {
        let mut instance = self.first.clone().context("there are instances")?;
        let name = instance.host.split('.').next().unwrap_or_default();
        let found = self.store.instance_named(name).await?;
        let found = found.context("it is there")?;
        let (id, now) = (found.id, SystemClock.now());
        self.widen(&found).await?;
        let (link, secret) = (self.chance.secret(), self.chance.secret());
        let hash = |text: &str| Digest::of(text.as_bytes()).0;
        let until = now.plus(Duration::from_hours(1));
        let links = &self.store;
        links.create_login_link(hash(&link), id, until, now).await?;
        let opened = links
            .redeem_login_link(hash(&link), id, hash(&secret), until, now)
            .await?;
        ensure!(opened, "not signed in");
        instance.cookie = format!("__Host-tidepool_session={secret}");
        Ok(instance)
    }

    /// The pace of an instance's visitors is for people.
    async fn widen(&self, found: &model::Instance) -> anyhow::Result<()> {
        let wide = model::EdgeLimits {
            requests_per_second: Some(10_000),
            request_burst: Some(10_000),
            ..model::EdgeLimits::default()
        };
        if found.edge_limits == wide {
            return Ok(());
        }
        let now = SystemClock.now();
        let operation = OperationId::new(self.chance.uuid(now));
        let change = instance::limit(found, wide, operation, GatewayLimits::default());
        self.store.change_document(&change, now).await?;
        self.bell.ring(Ring::Instance(found.id));
        sleep(Duration::from_secs(1)).await;
        self.is_idle().await
    }

    pub(super) async fn ask(
        &self,
        way: Way,
        instance: &Instance,
        asked: Asked,
    ) -> anyhow::Result<Answer> {
        let client = match way {
            Way::Direct => self.direct(instance)?,
            Way::Edge => self.plain.clone(),
            Way::Traefik | Way::Wildcard => self.browser.clone(),
        };
        let asker = Asker {
            client,
            url: self.url(way, instance),
            way,
            instance: instance.clone(),
        };
        asker.ask(asked).await
    }

    /// Somebody else, with connections of their own.
    pub(super) fn asker(&self, way: Way, instance: &Instance) -> anyhow::Result<Asker> {
        let client = match way {
            Way::Direct => self.direct(instance)?,
            Way::Edge => plain()?,
            Way::Traefik | Way::Wildcard => {
                self.traefik.browser(Ipv4Addr::LOCALHOST.into()).build()?
            }
        };
        Ok(Asker {
            client,
            url: self.url(way, instance),
            way,
            instance: instance.clone(),
        })
    }

    fn at(&self, instance: &Instance) -> anyhow::Result<SocketAddr> {
        Ok(SocketAddr::new(instance.server.parse()?, self.servers.port))
    }

    /// As an edge, with connections of its own.
    fn direct(&self, instance: &Instance) -> anyhow::Result<Client> {
        self.doors.client(self.at(instance)?)
    }

    fn url(&self, way: Way, instance: &Instance) -> String {
        match way {
            // By the name that its client knows, wherever it is.
            Way::Direct => format!("https://{SERVERS_NAME}:{}/", self.servers.port),
            Way::Edge => format!("http://127.0.0.1:{}/", self.edge_port),
            Way::Traefik | Way::Wildcard => {
                format!("https://{}:{}/", instance.host, self.traefik.ports.https)
            }
        }
    }
}

/// A client without TLS, and so without root certificates, which take long to read.
fn plain() -> reqwest::Result<Client> {
    Client::builder().no_proxy().tls_certs_only([]).build()
}

async fn start(
    store: &Arc<SqliteStore>,
    bell: &Doorbell,
    (chance, doors): (&Arc<Chance>, &Doors),
    places: &Places<'_>,
    secrets: PathBuf,
    running: &mut JoinSet<()>,
) -> anyhow::Result<EdgeHandle> {
    let settings = EdgeSettings {
        listen: ([127, 0, 0, 1], places.edge_port).into(),
        https: true,
        public_port: Some(places.ports.https),
        http_port: places.server_port,
        trusted_hops: Hops::of(&[Ipv4Addr::LOCALHOST.into()]),
        questions: Some(Questions {
            domain: DOMAIN.to_owned(),
            secrets,
        }),
        ..EdgeSettings::default()
    };
    let all: Arc<dyn Store> = store.clone();
    let (clock, cancel) = (Arc::new(SystemClock), CancellationToken::new());
    let edge = Edge::bind(
        settings,
        Arc::clone(&all),
        bell,
        Arc::clone(&doors.authority),
        clock.clone(),
        Arc::clone(chance),
    );
    let edge = edge.await?;
    let handle = edge.handle();
    running.spawn(edge.run(cancel.clone()));
    let settings = RoutesSettings {
        redis: RedisUrl::read(places.redis)?,
        traefik: vec![places.api()],
        server_port: places.server_port,
    };
    let routes = Routes::new(settings, all, bell.clone(), clock)?;
    running.spawn(async move { routes.run(cancel).await });
    Ok(handle)
}

/// What is not in Redis is answered by nobody.
fn without_wildcard(path: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path)?;
    let begin = text.find("    instances:").context("the wildcard route")?;
    let end = text
        .find("    # For coordinators")
        .context("the next route")?;
    let (before, rest) = text.split_at(begin);
    let after = rest.get(end - begin..).context("the rest")?;
    Ok(std::fs::write(path, format!("{before}{after}"))?)
}
