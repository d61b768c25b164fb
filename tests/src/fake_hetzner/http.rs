//! A call's way through the fake: noted, delayed, admitted, perhaps struck by a switch, run, checked.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Query, RawPathParams, Request},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse as _, Response},
    routing::{MethodFilter, on},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    books,
    call::{Call, Outcome, Reply},
    fake::Fake,
    fault::Fault,
    id::ServerId,
    mangle::{Change, mangle},
    operations::{CREATE_SERVER, OPERATIONS, Operation},
    rate::Level,
    refusal::Refusal,
    schema,
    serve::Dropped,
    server::create,
};

/// The largest body of a request, in bytes.
const MAX_BODY: usize = 1024 * 1024;

/// Every operation under `/v1`.
pub(super) fn router(fake: &Arc<Fake>) -> Router {
    let mut router = Router::new();
    for operation in OPERATIONS {
        let fake = fake.clone();
        let handler = move |params: RawPathParams, request: Request| {
            let fake = fake.clone();
            // The last one: `/servers/{id}/actions/{action_id}` is about the action.
            let id = params.iter().last().map(|(_, id)| id.parse().ok());
            async move {
                match id {
                    Some(None) => no_route().await,
                    Some(id) => carry(&fake, operation, id, request).await,
                    None => carry(&fake, operation, None, request).await,
                }
            }
        };
        let (method, path) = operation.key.split_once(' ').unwrap_or_default();
        router = router.route(&format!("/v1{path}"), on(filter(method), handler));
    }
    let gone = async || respond(&Err(Refusal::gone()), None);
    router
        .route("/v1/datacenters", axum::routing::any(gone))
        .route("/v1/datacenters/{id}", axum::routing::any(gone))
        .fallback(no_route)
        .method_not_allowed_fallback(async || respond(&Err(Refusal::method()), None))
}

fn filter(method: &str) -> MethodFilter {
    match method {
        "POST" => MethodFilter::POST,
        "PUT" => MethodFilter::PUT,
        "DELETE" => MethodFilter::DELETE,
        _ => MethodFilter::GET,
    }
}

/// Also without a token.
async fn no_route() -> Response {
    respond(&Err(Refusal::no_route()), None)
}

async fn carry(
    fake: &Fake,
    operation: &'static Operation,
    id: Option<u64>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let body = read(body).await;
    note(fake, operation, &parts, body.as_ref().ok());
    sleep(fake.settings.pace.call).await;
    let strikes = |fault| fake.faults.strikes(fault, &[operation.key]);
    if strikes(Fault::Slow) {
        sleep(fake.faults.slowness()).await;
    }
    if strikes(Fault::DropBefore) {
        return dropped();
    }
    let (level, admitted) = admit(fake, operation, &parts.headers);
    if let Err(refusal) = admitted {
        return respond(&Err(refusal), level);
    }
    let outcome = run(fake, operation, id, &parts, body).await;
    if fake.settings.check_answers {
        check(fake, operation, &outcome);
    }
    if strikes(Fault::SlowAfter) {
        sleep(fake.faults.slowness()).await;
    }
    if strikes(Fault::DropAfter) {
        return dropped();
    }
    if strikes(Fault::BadGatewayAfter) {
        return respond(&Err(Refusal::bad_gateway()), level);
    }
    respond(&changed(fake, operation, outcome), level)
}

/// An empty body counts as `{}`.
async fn read(body: Body) -> Result<Value, Refusal> {
    let bytes = axum::body::to_bytes(body, MAX_BODY).await;
    let bytes = bytes.map_err(|_| Refusal::json())?;
    if bytes.is_empty() {
        return Ok(json!({}));
    }
    serde_json::from_slice(&bytes).map_err(|_| Refusal::json())
}

fn note(fake: &Fake, operation: &Operation, parts: &Parts, body: Option<&Value>) {
    let request = books::Request {
        at: fake.clock.now(),
        operation: operation.key.to_owned(),
        path: parts.uri.to_string(),
        body: body.cloned().unwrap_or_default(),
    };
    let remembered = fake.settings.remembered_requests;
    fake.lock().ledger.arrived(request, remembered);
}

