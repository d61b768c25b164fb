//! One attempt with one provider, and what becomes of it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use rand::Rng as _;
use tokio::time::{Instant, timeout};
use url::Url;

use super::Forwarder;
use crate::{
    account::{Account, Interested},
    asked::Asked,
    bodies::Whole,
    catalog::{Call, Target},
    dialect::Dialect,
    directory::Caller,
    generation::Generation,
    headers,
    ledger::{self, Outcome, Payer},
    price::{Microcents, Terms},
    refusal::Refusal,
    relay::{Form, Relay},
    splice::{Asked as Usages, Envelope, spliced},
    upstream::{self, Incoming, NoAnswer},
    usage::Usage,
};

/// For the head of an answer. Models that think do so in silence, and the SDKs wait as long.
const HEAD_PATIENCE: Duration = Duration::from_mins(10);
/// Of a refusal's body; a longer one is cut. Of a count's too.
const REFUSAL_MAX_BYTES: usize = 256 * 1024;
/// For a refusal's body, and a count's.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(10);

/// What is asked, whoever is asked.
pub(super) struct Question {
    pub(super) begun: Instant,
    pub(super) caller: Caller,
    pub(super) asked: Asked,
    /// As the client called it.
    pub(super) asked_model: String,
    pub(super) request_id: String,
    pub(super) headers: HeaderMap,
    pub(super) envelope: Envelope,
    pub(super) body: Bytes,
    /// Of the body, estimated.
    pub(super) prompt_tokens: u64,
    /// The body's memory is taken as long as it may be sent again.
    pub(super) _whole: Whole,
}

/// What became of an attempt.
pub(super) enum Attempted {
    /// The client is answered.
    Answered(Response),
    /// Somebody else may do better.
    Failed(Failure),
}

/// An attempt that brought no answer.
pub(super) enum Failure {
    /// The provider could not be reached, or said nothing.
    Silent,
    Refused {
        /// What the client is to hear of it.
        response: Response,
        status: StatusCode,
        /// When to come again, by the provider's word.
        retry_after: Option<Duration>,
    },
}

/// Before the same provider is asked again.
const PAUSE: Duration = Duration::from_millis(250);
/// A provider that wants to be left alone for longer is: the client, which is told how long, may wait better.
const PAUSE_MAX: Duration = Duration::from_secs(5);

impl Failure {
    /// How long to wait before the same provider is asked again, for the same model or another one: a little more or
    /// less, so that many do not come together. `None`: it would say the same, or wants no one for longer than we wait.
    pub(super) fn pause(&self, is_same_model: bool) -> Option<Duration> {
        let usual = PAUSE.mul_f64(rand::rng().random_range(0.5..1.5));
        match self {
            Self::Silent => Some(usual),
            Self::Refused { status, .. } if is_about_the_key(*status) => None,
            // Limits are of a model.
            Self::Refused { .. } if !is_same_model => Some(usual),
            Self::Refused {
                retry_after: Some(wait),
                ..
            } => (*wait <= PAUSE_MAX).then_some(*wait + usual),
            Self::Refused { status, .. } => status.is_server_error().then_some(usual),
        }
    }

    /// What the client gets if nobody did better.
    pub(super) fn into_answer(self) -> Result<Response, Refusal> {
        match self {
            Self::Silent => Err(Refusal::NobodyAnswers),
            Self::Refused { response, .. } => Ok(response),
        }
    }
}

