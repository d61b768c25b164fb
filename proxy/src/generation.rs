//! What a stream came to that broke or was left, by OpenRouter's own word: a moment later, its books have it.

use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode, header};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};
use url::Url;

use crate::{
    catalog::{Kind, Target},
    dialect::Dialect,
    upstream::Client,
    usage::{Observed, of_generation},
};

/// Where an answer says which generation it is.
const ID: HeaderName = HeaderName::from_static("x-generation-id");
const ID_MAX_BYTES: usize = 128;
/// Before each time of asking: a generation that has just been broken off is not in the books at once.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];
const PATIENCE: Duration = Duration::from_secs(3);
/// At the same time, or who breaks many off has the books closed to everybody: more are estimated at once.
static ASKING: Semaphore = Semaphore::const_new(32);
/// Of an answer.
const MAX_BYTES: usize = 256 * 1024;

/// One that can be asked about.
#[derive(Debug)]
pub(crate) struct Generation {
    client: Client,
    url: Url,
    headers: HeaderMap,
}

impl Generation {
    /// That of this answer, if its provider keeps books.
    pub(crate) fn of(client: &Client, target: &Target, answer: &HeaderMap) -> Option<Box<Self>> {
        if target.provider.kind != Kind::OpenRouter {
            return None;
        }
        let id = answer.get(&ID)?.to_str().ok()?;
        if id.is_empty() || id.len() > ID_MAX_BYTES {
            return None;
        }
        let mut headers = HeaderMap::new();
        let key = target.key.as_ref()?;
        target
            .provider
            .authorize(Dialect::Chat, key.expose(), &mut headers)?;
        headers.insert(
            header::ACCEPT_ENCODING,
            header::HeaderValue::from_static("identity"),
        );
        Some(Box::new(Self {
            client: client.clone(),
            url: target.provider.generation_url(id)?,
            headers,
        }))
    }

    /// What it came to; `None` if that is not known in time.
    pub(crate) async fn observed(&self) -> Option<Observed> {
        let _asking = ASKING.try_acquire().ok()?;
        for pause in PAUSES {
            sleep(pause).await;
            match timeout(PATIENCE, self.ask()).await {
                Ok(Told::Counted(observed)) => return Some(*observed),
                Ok(Told::Never) => return None,
                Ok(Told::NotYet) | Err(_) => {}
            }
        }
        None
    }

    async fn ask(&self) -> Told {
        let Ok(mut answer) = self.client.get(&self.url, &self.headers).await else {
            return Told::NotYet;
        };
        let is_later = matches!(
            answer.status,
            StatusCode::NOT_FOUND | StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
        );
        if answer.status.is_client_error() && !is_later {
            tracing::warn!(status = %answer.status, "OpenRouter does not say what a generation came to");
            return Told::Never;
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.body.chunk().await {
            let Ok(chunk) = chunk else {
                return Told::NotYet;
            };
            if body.len() + chunk.len() > MAX_BYTES {
                return Told::Never;
            }
            body.extend_from_slice(&chunk);
        }
        of_generation(&body).map_or(Told::NotYet, |observed| Told::Counted(Box::new(observed)))
    }
}

enum Told {
    Counted(Box<Observed>),
    NotYet,
    Never,
}
