//! An edge over a fake store, servers behind it and visitors before it.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tidepool_coordinator::{
    ambient::{Chance, SECRET_CHARS, SystemClock},
    doorbell::{Doorbell, Ring},
    edge::{Edge, EdgeHandle, EdgeSettings, EdgeStore},
    model::{Door, EdgeLimits, InstanceStatus, Route, Upstream as To},
};
use tidepool_shared::{
    document::{Digest, EdgeProof},
    id::{InstanceId, ServerId},
};
use tidepool_tests::doors::Doors;
use tokio::{net::TcpStream, task::JoinSet};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{self, Message, client::IntoClientRequest as _},
};
use tokio_util::sync::CancellationToken;

use super::{fake::FakeStore, upstream::Upstream};

pub(crate) type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// What a browser that opens a page accepts.
pub(crate) const PAGE: (&str, &str) = ("accept", "text/html,*/*");

pub(crate) struct World {
    pub(crate) store: Arc<FakeStore>,
    pub(crate) bell: Doorbell,
    pub(crate) edge: EdgeHandle,
    pub(crate) address: std::net::SocketAddr,
    pub(crate) client: Client<HttpConnector, Body>,
    pub(crate) cancel: CancellationToken,
    pub(crate) serving: JoinSet<()>,
    /// The edge's authority.
    pub(crate) doors: Doors,
    _folder: tempfile::TempDir,
}

/// What a visitor got.
pub(crate) struct Got {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

pub(crate) fn id(number: u128) -> InstanceId {
    format!("inst_{number:026}").parse().unwrap()
}

impl World {
    /// An edge whose servers all listen on `port`.
    pub(crate) async fn start(port: u16) -> Self {
        let store = Arc::new(FakeStore::default());
        let views = EdgeStore {
            routes: store.clone(),
            access: store.clone(),
            certificates: store.clone(),
        };
        Self::over(views, store, Doorbell::default(), port).await
    }

    pub(crate) async fn over(
        views: EdgeStore,
        store: Arc<FakeStore>,
        bell: Doorbell,
        port: u16,
    ) -> Self {
        let settings = EdgeSettings {
            http_port: port,
            ..settings()
        };
        Self::with(settings, views, store, bell).await
    }

    pub(crate) async fn with(
        settings: EdgeSettings,
        views: EdgeStore,
        store: Arc<FakeStore>,
        bell: Doorbell,
    ) -> Self {
        let chance = Arc::new(Chance::from_os());
        let folder = tempfile::tempdir().unwrap();
        let doors = Doors::of(folder.path()).unwrap();
        let (clock, authority) = (Arc::new(SystemClock), Arc::clone(&doors.authority));
        let edge = Edge::bind(settings, views, &bell, authority, clock, chance)
            .await
            .unwrap();
        let (address, handle) = (edge.local_addr(), edge.handle());
        let cancel = CancellationToken::new();
        let mut serving = JoinSet::new();
        serving.spawn(edge.run(cancel.clone()));
        Self {
            store,
            bell,
            edge: handle,
            address,
            client: Client::builder(TokioExecutor::new()).build_http(),
            cancel,
            serving,
            doors,
            _folder: folder,
        }
    }

    /// A world with one running instance `a.localhost`, whose owner is signed in.
    pub(crate) async fn with_one() -> (Self, Upstream, String) {
        let upstream = Upstream::start("a", [127, 0, 0, 1].into(), 0)
            .await
            .unwrap();
        let world = Self::start(upstream.port).await;
        world
            .publish(route("a.localhost", 1, Some(upstream.address)))
            .await;
        let cookie = world.sign_in("a.localhost", 1).await;
        (world, upstream, cookie)
    }

    /// Puts a route into the store, rings and waits until the edge has it.
    pub(crate) async fn publish(&self, route: Route) {
        let (id, has_server) = (route.instance, route.upstream.is_some());
        {
            let mut state = self.store.state();
            state.routes.retain(|old| old.host != route.host);
            state.routes.push(route);
        }
        let before = self.edge.table_version();
        self.bell.ring(Ring::Instance(id));
        self.edge.table_changed(before).await;
        if has_server {
            self.edge.route_live(id).await;
        }
    }

    /// Takes all routes of an instance away.
    pub(crate) async fn withdraw(&self, id: InstanceId) {
        self.store
            .state()
            .routes
            .retain(|route| route.instance != id);
        self.bell.ring(Ring::Instance(id));
        self.edge.route_gone(id).await;
    }

