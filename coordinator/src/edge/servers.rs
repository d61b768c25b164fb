//! The way to the servers: pooled connections by TLS, on which each end proves to the other who it is.
//!
//! A connection is to a *server*, not to an address: its name in the certificate is part of what the pool goes
//! by, so one that was made while the address was another server's is never used for this one, and whoever
//! answers there with a third server's key is refused. Servers whose agent is of before are reached in clear,
//! because the store says so, and never because a handshake failed.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, Uri, uri::PathAndQuery};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, Error, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::pki_types::ServerName;
use tidepool_certs::{
    authority::Authority,
    door::{Credential, name_of},
    tls::TlsError,
};
use time::OffsetDateTime;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::{Inner, body::Body};
use crate::{
    causes::chain,
    model::{Door, Upstream},
};

/// Shorter than nginx's keep-alive of 120 s, so that it is we who close first.
const POOL_IDLE: Duration = Duration::from_secs(50);
/// Kept connections per server; more are opened and closed as needed.
const POOL_SIZE: usize = 32;
/// A server that does not accept within this is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The edge's certificate lives for thirty days and is made anew this often.
const RENEWAL: Duration = Duration::from_hours(24);

/// A client of servers.
pub(super) struct Servers {
    credential: Arc<Credential>,
    client: Client<Bounded, Body>,
}

impl Servers {
    pub(super) fn new(authority: Arc<Authority>, now: OffsetDateTime) -> Result<Self, TlsError> {
        let credential = Credential::new(authority, now)?;
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(credential.client()?)
            .https_or_http()
            .with_server_name_resolver(named)
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(POOL_SIZE)
            .build(Bounded(connector));
        Ok(Self { credential, client })
    }

    pub(super) async fn request(
        &self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, Error> {
        self.client.request(request).await
    }
}

/// Where a request to a server goes. The server's name stands before its address, for [`named`]; on the wire is
/// neither, but the request's own host.
pub(super) fn uri(upstream: Upstream, port: u16, target: &str) -> Option<Uri> {
    let address = SocketAddr::new(upstream.address, port);
    let (scheme, authority) = match upstream.door {
        Door::Mutual => ("https", format!("{}@{address}", name_of(upstream.server))),
        Door::Open => ("http", address.to_string()),
    };
    Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(PathAndQuery::try_from(target).ok()?)
        .build()
        .ok()
}

/// The name that the server at the other end must prove to have.
fn named(uri: &Uri) -> Result<ServerName<'static>, Box<dyn std::error::Error + Send + Sync>> {
    let authority = uri.authority().map(http::uri::Authority::as_str);
    let name = authority.and_then(|text| text.split_once('@'));
    let (name, _) = name.ok_or("a server without a name")?;
    Ok(ServerName::try_from(name.to_owned())?)
}

/// Connects within a bound, handshake included.
#[derive(Clone)]
struct Bounded(HttpsConnector<HttpConnector>);

impl Service<Uri> for Bounded {
    type Response = <HttpsConnector<HttpConnector> as Service<Uri>>::Response;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async move {
            let connected = timeout(CONNECT_TIMEOUT, connecting).await;
            connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
        })
    }
}

/// Renews the edge's certificate until cancelled.
pub(super) async fn stay_known(inner: Arc<Inner>, cancel: CancellationToken) {
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            () = sleep(RENEWAL) => {}
        }
        let Some(now) = inner.clock.now().calendar() else {
            continue;
        };
        if let Err(error) = inner.servers.credential.renew(now) {
            tracing::error!(error = %chain(&error), "the edge's certificate was not made anew");
        }
    }
}

#[cfg(test)]
mod tests {
    use tidepool_shared::id::ServerId;
    use uuid::Uuid;

    use super::*;

    fn upstream(address: &str, door: Door) -> Upstream {
        Upstream {
            server: ServerId::new(Uuid::from_u128(7)),
            address: address.parse().unwrap(),
            door,
        }
    }

    #[test]
    fn a_server_is_asked_by_its_own_name_at_its_address() {
        for address in ["10.0.0.7", "2001:db8::7"] {
            let upstream = upstream(address, Door::Mutual);
            let uri = uri(upstream, 443, "/a?b").unwrap();
            let own = name_of(upstream.server);
            assert_eq!(named(&uri).unwrap(), ServerName::try_from(own).unwrap());
            assert_eq!(uri.scheme_str(), Some("https"));
            assert_eq!(uri.port_u16(), Some(443));
            let host = uri.host().unwrap().trim_matches(['[', ']']);
            assert_eq!(host, address);
        }
    }

    #[test]
    fn an_agent_of_before_is_asked_in_clear() {
        let uri = uri(upstream("10.0.0.7", Door::Open), 80, "/").unwrap();
        assert_eq!(uri.to_string(), "http://10.0.0.7:80/");
        assert!(named(&uri).is_err());
    }
}