/// The token, then the bucket.
fn admit(
    fake: &Fake,
    operation: &Operation,
    headers: &HeaderMap,
) -> (Option<Level>, Result<(), Refusal>) {
    let given = headers.get(header::AUTHORIZATION);
    let given = given.and_then(|value| value.to_str().ok());
    let Some(token) = given.and_then(|value| value.strip_prefix("Bearer ")) else {
        return (None, Err(Refusal::no_token()));
    };
    let may_write = token == fake.settings.token;
    if !may_write && token != fake.settings.read_only_token {
        return (None, Err(Refusal::wrong_token()));
    }
    let refused = Err(Refusal::rate(fake.settings.rate.requests));
    let level = match fake.take_request() {
        Ok(level) => level,
        Err(level) => return (Some(level), refused),
    };
    if fake.faults.strikes(Fault::RateLimited, &[operation.key]) {
        let remaining = 0;
        return (Some(Level { remaining, ..level }), refused);
    }
    if !may_write && !operation.key.starts_with("GET ") {
        return (Some(level), Err(Refusal::read_only()));
    }
    (Some(level), Ok(()))
}

async fn run(
    fake: &Fake,
    operation: &'static Operation,
    id: Option<u64>,
    parts: &Parts,
    body: Result<Value, Refusal>,
) -> Outcome {
    let query = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
    let Query(query) = query.map_err(|_| Refusal::invalid("invalid query"))?;
    let page = query.iter().find(|(name, _)| name == "page");
    let page = page.map_or("1", |(_, page)| page.as_str());
    let names = [operation.key, &format!("{} page {page}", operation.key)];
    for (fault, refusal) in [
        (Fault::Unavailable, Refusal::unavailable()),
        (Fault::ServerError, Refusal::server_error()),
        (Fault::Conflict, Refusal::conflict()),
    ] {
        if fake.faults.strikes(fault, &names) {
            return Err(refusal);
        }
    }
    let body = body?;
    schema::check_request(operation.key, &body)?;
    let call = Call::new(id, query, body);
    let outcome = if operation.key == CREATE_SERVER {
        create_server(fake, &call).await
    } else {
        let mut project = fake.lock_at(operation.key);
        (operation.run)(&mut project, &call)
    };
    fake.changed();
    outcome
}

/// Looks, sets a machine aside, looks again, and makes the server. The machine takes a moment, and
/// nothing else may wait for it.
async fn create_server(fake: &Fake, call: &Call) -> Outcome {
    let (id, user_data) = {
        let mut project = fake.lock_at(CREATE_SERVER);
        let plan = create::plan(&project, call)?;
        create::refuse_by_switch(&project, &plan)?;
        if plan.brings_its_address() && fake.has_machines {
            let message = "machines of this fake have addresses of their own";
            return Err(Refusal::unprocessable("unsupported_error", message));
        }
        (ServerId(project.next_id()), plan.user_data().to_owned())
    };
    let machine = fake.keeper.reserve(id, &user_data).await;
    let machine = machine.map_err(|error| {
        tracing::error!(%error, "no machine for a server");
        Refusal::no_capacity()
    })?;
    let outcome = {
        let mut project = fake.lock_at(CREATE_SERVER);
        let plan = create::plan(&project, call);
        plan.and_then(|plan| create::make(&mut project, id, plan, machine))
    };
    if outcome.is_err() {
        fake.keeper.release(id).await;
    }
    outcome
}

fn check(fake: &Fake, operation: &Operation, outcome: &Outcome) {
    let faults = match outcome {
        Ok(reply) => schema::faults_of_answer(operation.key, reply.status, reply.body.as_ref()),
        Err(no) => schema::faults_of_answer(operation.key, no.status, Some(&no.body())),
    };
    fake.lock().violations.extend(faults);
}

fn changed(fake: &Fake, operation: &Operation, mut outcome: Outcome) -> Outcome {
    for (fault, change) in [
        (Fault::UnknownValues, Change::Values),
        (Fault::UnknownStatus, Change::Statuses),
        (Fault::ExtraFields, Change::Fields),
    ] {
        if let Ok(Reply {
            body: Some(body), ..
        }) = &mut outcome
            && fake.faults.strikes(fault, &[operation.key])
        {
            mangle(body, change);
        }
    }
    outcome
}

fn dropped() -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.extensions_mut().insert(Dropped);
    response
}

fn respond(outcome: &Outcome, level: Option<Level>) -> Response {
    let (status, body) = match outcome {
        Ok(reply) => (reply.status, reply.body.clone()),
        Err(refusal) => (refusal.status, Some(refusal.body())),
    };
    let mut response = match body {
        Some(body) => (status, axum::Json(body)).into_response(),
        None => status.into_response(),
    };
    let headers = response.headers_mut();
    let correlation = format!("{:016x}", rand::random::<u64>());
    if let Ok(correlation) = HeaderValue::from_str(&correlation) {
        headers.insert("x-correlation-id", correlation);
    }
    if let Some(level) = level {
        headers.insert("ratelimit-limit", level.limit.into());
        headers.insert("ratelimit-remaining", level.remaining.into());
        headers.insert("ratelimit-reset", level.reset.into());
    }
    response
}