    pub(crate) fn link(&self, secret: &str, instance: u128) {
        let hash = Digest::of(whole(secret).as_bytes()).0;
        self.store.state().links.insert(hash, id(instance));
    }

    /// The cookie of a visitor who used a login link.
    pub(crate) async fn sign_in(&self, host: &str, instance: u128) -> String {
        let secret = format!("link-of-{host}");
        self.link(&secret, instance);
        let got = self.open_link(host, &secret).await;
        assert_eq!(got.status, StatusCode::SEE_OTHER);
        let cookie = got.headers["set-cookie"].to_str().unwrap();
        cookie.split(';').next().unwrap().to_owned()
    }

    /// Spends a login link, as its page's form does.
    pub(crate) async fn open_link(&self, host: &str, secret: &str) -> Got {
        let path = format!("/.tidepool/login?token={}", whole(secret));
        self.ask(Method::POST, host, &path, &[PAGE]).await
    }

    pub(crate) async fn get(&self, host: &str, path: &str, headers: &[(&str, &str)]) -> Got {
        self.ask(Method::GET, host, path, headers).await
    }

    pub(crate) async fn ask(
        &self,
        method: Method,
        host: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Got {
        let response = self
            .open(method, host, path, headers, Full::default().boxed_unsync())
            .await;
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Got {
            status: head.status,
            headers: head.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    /// An answer whose body is still on its way.
    pub(crate) async fn open(
        &self,
        method: Method,
        host: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Response<Incoming> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = format!("http://{}{path}", self.address).parse().unwrap();
        request.headers_mut().extend(map(host, headers));
        self.client.request(request).await.unwrap()
    }

    /// A WebSocket, or the status it was refused with.
    pub(crate) async fn websocket(
        &self,
        host: &str,
        headers: &[(&str, &str)],
    ) -> Result<WebSocketStream<TcpStream>, StatusCode> {
        let mut request = format!("ws://{}/ws", self.address)
            .into_client_request()
            .unwrap();
        for (name, value) in map(host, headers) {
            request.headers_mut().insert(name.unwrap(), value);
        }
        let stream = TcpStream::connect(self.address).await.unwrap();
        match tokio_tungstenite::client_async(request, stream).await {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::Error::Http(response)) => Err(response.status()),
            Err(error) => panic!("{error}"),
        }
    }

    /// The port that is part of this edge's origins.
    pub(crate) fn origin(&self, host: &str) -> String {
        format!("http://{host}:{}", self.address.port())
    }
}

/// A secret as long as the edge's own, which begins so.
pub(crate) fn whole(secret: &str) -> String {
    format!("{secret:-<SECRET_CHARS$}")
}

/// Of an edge on a free port.
pub(crate) fn settings() -> EdgeSettings {
    EdgeSettings {
        listen: ([127, 0, 0, 1], 0).into(),
        drain: Duration::from_secs(3),
        ..EdgeSettings::default()
    }
}

fn map(host: &str, headers: &[(&str, &str)]) -> HeaderMap {
    std::iter::once(("host", host))
        .chain(headers.iter().copied())
        .map(|(name, value)| {
            (
                name.parse::<HeaderName>().unwrap(),
                value.parse::<HeaderValue>().unwrap(),
            )
        })
        .collect()
}

/// The server of an instance, as servers are numbered here.
pub(crate) fn server(number: u128) -> ServerId {
    format!("srv_{number:026}").parse().unwrap()
}

/// To a server that is reached in clear, where TLS is nothing to the matter.
pub(crate) fn route(host: &str, instance: u128, upstream: Option<IpAddr>) -> Route {
    Route {
        host: host.to_owned(),
        instance: id(instance),
        upstream: upstream.map(|address| To {
            server: server(instance),
            address,
            door: Door::Open,
        }),
        edge_proof: EdgeProof(format!("proof-{instance}")),
        basic_auth: None,
        limits: EdgeLimits::default(),
        status: InstanceStatus::Running,
        notice: None,
        hooks: Vec::new(),
        is_renaming: false,
        moved_to: None,
    }
}

/// Sends a text and expects it back.
pub(crate) async fn echo(socket: &mut WebSocketStream<TcpStream>, text: &str) {
    socket.send(Message::text(text)).await.unwrap();
    let back = socket.next().await.unwrap().unwrap();
    assert_eq!(back, Message::text(text));
}

/// Nothing in these tests takes this long unless it hangs.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(10), future)
        .await
        .unwrap()
}
