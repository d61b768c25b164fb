//! A coordinator's link server on a port of its own, agents against it, and a peer that speaks raw frames.

#![expect(clippy::unwrap_used, reason = "helpers of a test")]

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use quinn::crypto::rustls::QuicClientConfig;
use tempfile::TempDir;
use tidepool_agent::{
    artefact::Depot,
    desk::{QUEUE, Request, View},
    door::{Door, DoorFile},
    enrol::{self, EnrolError},
    identity::Identity,
    link::{self, Backoff, Line, Pace, Status, Updates},
    stats::Look,
};
use tidepool_certs::{
    COORDINATOR_NAME,
    authority::Authority,
    request::{AgentKey, CheckedRequest},
    tls,
};
use tidepool_coordinator::{
    ambient::{Chance, Clock as _, Moment, SystemClock},
    doorbell::Doorbell,
    link::{LinkServer, Links, Settings},
    model::{NewInstance, NewServer, ServerState},
    store::{
        EventStore as _, InstanceStore as _, ServerStore as _, StatsStore as _, sqlite::SqliteStore,
    },
};
use tidepool_shared::{
    artefact::Sha256,
    document::{DesiredDocument, EdgeProof, GatewayLimits, Generation, Power, SealedDocument},
    frame::{Assembly, Frame, Message},
    id::{CoordinatorId, InstanceId, OperationId, ServerId},
    message::{FetchArtefact, GatewayStats, Health, Held, Hello, HostStats, Phase, Renew, Welcome},
    networks::Networks,
    user_data::UserData,
};
use tidepool_tests::doors;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

pub(crate) fn now() -> Moment {
    SystemClock.now()
}

/// Nothing in these tests takes this long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(10);

/// No server's address.
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 77));

pub(crate) struct Rig {
    pub(crate) store: Arc<SqliteStore>,
    pub(crate) doorbell: Doorbell,
    chance: Arc<Chance>,
    root_pem: String,
    root: rustls::pki_types::CertificateDer<'static>,
    address: SocketAddr,
    links: Links,
    next_address: AtomicU8,
    addresses: Mutex<HashMap<ServerId, IpAddr>>,
    _server: JoinSet<()>,
    pub(crate) dir: PathBuf,
    _temp: Option<TempDir>,
}

