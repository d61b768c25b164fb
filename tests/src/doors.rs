//! Both ends of the way from edges to servers' nginx: an authority, what it makes, and clients that show it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use reqwest::{Certificate, Client, Identity};
use tidepool_certs::{
    authority::{Authority, Chain},
    door::{Credential, SERVERS_NAME},
    pem,
    request::{AgentKey, CheckedRequest},
};
use tidepool_coordinator::ambient::{Clock as _, SystemClock};
use tidepool_shared::id::ServerId;
use time::OffsetDateTime;

const PATIENCE: Duration = Duration::from_secs(30);

/// An authority, a test's own or a deployment's.
#[derive(Debug, Clone)]
pub struct Doors {
    pub authority: Arc<Authority>,
}

impl Doors {
    /// Of a coordinator's state directory, where it is made if it is not there yet.
    pub fn of(state_dir: &Path) -> anyhow::Result<Self> {
        let authority = Authority::open_or_create(&state_dir.join("certs"), now()?)?;
        Ok(Self {
            authority: Arc::new(authority),
        })
    }

    /// A server's certificate, and its key.
    pub fn door(&self, server: ServerId) -> anyhow::Result<(Chain, AgentKey)> {
        let key = AgentKey::generate()?;
        let request = CheckedRequest::check(&key.request()?)?;
        Ok((self.authority.door(&request, server, now()?)?, key))
    }

    /// The file that nginx reads.
    pub fn door_pem(&self, server: ServerId) -> anyhow::Result<String> {
        let (chain, key) = self.door(server)?;
        Ok(format!("{}{}", pem::of_chain(&chain), key.to_pem()))
    }

    /// An edge's end of TLS.
    pub fn edge(&self) -> anyhow::Result<rustls::ClientConfig> {
        let credential = Credential::new(Arc::clone(&self.authority), now()?)?;
        Ok(credential.client()?)
    }

    /// A client that comes to one server as an edge does, whatever server it is. It is asked by [`url`].
    pub fn client(&self, server: SocketAddr) -> anyhow::Result<Client> {
        let edge = self.authority.edge(Duration::from_hours(1), now()?)?;
        let identity = format!("{}{}", edge.chain_pem(), edge.key_pem());
        let client = Client::builder()
            .no_proxy()
            .tls_certs_only([Certificate::from_pem(self.authority.root_pem().as_bytes())?])
            .identity(Identity::from_pem(identity.as_bytes())?)
            .resolve(SERVERS_NAME, server)
            .timeout(PATIENCE)
            .build();
        client.context("make a client of a server")
    }
}

/// What to ask a server for by its client.
pub fn url(server: SocketAddr, path: &str) -> String {
    format!("https://{SERVERS_NAME}:{}{path}", server.port())
}

/// Where a server's door is, in a directory of them.
pub fn file(folder: &Path, server: std::net::IpAddr) -> PathBuf {
    folder.join(format!("{server}.pem"))
}

/// The machine's date.
pub fn now() -> anyhow::Result<OffsetDateTime> {
    SystemClock.now().calendar().context("read the calendar")
}