impl Forwarder {
    pub(super) async fn attempt(
        self: &Arc<Self>,
        question: &Question,
        target: &Target,
    ) -> Result<Attempted, Refusal> {
        let provider = &target.provider;
        let (request, hides_usage) = request(question, target).ok_or_else(|| {
            tracing::error!(
                provider = provider.name,
                "a request cannot be made of its address or key"
            );
            Refusal::NobodyAnswers
        })?;
        let mut account = self.open(question, target).await?;
        self.breakers.try_half_open(&provider.name);
        let asked = self
            .client
            .post(&request.url, &request.headers, request.body);
        // The head of a stream comes at once; that of a whole answer when the model is done.
        let waiting = question
            .is_stream()
            .then(|| self.breakers.wait(&provider.name));
        if waiting.is_none() {
            account.answered();
        }
        let answered = timeout(HEAD_PATIENCE, asked).await;
        if let Some(waiting) = waiting {
            waiting.over();
        }
        let response = match answered {
            Ok(Ok(response)) => response,
            Ok(Err(no_answer)) => {
                self.breakers.failed(&provider.name);
                unanswered(question, target, account, no_answer);
                return Ok(Attempted::Failed(Failure::Silent));
            }
            Err(_) => {
                self.breakers.failed(&provider.name);
                account.lose(StatusCode::GATEWAY_TIMEOUT);
                return Ok(Attempted::Failed(Failure::Silent));
            }
        };
        let status = response.status;
        if status.is_success() {
            self.breakers.answered(&provider.name);
            account.answered();
            if question.asked.call.is_free() {
                return Ok(count(response, account).await);
            }
            let generation = Generation::of(&self.client, target, &response.headers);
            return Ok(Attempted::Answered(self.relay(
                response,
                account,
                generation,
                hides_usage,
                question.asked.dialect,
            )));
        }
        self.judge(status, target);
        let retry_after = retry_after(&response.headers, now());
        let refusal = refusal(response, target, question.asked.dialect).await;
        account.close(status, Outcome::UpstreamRefused);
        Ok(if is_worth_another(status) {
            Attempted::Failed(Failure::Refused {
                response: refusal,
                status,
                retry_after,
            })
        } else {
            Attempted::Answered(refusal)
        })
    }

    fn judge(&self, status: StatusCode, target: &Target) {
        let provider = target.provider.name.as_str();
        if status.is_server_error() {
            self.breakers.failed(provider);
        } else if !is_worth_another(status) {
            // It is the request that it does not like.
            self.breakers.answered(provider);
        }
        if is_about_the_key(status) && target.payer == Payer::Managed {
            tracing::error!(provider, %status, "the provider refuses our key");
        }
    }

    /// What it may cost and the row come first: without them nobody is asked.
    async fn open(&self, question: &Question, target: &Target) -> Result<Account, Refusal> {
        let provider = &target.provider;
        let is_free = question.asked.call.is_free();
        let estimate = if is_free {
            Usage::default()
        } else {
            Usage {
                input: question.prompt_tokens,
                output: question.envelope.likely_output(),
                ..Usage::default()
            }
        };
        let price = self.prices.find(provider.kind.word(), &target.model);
        let likely = price.as_ref().map(|price| {
            let cost = price.cost(&estimate, &Terms::default());
            Microcents::from(cost).0
        });
        let customer = question.caller.customer.as_ref();
        let reservation = match customer {
            Some(customer) if target.payer == Payer::Managed && !is_free => {
                if likely.is_none() && customer.limits.limit_spending() {
                    tracing::error!(
                        provider = provider.name,
                        model = target.model,
                        "a model without a price is not served where there is a budget"
                    );
                    return Err(Refusal::NoPrice);
                }
                self.budgets
                    .reserve(customer, likely.unwrap_or(0))
                    .await
                    .map_err(Refusal::of_budget)?
            }
            _ => None,
        };
        let attempt = ledger::Attempt {
            request_id: question.request_id.clone(),
            server: question.caller.server,
            instance: customer.map(|customer| customer.instance),
            provider: provider.name.clone(),
            model: target.model.clone(),
            asked_model: question.asked_model.clone(),
            dialect: word(question.asked.dialect),
            payer: target.payer,
            estimate,
            estimate_cost_microcents: likely,
            holder: reservation
                .is_some()
                .then(|| self.budgets.holder().to_owned()),
            at: now(),
        };
        let interested = Interested {
            reservation,
            provider: Arc::clone(provider),
            meter: customer
                .filter(|customer| customer.limits.tokens_per_minute.is_some())
                .map(|customer| (Arc::clone(&self.rates), customer.instance)),
        };
        Account::open(&self.ledger, attempt, price, interested).map_err(|error| {
            tracing::error!(
                error = format!("{:#}", anyhow::Error::new(error)),
                "no row, no call"
            );
            Refusal::NoLedger
        })
    }

