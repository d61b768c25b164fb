//! A server's nginx and gateway, as far as the edge can tell.

use std::{
    convert::Infallible,
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _, stream};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{Mutex, mpsc, watch},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A server that answers with its name.
pub(crate) struct Upstream {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    handshakes: Arc<AtomicUsize>,
    /// What `/events` sends, one event per item.
    pub(crate) events: mpsc::Sender<&'static str>,
    /// How many bytes of an upload have arrived.
    pub(crate) received: watch::Receiver<usize>,
    /// So many requests for `/cut` lose their connection, counted down.
    pub(crate) cuts: Arc<AtomicUsize>,
    serving: JoinSet<()>,
}

struct Shared {
    name: String,
    events: Mutex<mpsc::Receiver<&'static str>>,
    received: watch::Sender<usize>,
    cuts: Arc<AtomicUsize>,
    sockets: Mutex<JoinSet<()>>,
}

impl Upstream {
    /// Binds `address` at `port` (0: any); `None` when the port is taken there.
    pub(crate) async fn start(name: &str, address: IpAddr, port: u16) -> Option<Self> {
        Self::behind(name, (address, port), None).await
    }

    /// The same, whose door shows and wants certificates.
    pub(crate) async fn behind(
        name: &str,
        (address, port): (IpAddr, u16),
        door: Option<ServerConfig>,
    ) -> Option<Self> {
        let listener = TcpListener::bind((address, port)).await.ok()?;
        let port = listener.local_addr().unwrap().port();
        let (events, to_send) = mpsc::channel(8);
        let (count, received) = watch::channel(0);
        let cuts = Arc::new(AtomicUsize::new(0));
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            events: Mutex::new(to_send),
            received: count,
            cuts: Arc::clone(&cuts),
            sockets: Mutex::default(),
        });
        let mut serving = JoinSet::new();
        let handshakes = Arc::new(AtomicUsize::new(0));
        let door =
            door.map(|config| (TlsAcceptor::from(Arc::new(config)), Arc::clone(&handshakes)));
        serving.spawn(accept(listener, door, shared));
        Some(Self {
            address,
            port,
            handshakes,
            events,
            received,
            cuts,
            serving,
        })
    }

    /// How many connections have shaken hands so far.
    pub(crate) fn handshakes(&self) -> usize {
        self.handshakes.load(Relaxed)
    }

    /// From now on connections are refused.
    pub(crate) async fn stop(mut self) {
        self.serving.shutdown().await;
    }
}

type Door = (TlsAcceptor, Arc<AtomicUsize>);

async fn accept(listener: TcpListener, door: Option<Door>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (shared, door) = (Arc::clone(&shared), door.clone());
        connections.spawn(async move {
            match door {
                None => serve(stream, shared).await,
                Some((acceptor, handshakes)) => {
                    // The edge may refuse us, too.
                    if let Ok(stream) = acceptor.accept(stream).await {
                        handshakes.fetch_add(1, Relaxed);
                        serve(stream, shared).await;
                    }
                }
            }
        });
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, shared: Arc<Shared>) {
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { answer(&shared, request).await }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // The edge may close a connection at any time.
    drop(connection.with_upgrades().await);
}

async fn answer(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Body>, io::Error> {
    let less = |cuts: usize| cuts.checked_sub(1);
    Ok(match request.uri().path() {
        "/cut" if (shared.cuts).fetch_update(Relaxed, Relaxed, less).is_ok() => {
            return Err(io::Error::from(io::ErrorKind::ConnectionAborted));
        }
        "/control-ui-config.json" => json(&serde_json::json!({"ok": true})),
        "/events" => events(Arc::clone(shared)),
        "/upload" => upload(shared, request).await,
        "/ws" => websocket(shared, request).await,
        "/forbidden" => status(StatusCode::FORBIDDEN),
        _ => who(shared, &request),
    })
}

/// The server's name and what it was told.
fn who(shared: &Shared, request: &Request<Incoming>) -> Response<Body> {
    let headers: serde_json::Map<_, _> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()))
        .collect();
    let mut response = json(&serde_json::json!({
        "name": shared.name,
        "target": request.uri().to_string(),
        "headers": headers,
    }));
    let cookie = "tidepool_session=stolen; Path=/".parse().unwrap();
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    response
}

fn events(shared: Arc<Shared>) -> Response<Body> {
    let events = stream::unfold(shared, |shared| async move {
        let event = shared.events.lock().await.recv().await?;
        Some((
            Ok(Frame::data(Bytes::from_static(event.as_bytes()))),
            shared,
        ))
    });
    Response::new(StreamBody::new(Box::pin(events)).boxed_unsync())
}

async fn upload(shared: &Shared, request: Request<Incoming>) -> Response<Body> {
    let mut body = request.into_body();
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        shared.received.send_modify(|received| *received += length);
    }
    json(&(*shared.received.borrow()).into())
}

/// Echoes until closed.
async fn websocket(shared: &Shared, mut request: Request<Incoming>) -> Response<Body> {
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY) else {
        return status(StatusCode::BAD_REQUEST);
    };
    let accept = derive_accept_key(key.as_bytes());
    let upgraded = hyper::upgrade::on(&mut request);
    shared.sockets.lock().await.spawn(async move {
        let io = TokioIo::new(upgraded.await.unwrap());
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() && socket.send(message).await.is_err() {
                break;
            }
        }
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, accept)
        .body(Full::default().boxed_unsync())
        .unwrap()
}

fn json(value: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Full::from(value.to_string()).boxed_unsync());
    let kind = "application/json".parse().unwrap();
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Full::default().boxed_unsync());
    *response.status_mut() = status;
    response
}
