//! Calls to the API: the budget, the time-outs, the resends, and pages made whole.
//!
//! A call that can do no harm twice is sent again by the table in [`super::code`], after growing waits
//! with full jitter. One that makes something is sent again only if Hetzner said that it did nothing;
//! what is in doubt is for the caller to look up by name. (Other clients resend those too, which is how
//! they leak servers.)

use std::{collections::HashSet, sync::Arc, time::Duration};

use http::{HeaderMap, Method, Request, header};
use reqwest::Url;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::{
    call::{Answer, Call, CallFailed, Correlation},
    code::Meaning,
    limiter::{Limiter, Ticket},
    pace::Pace,
    settings::Token,
    transport::{Exchanged, Transport},
    wire::{ErrorBody, ErrorText, Meta, Resource},
};
use crate::ambient::Chance;

/// Seconds for an answer to a question.
const QUESTION_PATIENCE: u32 = 15;

/// Seconds for an answer to something that makes or changes. With less, hot loops begin.
const CHANGE_PATIENCE: u32 = 60;

/// Seconds of the longest wait before a resend.
const WAIT_CEILING: u32 = 60;

/// The most that Hetzner puts on a page.
const PER_PAGE: u64 = 50;

/// More pages than this are not a list of ours.
const PAGES_MAX: u64 = 1000;

/// How many times a list is read that changes under the reader's eyes.
const LIST_TRIES: u32 = 3;

/// What comes of making a call twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Twice {
    IsHarmless,
    MakesTwo,
}

/// The API of one Project.
#[derive(Debug)]
pub(super) struct Api {
    transport: Transport,
    endpoint: Url,
    token: Token,
    limiter: Limiter,
    pace: Pace,
    chance: Arc<Chance>,
}

impl Api {
    pub(super) fn new(
        transport: Transport,
        endpoint: Url,
        token: Token,
        pace: Pace,
        chance: Arc<Chance>,
    ) -> Self {
        Self {
            transport,
            endpoint,
            token,
            limiter: Limiter::new(pace),
            pace,
            chance,
        }
    }

    pub(super) fn pace(&self) -> Pace {
        self.pace
    }

    pub(super) fn limiter(&self) -> &Limiter {
        &self.limiter
    }

    /// Waits for anything up to `seconds`, so that those who failed together do not return together;
    /// but not for nothing.
    pub(super) async fn wait_up_to(&self, seconds: u32) {
        let limit = self.pace.seconds(seconds);
        sleep(self.jitter(limit).max(self.pace.seconds(1) / 10)).await;
    }