    fn relay(
        &self,
        response: upstream::Answer,
        account: Account,
        generation: Option<Box<Generation>>,
        hides_usage: bool,
        dialect: Dialect,
    ) -> Response {
        let status = response.status;
        let headers = headers::answered(&response.headers);
        let form = Form {
            dialect,
            hides_usage,
            is_stream: headers
                .get(header::CONTENT_TYPE)
                .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")),
        };
        let relay = Relay::new(response, account, generation, form, self.drains.clone());
        answer(status, headers, Body::new(relay))
    }
}

impl Question {
    fn is_stream(&self) -> bool {
        match &self.asked.call {
            Call::Gemini { verb, .. } => *verb == "streamGenerateContent",
            Call::Plain | Call::CountTokens => self.envelope.stream,
        }
    }
}

/// What was not sent whole was not worked on. Of what was, nobody knows, and a count is free.
fn unanswered(question: &Question, target: &Target, account: Account, no_answer: NoAnswer) {
    let may_cost = no_answer.is_sent && !question.asked.call.is_free();
    let error = format!("{:#}", anyhow::Error::new(no_answer));
    tracing::debug!(provider = target.provider.name, error, "no answer");
    if may_cost {
        account.lose(StatusCode::BAD_GATEWAY);
    } else {
        account.close(StatusCode::BAD_GATEWAY, Outcome::UpstreamFailed);
    }
}

/// What a provider is sent.
struct Sent {
    url: Url,
    headers: HeaderMap,
    body: Bytes,
}

/// And whether we ask for usage in the client's name.
fn request(question: &Question, target: &Target) -> Option<(Sent, bool)> {
    let provider = &target.provider;
    let dialect = question.asked.dialect;
    let url = provider.url(dialect, &target.model, &question.asked.call)?;
    let mut headers = question.headers.clone();
    headers::make_ours(&mut headers, question.caller.customer.as_ref());
    provider.complete(dialect, &mut headers);
    if let Some(key) = &target.key {
        provider.authorize(dialect, key.expose(), &mut headers)?;
    }
    let (body, hides_usage) = body(question, target);
    let sent = Sent { url, headers, body };
    Some((sent, hides_usage))
}

/// The client's body with the provider's name of the model, and whether we ask for usage in its name.
fn body(question: &Question, target: &Target) -> (Bytes, bool) {
    let mut splices = Vec::new();
    splices.extend(question.envelope.replace_model(&target.model));
    let is_chat = question.asked.dialect == Dialect::Chat;
    let mut hides_usage = false;
    if is_chat
        && target.provider.kind.takes_stream_options()
        && let Usages::ByUs(splice) = question.envelope.ask_for_usage()
    {
        hides_usage = true;
        splices.push(splice);
    }
    if splices.is_empty() {
        (question.body.clone(), hides_usage)
    } else {
        (spliced(&question.body, splices).into(), hides_usage)
    }
}

