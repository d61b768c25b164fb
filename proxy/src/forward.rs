//! One request, from a server's words to a provider's answer.
//!
//! A model call is not idempotent, so another attempt is made only before the first byte of an answer
//! went to the server, and within [`ATTEMPTS_WITHIN`]. Each attempt is a row of the ledger, begun
//! before the provider hears of it: without a row nobody is asked.

mod attempt;
mod estimate;

use std::{sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use http::Method;
use rand::Rng as _;
use tidepool_shared::hops::Hops;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use self::attempt::{Attempted, Failure, Question};
use self::estimate::prompt_tokens;
pub(crate) use self::estimate::tokens_in;
use crate::{
    asked::Asked,
    bodies::Bodies,
    breaker::Breakers,
    budget::Budgets,
    catalog::{Target, Unresolved},
    demo,
    dialect::Dialect,
    directory::{Caller, Customer, Directory, Standing},
    ledger::{Ledger, Payer},
    metrics,
    price::Prices,
    rates::Rates,
    refusal::Refusal,
    splice::Envelope,
    upstream::Client,
};

/// No attempt begins later than this after the first. The client's own patience is not for us to spend.
const ATTEMPTS_WITHIN: Duration = Duration::from_secs(20);
/// Attempts in all.
const ATTEMPTS_MAX: usize = 4;

/// What every request shares.
#[derive(Debug, Clone)]
pub struct Forwarder {
    pub directory: Directory,
    pub ledger: Ledger,
    pub budgets: Arc<Budgets>,
    pub rates: Arc<Rates>,
    pub prices: Arc<Prices>,
    pub client: Client,
    /// Whose word counts about who asks; nobody's unless the operator says so.
    pub hops: Hops,
    /// Streams whose client has left and whose end is still read.
    pub drains: TaskTracker,
    pub(crate) bodies: Arc<Bodies>,
    pub(crate) breakers: Arc<Breakers>,
}

impl Forwarder {
    /// The parts that have no settings are made here.
    pub fn new(
        directory: Directory,
        ledger: Ledger,
        budgets: Arc<Budgets>,
        rates: Arc<Rates>,
        prices: Arc<Prices>,
        client: Client,
    ) -> Self {
        Self {
            directory,
            ledger,
            budgets,
            rates,
            prices,
            client,
            hops: Hops::default(),
            drains: TaskTracker::new(),
            bodies: Arc::default(),
            breakers: Arc::default(),
        }
    }
}

impl Forwarder {
    /// The same for another thread, with connections of its own.
    #[must_use]
    pub fn apart(&self) -> Self {
        Self {
            client: self.client.apart(),
            ..self.clone()
        }
    }
}

/// Answers whatever has a path of its own.
pub(crate) async fn forward(
    State(forwarder): State<Arc<Forwarder>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let Some(asked) = Asked::at(request.uri().path(), request.uri().query()) else {
        return Refusal::NoSuchPath.into_response();
    };
    let dialect = asked.dialect;
    if request.method() != Method::POST {
        return Refusal::NoSuchMethod.in_dialect(dialect);
    }
    forwarder
        .answer(&caller, asked, request)
        .await
        .unwrap_or_else(|refusal| {
            metrics::refused(refusal.code());
            refusal.in_dialect(dialect)
        })
}

impl Forwarder {
    /// Waits until streams whose clients have left are read to their ends; nothing may be begun any more.
    pub async fn drained(&self) {
        self.drains.close();
        self.drains.wait().await;
    }

    async fn answer(
        self: Arc<Self>,
        caller: &Caller,
        asked: Asked,
        request: Request,
    ) -> Result<Response, Refusal> {
        let begun = Instant::now();
        let standing = caller.customer.as_ref().map(|customer| customer.standing);
        if standing == Some(Standing::Suspended) {
            return Err(Refusal::Suspended);
        }
        let (head, body) = request.into_parts();
        let whole = self.bodies.read(caller.server, body).await?;
        let body = whole.bytes.clone();
        let Some(customer) = self.customer(caller) else {
            return match asked.dialect {
                Dialect::Chat => demo::answer(caller, &body),
                _ => Err(Refusal::NobodyAnswers),
            };
        };
        self.rates.admit(customer).await.map_err(Refusal::of_rate)?;
        let envelope = Envelope::read(asked.dialect, &body).map_err(Refusal::Malformed)?;
        let named = asked.model.clone();
        let name = named
            .or_else(|| envelope.model.as_ref().map(|model| model.name.clone()))
            .ok_or(Refusal::NoModel)?;
        let targets = self
            .directory
            .catalog()
            .resolve(customer, &name, asked.dialect)
            .map_err(refused)?;
        let targets = allowed(targets, &envelope)?;
        let prompt_tokens = if asked.call.is_free() {
            0
        } else {
            prompt_tokens(&body)
        };
        let question = Question {
            begun,
            caller: caller.clone(),
            asked_model: name,
            request_id: format!("{:032x}", rand::random::<u128>()),
            headers: crate::headers::asked(&head.headers),
            asked,
            envelope,
            body,
            prompt_tokens,
            _whole: whole,
        };
        self.ask(question, order(targets)).await
    }

    /// Somebody, and somebody to ask for them; else it is the demo model's turn.
    fn customer<'a>(&self, caller: &'a Caller) -> Option<&'a Customer> {
        caller
            .customer
            .as_ref()
            .filter(|_| !self.directory.catalog().is_empty())
    }

    async fn ask(
        self: Arc<Self>,
        question: Question,
        targets: Vec<Target>,
    ) -> Result<Response, Refusal> {
        let mut last: Option<(&Target, Failure)> = None;
        for target in self.plan(&targets) {
            if let Some((before, failure)) = &last {
                let pause = if before.provider.name == target.provider.name {
                    failure.pause(before.model == target.model)
                } else {
                    Some(Duration::ZERO)
                };
                let Some(pause) = pause else { continue };
                if question.begun.elapsed() + pause > ATTEMPTS_WITHIN {
                    break;
                }
                tokio::time::sleep(pause).await;
            }
            match self.attempt(&question, target).await? {
                Attempted::Answered(response) => return Ok(response),
                Attempted::Failed(failure) => last = Some((target, failure)),
            }
        }
        last.map_or(Err(Refusal::NobodyAnswers), |(_, failure)| {
            failure.into_answer()
        })
    }

    /// Whom to ask, one after the other: those left alone now come last, and a single one twice.
    fn plan<'a>(&self, targets: &'a [Target]) -> Vec<&'a Target> {
        let (shut, open): (Vec<_>, Vec<_>) = targets
            .iter()
            .partition(|target| self.breakers.is_open(&target.provider.name));
        let mut plan: Vec<_> = open.into_iter().chain(shut).collect();
        if let [only] = plan[..] {
            plan.push(only);
        }
        plan.truncate(ATTEMPTS_MAX);
        plan
    }
}

