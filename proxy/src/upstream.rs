//! HTTP/1.1 to providers.
//!
//! A connection belongs to the answer that comes on it: no task drives it, no channel hands its bytes over,
//! and it has no buffer of its own. What is read goes through one buffer a thread and leaves it as large
//! as it is. So a stream costs a socket and not much else, and an event one wake-up.
//!
//! Way not taken: a ready-made client. hyper's, which the others build on, has a task and some 25 KiB a
//! connection, which was most of what a stream cost, in memory and in time.

mod body;
mod dial;
mod exchange;
mod framing;
mod head;
mod idle;
#[cfg(test)]
mod tests;
mod transport;

use std::{fmt, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use rustls::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::time::Instant;
use url::Url;

pub(crate) use self::body::Incoming;
use self::{
    dial::{Dialler, NoConnection},
    exchange::Exchange,
    framing::{Framing, Malformed},
    idle::Idle,
    transport::Transport,
};

/// Why there is no answer, or no more of one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("reach the provider")]
    Dial(#[from] NoConnection),
    #[error("send the request")]
    Send(#[source] io::Error),
    #[error("read the answer")]
    Read(#[source] io::Error),
    #[error("the connection was closed before the answer had ended")]
    CutOff,
    #[error("the answer is not HTTP")]
    Malformed(#[from] Malformed),
}

/// Why nothing was answered.
#[derive(Debug, thiserror::Error)]
#[error("ask the provider")]
pub(crate) struct NoAnswer {
    /// All of the request had gone: the provider may have worked on it, and charges for that. Not what went into a
    /// connection that was kept and then cut without a word: who does that had closed it before it read.
    pub(crate) is_sent: bool,
    #[source]
    pub(crate) why: Broken,
}

/// An answer whose body is still to come.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Incoming,
}

/// A kept connection that is cut within so long was being closed when a request went into it. Later, somebody may have
/// worked on the request.
const CLOSING: Duration = Duration::from_secs(1);

/// Asks providers. Redirects are not followed: a key goes where the operator sent it.
#[derive(Clone)]
pub struct Client {
    dialler: Dialler,
    idle: Arc<Idle>,
}

impl Client {
    /// Trusts whom this machine trusts.
    ///
    /// # Errors
    /// When the machine's certificates cannot be read.
    pub fn new() -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_platform_verifier()?
            .with_no_client_auth();
        Ok(Self::trusting(config))
    }

    /// Trusts whom `tls` trusts.
    pub fn trusting(tls: ClientConfig) -> Self {
        Self {
            dialler: Dialler::new(Arc::new(tls)),
            idle: Arc::default(),
        }
    }

    /// The same with connections of its own: one that another thread looks after would be two wake-ups away.
    #[must_use]
    pub fn apart(&self) -> Self {
        Self {
            dialler: self.dialler.clone(),
            idle: Arc::default(),
        }
    }

    /// Sends a POST and waits for the head of its answer. Dropping it closes the connection.
    pub(crate) async fn post(
        &self,
        url: &Url,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Answer, NoAnswer> {
        self.send(&Method::POST, url, headers, body).await
    }

    /// The same with a GET.
    pub(crate) async fn get(&self, url: &Url, headers: &HeaderMap) -> Result<Answer, NoAnswer> {
        self.send(&Method::GET, url, headers, Bytes::new()).await
    }

    async fn send(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Answer, NoAnswer> {
        let head = head::request(method, url, headers, body.len());
        let origin = idle::origin(url);
        while let Some(transport) = self.idle.take(&origin) {
            let mut exchange = Exchange::new(transport, head.clone(), body.clone());
            let begun = Instant::now();
            match exchange.run().await {
                // It had been closed. What went out whole may have been heard, and is not said twice.
                Err(_) if !exchange.is_sent() && exchange.is_unheard() => {}
                Err(why) if exchange.is_unheard() => {
                    let is_sent = exchange.is_sent() && begun.elapsed() > CLOSING;
                    return Err(NoAnswer { is_sent, why });
                }
                answered => return self.answer(exchange, answered, origin),
            }
        }
        let transport = self.dialler.dial(url).await.map_err(|error| NoAnswer {
            is_sent: false,
            why: error.into(),
        })?;
        let mut exchange = Exchange::new(transport, head, body);
        let answered = exchange.run().await;
        self.answer(exchange, answered, origin)
    }

    fn answer(
        &self,
        exchange: Exchange,
        answered: Result<head::Head, Broken>,
        origin: idle::Origin,
    ) -> Result<Answer, NoAnswer> {
        let is_sent = exchange.is_sent();
        answered
            .and_then(|head| Ok(self.begin(exchange, head, origin)?))
            .map_err(|why| NoAnswer { is_sent, why })
    }

    fn begin(
        &self,
        exchange: Exchange,
        head: head::Head,
        origin: idle::Origin,
    ) -> Result<Answer, Malformed> {
        let framing = Framing::of(head.status, &head.headers)?;
        // Who says both might mean either (RFC 9112 §6.3), and what follows is anybody's guess.
        let is_clear = !(head.headers.contains_key(header::TRANSFER_ENCODING)
            && head.headers.contains_key(header::CONTENT_LENGTH));
        let may_reuse = head.keeps && is_clear && exchange.is_sent();
        let reuse = may_reuse.then(|| (Arc::clone(&self.idle), origin));
        let (transport, rest) = exchange.into_rest(head.bytes);
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: Incoming::new(transport, framing, rest, reuse)?,
        })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Client").finish_non_exhaustive()
    }
}