/// As the ledger has it.
const fn word(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Chat => "chat",
        Dialect::Responses => "responses",
        Dialect::Embeddings => "embeddings",
        Dialect::Messages => "messages",
        Dialect::Gemini => "gemini",
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "when it was; nothing is decided by it"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

/// A count, which is a few bytes and is there at once or not at all.
async fn count(response: upstream::Answer, account: Account) -> Attempted {
    let headers = headers::answered(&response.headers);
    let body = Limited::new(response.body, REFUSAL_MAX_BYTES).collect();
    if let Ok(Ok(body)) = timeout(REFUSAL_PATIENCE, body).await {
        account.close(response.status, Outcome::Completed);
        let body = Body::from(body.to_bytes());
        return Attempted::Answered(answer(response.status, headers, body));
    }
    account.close(StatusCode::BAD_GATEWAY, Outcome::UpstreamBroke);
    Attempted::Failed(Failure::Silent)
}

/// A provider's refusal, as it is, unless it is about our key: that is our fault and nobody else's business.
async fn refusal(response: upstream::Answer, target: &Target, dialect: Dialect) -> Response {
    let status = response.status;
    if is_about_the_key(status) && target.payer == Payer::Managed {
        return Refusal::OurKey.in_dialect(dialect);
    }
    let headers = headers::answered(&response.headers);
    let body = timeout(REFUSAL_PATIENCE, bounded(response.body)).await;
    answer(status, headers, Body::from(body.unwrap_or_default()))
}

async fn bounded(mut incoming: Incoming) -> Bytes {
    let mut body = Vec::new();
    // What a broken connection has brought so far is all there is.
    while let Some(Ok(chunk)) = incoming.chunk().await {
        let room = REFUSAL_MAX_BYTES.saturating_sub(body.len());
        body.extend_from_slice(chunk.get(..room.min(chunk.len())).unwrap_or_default());
        if body.len() >= REFUSAL_MAX_BYTES {
            break;
        }
    }
    body.into()
}

fn answer(status: StatusCode, headers: HeaderMap, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Somebody else, or the same one a moment later, may do better.
fn is_worth_another(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(
            status,
            StatusCode::REQUEST_TIMEOUT
                | StatusCode::CONFLICT
                | StatusCode::TOO_MANY_REQUESTS
                | StatusCode::UNAUTHORIZED
                | StatusCode::FORBIDDEN
        )
}

/// In seconds, or the time of day, or in milliseconds, which some say as well and more exactly.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let span = |text: &str, unit: f64| {
        let seconds = text.parse::<f64>().ok()? * unit;
        Duration::try_from_secs_f64(seconds).ok()
    };
    text("retry-after-ms")
        .and_then(|millis| span(millis, 0.001))
        .or_else(|| {
            let text = text("retry-after")?;
            span(text, 1.0).or_else(|| {
                let then = httpdate::parse_http_date(text).ok()?;
                Some(then.duration_since(now).unwrap_or_default())
            })
        })
}

fn is_about_the_key(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(headers: &[(&'static str, &'static str)]) -> Option<f64> {
        let headers = headers
            .iter()
            .map(|(name, value)| {
                (
                    http::HeaderName::from_static(name),
                    http::HeaderValue::from_static(value),
                )
            })
            .collect();
        let now = httpdate::parse_http_date("Sat, 28 Nov 2026 11:00:00 GMT").unwrap();
        retry_after(&headers, now).map(|wait| wait.as_secs_f64())
    }

    #[test]
    fn a_provider_says_in_three_ways_when_to_come_again() {
        assert_eq!(said(&[("retry-after", "2")]), Some(2.0));
        assert_eq!(said(&[("retry-after", " 0.5 ")]), Some(0.5));
        let both = [("retry-after", "1"), ("retry-after-ms", "350")];
        assert_eq!(said(&both), Some(0.35));
        let at = [("retry-after", "Sat, 28 Nov 2026 11:00:04 GMT")];
        assert_eq!(said(&at), Some(4.0));
        let past = [("retry-after", "Sat, 28 Nov 2026 10:00:00 GMT")];
        assert_eq!(said(&past), Some(0.0));
        for nonsense in ["", "soon", "-1", "nan", "inf", "1e300"] {
            assert_eq!(said(&[("retry-after", nonsense)]), None, "{nonsense}");
        }
    }

    #[test]
    fn the_same_model_is_asked_again_when_its_provider_wants_it_and_soon() {
        let refused = |status: u16, seconds: Option<u64>| Failure::Refused {
            response: Response::default(),
            status: StatusCode::from_u16(status).unwrap(),
            retry_after: seconds.map(Duration::from_secs),
        };
        let waits = |failure: &Failure, from: f64, to: f64| {
            let pause = failure.pause(true).unwrap().as_secs_f64();
            (from..to).contains(&pause)
        };
        assert!(waits(&Failure::Silent, 0.1, 0.4));
        assert!(waits(&refused(503, None), 0.1, 0.4));
        assert!(waits(&refused(503, Some(5)), 5.1, 5.4));
        assert!(waits(&refused(429, Some(3)), 3.1, 3.4));
        assert!(waits(&refused(429, Some(0)), 0.1, 0.4));
        for never in [
            refused(429, None),
            refused(429, Some(6)),
            refused(503, Some(6)),
        ] {
            assert_eq!(never.pause(true), None);
            assert!(never.pause(false).is_some(), "another model");
        }
        assert_eq!(refused(401, Some(1)).pause(true), None);
        assert_eq!(refused(403, None).pause(false), None);
    }
}