    /// Anything between nothing and `limit`.
    pub(super) fn jitter(&self, limit: Duration) -> Duration {
        let micros = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX - 1);
        Duration::from_micros(self.chance.below(micros + 1))
    }

    /// Makes a call, again and again as far as that is right.
    pub(super) async fn call(&self, call: &Call, twice: Twice) -> Result<Answer, CallFailed> {
        let mut failures = 0;
        loop {
            let error = match self.once(call).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let harmless = twice == Twice::IsHarmless || error.did_nothing_yet();
            if !harmless || failures >= error.resends() {
                return Err(error);
            }
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                http.method = %call.method,
                http.path = call.path,
                failures,
                "call to Hetzner is made again"
            );
            self.wait_up_to(2u32.saturating_pow(failures).min(WAIT_CEILING))
                .await;
            failures += 1;
        }
    }

    /// The thing with this id, if there is one.
    pub(super) async fn get<R: Resource>(&self, id: u64) -> Result<Option<R>, CallFailed> {
        let call = Call::get(format!("{}/{id}", R::MANY));
        match self.call(&call, Twice::IsHarmless).await {
            Ok(mut answer) => answer.part(R::ONE).map(Some),
            Err(error) if error.means(Meaning::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All things of a kind that match.
    pub(super) async fn list<R: Resource>(
        &self,
        filter: &[(&'static str, &str)],
    ) -> Result<Vec<R>, CallFailed> {
        self.list_at(R::MANY, filter).await
    }

    /// A whole list. A page that failed voids it, and so does a list that changed from page to page.
    pub(super) async fn list_at<R: Resource>(
        &self,
        path: &str,
        filter: &[(&'static str, &str)],
    ) -> Result<Vec<R>, CallFailed> {
        let mut tries = 1;
        loop {
            match self.pages(path, filter).await {
                Err(CallFailed::Shifted(_)) if tries < LIST_TRIES => tries += 1,
                done => return done,
            }
            self.wait_up_to(2).await;
        }
    }

    async fn pages<R: Resource>(
        &self,
        path: &str,
        filter: &[(&'static str, &str)],
    ) -> Result<Vec<R>, CallFailed> {
        let (mut all, mut ids) = (Vec::<R>::new(), HashSet::new());
        let mut page = 1;
        loop {
            let order = R::ORDER.map(|order| ("sort", order));
            let call = filter
                .iter()
                .copied()
                .chain(order)
                .fold(Call::get(path), |call, (key, value)| call.with(key, value))
                .with("per_page", &PER_PAGE)
                .with("page", &page);
            let mut answer = self.call(&call, Twice::IsHarmless).await?;
            let found: Vec<R> = answer.part(R::MANY)?;
            let meta: Meta = answer.part("meta")?;
            ids.extend(found.iter().map(Resource::id));
            all.extend(found);
            match meta.pagination.next_page {
                Some(next) if next > page && next <= PAGES_MAX => page = next,
                Some(_) => return Err(CallFailed::Shifted(R::MANY)),
                None => {
                    let total = meta.pagination.total_entries.unwrap_or(all.len() as u64);
                    let whole = ids.len() == all.len() && total == all.len() as u64;
                    return whole.then_some(all).ok_or(CallFailed::Shifted(R::MANY));
                }
            }
        }
    }

    async fn once(&self, call: &Call) -> Result<Answer, CallFailed> {
        let request = self.request(call)?;
        let patience = self.pace.seconds(if call.method == Method::GET {
            QUESTION_PATIENCE
        } else {
            CHANGE_PATIENCE
        });
        let ticket = self.limiter.admit().await;
        let exchanged = timeout(patience, self.transport.exchange(request))
            .await
            .map_err(|_| CallFailed::TimedOut(patience))??;
        heed(&ticket, &exchanged.headers);
        let outcome = read(&exchanged);
        if let Err(error) = &outcome
            && error.means(Meaning::RateLimited)
        {
            let second = self.pace.seconds(1);
            self.limiter.close_for(second + self.jitter(second));
        }
        outcome
    }

    fn request(&self, call: &Call) -> Result<Request<Vec<u8>>, CallFailed> {
        let mut url = self.endpoint.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(call.path.split('/'));
        }
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(url.as_str())
            .header(header::AUTHORIZATION, self.token.header());
        if call.body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request
            .body(call.body.clone().unwrap_or_default())
            .map_err(|error| CallFailed::Unsendable(error.into()))
    }
}

/// Learns from an answer how much of the budget is left.
fn heed(ticket: &Ticket<'_>, headers: &HeaderMap) {
    let number = |name| headers.get(name)?.to_str().ok()?.parse::<u64>().ok();
    if let Some(remaining) = number("ratelimit-remaining") {
        ticket.corrected(remaining, number("ratelimit-limit"));
    }
}

fn read(exchanged: &Exchanged) -> Result<Answer, CallFailed> {
    let correlation = exchanged
        .headers
        .get("x-correlation-id")
        .and_then(|id| id.to_str().ok())
        .map(str::to_owned);
    let correlation = Correlation(correlation);
    if !exchanged.status.is_success() {
        // A proxy between may answer with a page of its own: the status decides then.
        let said = serde_json::from_slice(&exchanged.body)
            .map_or_else(|_| ErrorText::default(), |body: ErrorBody| body.error);
        return Err(CallFailed::Refused {
            status: exchanged.status,
            code: said.code,
            message: said.message,
            correlation,
        });
    }
    let body = if exchanged.body.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&exchanged.body).map_err(|source| CallFailed::Garbled {
            what: "body",
            correlation: correlation.clone(),
            source,
        })?
    };
    Ok(Answer { body, correlation })
}
