//! A provider of models that costs nothing: it speaks the dialects of OpenAI, Anthropic and Gemini, and
//! counts what it served.
//!
//! What it does is chosen by the words of the last user message or of the model's name ([`script`]). What it
//! served is one record a request ([`Served`]), so that a ledger can be held against it. It is held
//! itself against client libraries that others wrote (`tests/sdk.rs`).

mod books;
mod chat;
mod conversation;
mod count;
mod course;
mod dialect;
mod embeddings;
mod gemini;
mod messages;
mod refusal;
mod reply;
mod responses;
mod script;
mod server;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::bail;
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Instant, sleep},
};

use self::{books::Books, server::router};
pub use self::{
    books::{Ending, Served, Tokens},
    dialect::Dialect,
    script::{LONG_TEXT, TEXT},
};
use crate::evidence;

/// A running one, on a port of its own until it is dropped.
#[derive(Debug)]
pub struct FakeProvider {
    address: SocketAddr,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

/// What all requests share.
#[derive(Debug)]
struct Shared {
    key: String,
    books: Books,
}

impl FakeProvider {
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let key = format!("sk-fake-{:032x}", rand::random::<u128>());
        evidence::note_secret(&key);
        let shared = Arc::new(Shared {
            key,
            books: Books::default(),
        });
        let router = router(Arc::clone(&shared));
        let mut serving = JoinSet::new();
        // It ends with the task, and only then.
        serving.spawn(async move { drop(axum::serve(listener, router).await) });
        Ok(Self {
            address,
            shared,
            _serving: serving,
        })
    }

    /// Without `/v1`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The key that it wants to be shown.
    pub fn key(&self) -> &str {
        &self.shared.key
    }

    /// What it has served so far, in the order in which it was asked.
    pub fn served(&self) -> Vec<Served> {
        self.shared.books.all()
    }

    /// What it has served, once nothing is under way any more.
    ///
    /// # Errors
    /// Something still is when the time is up.
    pub async fn settled(&self, patience: Duration) -> anyhow::Result<Vec<Served>> {
        let deadline = Instant::now() + patience;
        loop {
            let served = self.served();
            let under_way = |one: &Served| one.ending == Ending::UnderWay;
            match served.iter().find(|one| under_way(one)) {
                None => return Ok(served),
                Some(one) if Instant::now() > deadline => bail!("still under way: {one:?}"),
                Some(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    }
}