#[derive(Clone)]
pub(crate) struct Planned {
    pub(crate) id: ServerId,
    pub(crate) address: IpAddr,
    pub(crate) token: String,
}

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(adjust: impl FnOnce(&mut Settings)) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let listen = (Ipv4Addr::LOCALHOST, 0).into();
        let dir = temp.path().to_owned();
        Self::start_in(&dir, listen, Some(temp), adjust).await
    }

    pub(crate) async fn start_in(
        dir: &Path,
        listen: SocketAddr,
        temp: Option<TempDir>,
        adjust: impl FnOnce(&mut Settings),
    ) -> Self {
        let chance = Arc::new(Chance::from_os());
        let store = SqliteStore::open(&dir.join("store.db"), Arc::clone(&chance))
            .await
            .unwrap();
        let store = Arc::new(store);
        let today = time::OffsetDateTime::from_unix_timestamp(now().0 / 1_000_000).unwrap();
        let authority = Authority::open_or_create(&dir.join("ca"), today).unwrap();
        let (root, root_pem) = (authority.root().clone(), authority.root_pem().to_owned());
        let coordinator = CoordinatorId::new(chance.uuid(SystemClock.now()));
        let mut settings = Settings::new(coordinator, listen, dir.join("link-keys"));
        settings.reconnect_spread = Duration::from_millis(100);
        adjust(&mut settings);
        let doorbell = Doorbell::default();
        let server = LinkServer::bind(
            settings,
            store.clone(),
            doorbell.clone(),
            Arc::new(SystemClock),
            Arc::clone(&chance),
            Arc::new(authority),
        )
        .unwrap();
        let (address, links) = (server.local_addr().unwrap(), server.links());
        let mut tasks = JoinSet::new();
        tasks.spawn(server.run(CancellationToken::new()));
        Self {
            store,
            doorbell,
            chance,
            root_pem,
            root,
            address,
            links,
            next_address: AtomicU8::new(10),
            addresses: Mutex::default(),
            _server: tasks,
            dir: dir.to_owned(),
            _temp: temp,
        }
    }

    pub(crate) fn links(&self) -> &Links {
        &self.links
    }

    pub(crate) async fn plan(&self) -> Planned {
        self.plan_until(now().plus(Duration::from_mins(15))).await
    }

    pub(crate) async fn plan_with_expired_token(&self) -> Planned {
        self.plan_until(Moment(now().0 - 1)).await
    }

    async fn plan_until(&self, token_expires: Moment) -> Planned {
        use sha2::Digest as _;
        let now = self::now();
        let id = ServerId::new(self.chance.uuid(now));
        let token = self.chance.secret();
        let new = NewServer {
            id,
            name: format!("tidepool-{id}"),
            pool: tidepool_coordinator::model::sample::pool(),
            placement: tidepool_coordinator::model::sample::placement(),
            token_hash: sha2::Sha256::digest(token.as_bytes()).into(),
            token_expires,
        };
        let address = Ipv4Addr::new(127, 0, 1, self.next_address.fetch_add(1, Ordering::SeqCst));
        let address = IpAddr::from(address);
        self.store.plan_server(&new, now).await.unwrap();
        self.store.mark_creating(id, now).await.unwrap();
        self.store
            .record_created(
                id,
                &tidepool_coordinator::model::sample::made(&id.to_string(), address),
                now,
            )
            .await
            .unwrap();
        self.addresses.lock().unwrap().insert(id, address);
        Planned { id, address, token }
    }

    pub(crate) fn identity_dir(&self, server: &Planned) -> PathBuf {
        self.dir.join(server.id.to_string())
    }

    /// Enrols anew, whatever was enrolled before.
    pub(crate) async fn enrol(&self, server: &Planned) -> Result<Identity, EnrolError> {
        let identity_dir = self.identity_dir(server);
        drop(std::fs::remove_dir_all(&identity_dir));
        let settings = enrol::Settings {
            identity_dir,
            machine_id: "machine".into(),
            local: server.address,
            manifest: "{}".into(),
            deadline: PATIENCE,
            backoff: quick(),
            give_up_after: PATIENCE,
        };
        let user_data = UserData {
            server: server.id,
            enrolment_token: server.token.clone(),
            coordinators: self.address.into(),
            ca: self.root_pem.clone(),
            proxy: "http://127.0.0.1:1".into(),
            admission: None,
        };
        enrol::ensure(&settings, &user_data, &CancellationToken::new()).await
    }

    /// A certificate of a server's door that was made so long ago.
    pub(crate) fn door(&self, server: ServerId, age: Duration) -> Door {
        let made = doors::now().unwrap() - age;
        let authority = Authority::open_or_create(&self.dir.join("ca"), made).unwrap();
        let key = AgentKey::generate().unwrap();
        let request = CheckedRequest::check(&key.request().unwrap()).unwrap();
        let chain = authority.door(&request, server, made).unwrap();
        Door::new(server, &key, &chain).unwrap()
    }

    pub(crate) fn agent(&self, identity: Identity) -> Agent {
        let dir = self.dir.join(identity.server.to_string());
        let local = self.address_of(identity.server);
        Agent::start(identity, dir, local, self.root.clone(), self.address)
    }

    /// An agent in another place than its server's.
    pub(crate) fn agent_elsewhere(&self, identity: Identity) -> Agent {
        let dir = self.dir.join(identity.server.to_string());
        Agent::start(identity, dir, ELSEWHERE, self.root.clone(), self.address)
    }

    fn address_of(&self, server: ServerId) -> IpAddr {
        *self.addresses.lock().unwrap().get(&server).unwrap()
    }

    pub(crate) async fn becomes_warm(&self, id: ServerId) {
        let warm = async {
            while self.store.server(id).await.unwrap().unwrap().state != ServerState::Warm {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, warm).await.expect("never warm");
    }

    /// Waits until it was written after this moment that the gateway takes so much, and says when.
    pub(crate) async fn takes_since(&self, id: ServerId, memory: u64, since: Moment) -> Moment {
        let written = async {
            loop {
                if let Some((at, stats)) = self.store.stats(id).await.unwrap()
                    && at > since
                {
                    assert_eq!(stats.gateway.unwrap().memory_bytes, memory);
                    return at;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, written).await.expect("never written")
    }

    /// Creates an instance, which takes a warm server.
    pub(crate) async fn claim(&self) -> SealedDocument {
        let now = self::now();
        let id = InstanceId::new(self.chance.uuid(now));
        let proof = EdgeProof(self.chance.secret());
        let document = SealedDocument::seal(&DesiredDocument {
            instance: id,
            generation: Generation::FIRST,
            hosts: vec!["a.localhost".into()],
            origins: vec!["http://a.localhost".into()],
            edge_proof: proof.clone(),
            config: serde_json::json!({}),
            restarts: 0,
            limits: GatewayLimits::default(),
            power: Power::On,
            evictions: 0,
            max_body_bytes: None,
            openclaw: None,
            networks: Networks::default(),
        });
        let new = NewInstance {
            id,
            operation: OperationId::new(self.chance.uuid(now)),
            name: "a".into(),
            external_id: None,
            pool: tidepool_coordinator::model::sample::pool(),
            hosts: vec!["a.localhost".into()],
            url: "http://a.localhost".into(),
            edge_proof: proof,
            config: serde_json::json!({}),
            document: document.clone(),
        };
        let instance = self.store.create_instance(&new, now).await.unwrap();
        assert!(instance.server.is_some(), "no warm server was taken");
        document
    }

    /// Waits for an audit event, which may be written after the peer was told.
    pub(crate) async fn audited(&self, kind: &str) {
        let written = async {
            while !self.events().await.iter().any(|event| event == kind) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, written)
            .await
            .unwrap_or_else(|_| panic!("no {kind}"));
    }

    /// The kinds of all security events.
    pub(crate) async fn events(&self) -> Vec<String> {
        let events = self.store.events_after(0, None, 1000).await.unwrap();
        events
            .into_iter()
            .map(|event| event.kind)
            .filter(|kind| kind.starts_with("security."))
            .collect()
    }
}

fn quick() -> Backoff {
    Backoff {
        first: Duration::from_millis(50),
        ceiling: Duration::from_millis(200),
    }
}

/// Waits for what no event tells of.
pub(crate) async fn soon(what: &str, is_so: impl Fn() -> bool) {
    let so = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, so)
        .await
        .unwrap_or_else(|_| panic!("never {what}"));
}

pub(crate) fn held_of(document: &SealedDocument) -> Held {
    Held {
        instance: document.instance.to_string(),
        generation: document.generation.0,
        digest: document.digest.0,
    }
}

/// A real link client with a desk that takes everything.
pub(crate) struct Agent {
    status: watch::Receiver<Status>,
    line: watch::Receiver<Option<Line>>,
    view: watch::Sender<View>,
    stats: watch::Sender<Option<Look>>,
    offers: mpsc::Receiver<SealedDocument>,
    cancel: CancellationToken,
    tasks: JoinSet<()>,
}

/// Where an agent of the rig keeps its door.
pub(crate) fn door_file(identity_dir: &Path) -> DoorFile {
    DoorFile {
        path: identity_dir.join("door.pem"),
        owner: None,
    }
}

impl Agent {
    pub(crate) fn start(
        identity: Identity,
        identity_dir: PathBuf,
        local: IpAddr,
        root: rustls::pki_types::CertificateDer<'static>,
        coordinator: SocketAddr,
    ) -> Self {
        let (status_in, status) = watch::channel(Status::default());
        let (line_in, line) = watch::channel(None);
        let (view, view_out) = watch::channel(View::default());
        let (stats, stats_out) = watch::channel(None);
        let (desk, requests) = mpsc::channel(QUEUE);
        let (offered, offers) = mpsc::channel(QUEUE);
        let cancel = CancellationToken::new();
        let door_file = door_file(&identity_dir);
        let config = link::Config {
            door: Door::load(&door_file.path, identity.server).unwrap(),
            door_file,
            identity,
            identity_dir,
            root,
            coordinators: coordinator.into(),
            local,
            boot: 1,
            agent_version: "test".into(),
            pace: Pace {
                backoff: quick(),
                first_spread: Duration::from_millis(50),
                connect_deadline: Duration::from_secs(2),
                ..Pace::default()
            },
            stats: stats_out,
            status: status_in,
            line: line_in,
            updates: Updates {
                wanted: watch::Sender::new(None),
                outcome: watch::channel(None).1,
            },
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(link::run(config, desk, view_out, cancel.clone()));
        tasks.spawn(serve_desk(requests, offered));
        Self {
            status,
            line,
            view,
            stats,
            offers,
            cancel,
            tasks,
        }
    }

    /// The epoch of the session that is up.
    pub(crate) async fn connected(&mut self) -> u64 {
        let up = self.status.wait_for(|status| status.epoch.is_some());
        timeout(PATIENCE, up)
            .await
            .expect("never connected")
            .unwrap()
            .epoch
            .unwrap()
    }

    pub(crate) async fn reconnected(&mut self, sessions: u64) {
        let up = self.status.wait_for(|status| status.sessions >= sessions);
        timeout(PATIENCE, up)
            .await
            .expect("never reconnected")
            .unwrap();
    }

    pub(crate) async fn certificate_other_than(&mut self, serial: &str) -> String {
        let other = self.status.wait_for(|status| {
            status
                .certificate
                .as_ref()
                .is_some_and(|(newest, _)| newest != serial)
        });
        let status = timeout(PATIENCE, other)
            .await
            .expect("never renewed")
            .unwrap();
        status.certificate.as_ref().unwrap().0.clone()
    }

    /// Fetches into this directory.
    pub(crate) fn depot(&self, directory: &Path) -> Depot {
        Depot::new(directory.to_owned(), self.line.clone(), quick())
    }

    pub(crate) fn sessions(&self) -> u64 {
        self.status.borrow().sessions
    }

    pub(crate) fn say_warm(&self) {
        self.view.send_modify(|view| {
            view.phase = Phase::Warm;
            view.health = Health::Ok;
            view.gateway_starts += 1;
        });
    }

    pub(crate) fn say_what_it_takes(&self, gateway: GatewayStats) {
        let (gateway, host) = (Some(gateway), HostStats::default());
        self.stats.send_replace(Some(Look { gateway, host }));
    }

    pub(crate) async fn offered(&mut self) -> SealedDocument {
        timeout(PATIENCE, self.offers.recv())
            .await
            .expect("never offered")
            .unwrap()
    }

    pub(crate) fn no_offer_waits(&mut self) -> bool {
        self.offers.try_recv().is_err()
    }

    pub(crate) async fn stop(mut self) {
        self.cancel.cancel();
        timeout(PATIENCE, self.tasks.join_next())
            .await
            .expect("never stopped");
    }
}

async fn serve_desk(mut requests: mpsc::Receiver<Request>, offered: mpsc::Sender<SealedDocument>) {
    let held: Mutex<Option<Held>> = Mutex::new(None);
    while let Some(request) = requests.recv().await {
        match request {
            Request::Offer { document, reply } => {
                *held.lock().unwrap() = Some(held_of(&document));
                drop(reply.send(Ok(())));
                drop(offered.send(document).await);
            }
            Request::Pulse { reply } => drop(reply.send(Generation(0))),
            Request::Held { reply } => drop(reply.send(held.lock().unwrap().clone())),
            Request::Logs { lines, reply } => {
                drop(reply.send((1..=lines).map(|line| format!("line {line}")).collect()));
            }
        }
    }
}

pub(crate) enum Protocol {
    Link,
    Enrolment,
}

/// A peer that says exactly what it is told to.
pub(crate) struct Raw {
    connection: quinn::Connection,
    _endpoint: quinn::Endpoint,
    control: Option<(quinn::SendStream, quinn::RecvStream)>,
    assembly: Assembly,
}

impl Raw {
    pub(crate) async fn dial(rig: &Rig, identity: &Identity) -> Self {
        let tls = tls::client_link(&rig.root, identity.chain.clone(), &identity.key).unwrap();
        let local = rig.address_of(identity.server);
        Self::dial_with(rig, local, tls).await.unwrap()
    }

    pub(crate) async fn without_certificate(rig: &Rig, protocol: Protocol) -> Self {
        Self::try_without_certificate(rig, protocol).await.unwrap()
    }

    pub(crate) async fn try_without_certificate(
        rig: &Rig,
        protocol: Protocol,
    ) -> Result<Self, quinn::ConnectionError> {
        let mut tls = tls::client_enrol(&rig.root).unwrap();
        if let Protocol::Link = protocol {
            tls.alpn_protocols = vec![tidepool_shared::capability::ALPN_LINK.to_vec()];
        }
        Self::dial_with(rig, ELSEWHERE, tls).await
    }

    async fn dial_with(
        rig: &Rig,
        local: IpAddr,
        tls: rustls::ClientConfig,
    ) -> Result<Self, quinn::ConnectionError> {
        let endpoint = quinn::Endpoint::client((local, 0).into()).unwrap();
        let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let connecting = endpoint
            .connect_with(config, rig.address, COORDINATOR_NAME)
            .unwrap();
        Ok(Self {
            connection: timeout(PATIENCE, connecting).await.unwrap()?,
            _endpoint: endpoint,
            control: None,
            assembly: Assembly::default(),
        })
    }

    /// Asks for an artefact on a stream of its own.
    pub(crate) async fn fetch(&self, sha256: Sha256, offset: u64) -> quinn::RecvStream {
        let sha256 = sha256.0;
        let bytes = Frame::of(&FetchArtefact { sha256, offset })
            .encode()
            .unwrap();
        let (mut send, recv) = self.connection.open_bi().await.unwrap();
        send.write_all(&bytes).await.unwrap();
        send.finish().unwrap();
        recv
    }

    /// Asks for the next certificate and gives the answer.
    pub(crate) async fn renewal(&self) -> Frame {
        let csr = AgentKey::generate().unwrap().request().unwrap();
        self.asked(&Renew { csr }).await
    }

    /// Asks something on a stream of its own and gives the answer.
    pub(crate) async fn asked(&self, request: &impl Message) -> Frame {
        let bytes = Frame::of(request).encode().unwrap();
        let (mut send, mut recv) = self.connection.open_bi().await.unwrap();
        send.write_all(&bytes).await.unwrap();
        send.finish().unwrap();
        let answer = timeout(PATIENCE, recv.read_to_end(64 * 1024));
        let mut assembly = Assembly::default();
        assembly.push(&answer.await.expect("no answer").unwrap());
        assembly.next_frame().unwrap().expect("half an answer")
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        if self.control.is_none() {
            self.control = Some(self.connection.open_bi().await.unwrap());
        }
        let (send, _) = self.control.as_mut().unwrap();
        send.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn say(&mut self, message: &impl Message) {
        self.send(&Frame::of(message).encode().unwrap()).await;
    }

    pub(crate) async fn hello(&mut self, server: ServerId) {
        self.hello_holding(server, None).await;
    }

    async fn hello_holding(&mut self, server: ServerId, held: Option<Held>) {
        let hello = Hello {
            capability: 1,
            minimum: 1,
            server: server.to_string(),
            boot: 2,
            agent_version: "raw".into(),
            openclaw_version: "2026.9.6".into(),
            held,
            last_epoch: 0,
        };
        self.say(&hello).await;
    }

    pub(crate) async fn welcomed(&mut self, server: ServerId) -> Welcome {
        self.welcomed_holding(server, None).await
    }

    pub(crate) async fn welcomed_holding(
        &mut self,
        server: ServerId,
        held: Option<Held>,
    ) -> Welcome {
        self.hello_holding(server, held).await;
        self.reply().await.expect("no welcome").message().unwrap()
    }

    /// The next frame on the control stream, or `None` if the stream is over.
    pub(crate) async fn reply(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.assembly.next_frame().unwrap() {
                return Some(frame);
            }
            let (_, recv) = self.control.as_mut().unwrap();
            let chunk = timeout(PATIENCE, recv.read_chunk(1024, true))
                .await
                .expect("no reply");
            self.assembly.push(&chunk.ok()??.bytes);
        }
    }

    /// The code with which the coordinator closed the connection.
    pub(crate) async fn closed(&mut self) -> u32 {
        match timeout(PATIENCE, self.connection.closed())
            .await
            .expect("never closed")
        {
            quinn::ConnectionError::ApplicationClosed(closed) => {
                u32::try_from(closed.error_code.into_inner()).unwrap()
            }
            other => panic!("closed by {other}"),
        }
    }
}

pub(crate) mod restart {
    use super::*;

    /// A runtime that ends without a word is a process that was killed: no goodbye is sent.
    fn process() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    }

    pub(crate) fn a_killed_coordinator_is_noticed() {
        let temp = tempfile::tempdir().unwrap();
        let (first, agents) = (process(), process());
        let listen = (Ipv4Addr::LOCALHOST, 0).into();
        let rig = first.block_on(Rig::start_in(temp.path(), listen, None, |_| {}));
        let address = rig.address;
        let mut agent = agents.block_on(async {
            let server = rig.plan().await;
            let identity = rig.enrol(&server).await.unwrap();
            let mut agent = rig.agent(identity);
            agent.connected().await;
            agent
        });
        let kept_links = rig.links.clone();
        first.shutdown_timeout(Duration::from_secs(1));
        drop((rig, kept_links));

        let second = process();
        let again = second.block_on(Rig::start_in(temp.path(), address, None, |_| {}));
        agents.block_on(async {
            // The next packet, as a keep-alive would be; the idle timeout is thirty seconds away.
            agent.say_warm();
            agent.reconnected(2).await;
        });
        assert_eq!(again.links.count(), 1);
        agents.block_on(agent.stop());
    }
}
