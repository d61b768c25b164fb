//! New connections to providers.

use std::{io, sync::Arc, time::Duration};

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tower::ServiceExt as _;
use url::Url;

use super::transport::Transport;

/// For a connection, its TLS included.
const CONNECT: Duration = Duration::from_secs(5);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoConnection {
    #[error("its address is none")]
    Address,
    #[error("connect")]
    Connect(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("agree on TLS")]
    Secure(#[source] io::Error),
    #[error("no connection within {CONNECT:?}")]
    TimedOut,
}

#[derive(Clone)]
pub(super) struct Dialler {
    connector: HttpConnector,
    secure: TlsConnector,
}

impl Dialler {
    pub(super) fn new(tls: Arc<ClientConfig>) -> Self {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        // Divided among a name's addresses, so that one that is dead does not take all the time.
        connector.set_connect_timeout(Some(CONNECT / 2));
        Self {
            connector,
            secure: tls.into(),
        }
    }

    pub(super) async fn dial(&self, url: &Url) -> Result<Transport, NoConnection> {
        timeout(CONNECT, self.connect(url))
            .await
            .unwrap_or(Err(NoConnection::TimedOut))
    }

    async fn connect(&self, url: &Url) -> Result<Transport, NoConnection> {
        let host = url.host_str().ok_or(NoConnection::Address)?;
        let uri: Uri = url[..url::Position::BeforePath]
            .parse()
            .map_err(|_| NoConnection::Address)?;
        let stream = self.connector.clone().oneshot(uri).await;
        let stream = stream.map_err(|error| NoConnection::Connect(error.into()))?;
        let stream = stream.into_inner();
        match url.scheme() {
            "http" => Ok(Transport::Plain(stream)),
            "https" => {
                let name = host.trim_matches(['[', ']']).to_owned();
                let name = ServerName::try_from(name).map_err(|_| NoConnection::Address)?;
                let stream = self.secure.connect(name, stream).await;
                let stream = stream.map_err(NoConnection::Secure)?;
                Ok(Transport::Secure(Box::new(stream)))
            }
            _ => Err(NoConnection::Address),
        }
    }
}