/// Without the operator's keys, for what is not served on them.
fn allowed(mut targets: Vec<Target>, envelope: &Envelope) -> Result<Vec<Target>, Refusal> {
    if let Some(foreign) = envelope.foreign {
        targets.retain(|target| target.payer == Payer::Own);
        if targets.is_empty() {
            return Err(Refusal::NotOnOurKey(foreign));
        }
    }
    Ok(targets)
}

fn refused(why: Unresolved) -> Refusal {
    match why {
        Unresolved::NoProviders => Refusal::NobodyAnswers,
        Unresolved::UnknownModel => Refusal::UnknownModel,
        Unresolved::OtherDialect => Refusal::OtherDialect,
        Unresolved::OwnKey => Refusal::OwnKey,
    }
}

/// The first by weight, the others behind it as the operator listed them.
fn order(mut targets: Vec<Target>) -> Vec<Target> {
    let total: u32 = targets.iter().map(|target| target.weight).sum();
    if total > 0 {
        let mut drawn = rand::rng().random_range(0..total);
        let first = targets.iter().position(|target| {
            let here = drawn < target.weight;
            drawn = drawn.saturating_sub(target.weight);
            here
        });
        let first = targets.remove(first.unwrap_or(0));
        targets.insert(0, first);
    }
    targets
}
