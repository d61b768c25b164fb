//! Passing a request on to the instance's server, and the answer back.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::{Body as _, Incoming};
use tidepool_shared::{id::InstanceId, quota::Place};
use tokio::time::Instant;

use super::{
    Inner,
    access::Grant,
    body::{Body, Bound, bounded, until, whole},
    handle::Connection,
    headers::{self, BasicAuth, Visitor},
    page::{self, text},
    servers::{self, Servers},
    table::Entry,
    upgrade,
};
use crate::model::{InstanceStatus, Upstream};

/// As long as nginx on the server waits for the gateway: an answer may take very long to begin.
const HEAD_DEADLINE: Duration = Duration::from_hours(1);

/// So long after a route came into the table the server's nginx may not know its name yet: a name that was
/// changed is the edge's at once.
pub(super) const NEW: Duration = Duration::from_secs(30);

/// Later than this after it was asked, a request is not asked again: whoever asked may have lost access.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Passes a request on that was let in.
pub(super) async fn forward(
    inner: &Arc<Inner>,
    connection: &Connection,
    entry: &Arc<Entry>,
    grant: Grant,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let client = request.headers().clone();
    let Some(upstream) = entry.route.upstream else {
        return page::answer(waiting(entry.route.status), &client);
    };
    let most = entry.route.limits.max_body_bytes();
    if request.body().size_hint().lower() > most {
        return page::answer(&text::TOO_LARGE, &client);
    }
    let bound = Bound::of(most);
    let Some(place) = inner
        .requests_of_one
        .take((entry.route.instance, grant.visitor()))
    else {
        return page::answer(&text::TOO_MANY_AT_ONCE, &client);
    };
    let Ok(socket) = upgrade::wanted(inner, entry.route.instance, &mut request) else {
        return page::answer(&text::TOO_MANY_WEBSOCKETS, &client);
    };
    let Some(request) = rewrite(
        inner,
        connection.peer,
        entry,
        upstream,
        grant.visitor(),
        request,
        (bound.clone(), socket.as_ref()),
    ) else {
        return page::answer(&text::BAD_REQUEST, &client);
    };
    let asked = tokio::time::timeout(HEAD_DEADLINE, ask(&inner.servers, request));
    let asked = tokio::select! {
        asked = asked => asked,
        () = entry.live.cancelled() => return page::answer(&text::UNREACHABLE, &client),
    };
    let response = match asked {
        Ok(Ok(response)) => response,
        Ok(Err(_)) if bound.is_exceeded() => return page::answer(&text::TOO_LARGE, &client),
        Ok(Err(error)) => {
            tracing::debug!(instance.id = %entry.route.instance, error = &error as &dyn std::error::Error, "server did not answer");
            let starting = error.is_connect() && entry.route.status == InstanceStatus::Starting;
            let answer = match starting {
                true => &text::STARTING,
                false if timed_out(&error) => &text::TOO_SLOW,
                false => &text::UNREACHABLE,
            };
            return page::answer(answer, &client);
        }
        Err(_) => return page::answer(&text::TOO_SLOW, &client),
    };
    let is_new = entry.route.status == InstanceStatus::Starting || entry.since.elapsed() < NEW;
    if is_new && not_ready(response.status()) {
        return page::answer(&text::STARTING, &client);
    }
    match (response.status(), socket) {
        (StatusCode::SWITCHING_PROTOCOLS, Some(socket)) => {
            upgrade::join(inner, connection, entry, grant, socket, response)
        }
        (StatusCode::SWITCHING_PROTOCOLS, None) => page::answer(&text::UNREACHABLE, &client),
        _ => pass_back(inner, entry, grant, place, response),
    }
}

/// Asks a server, and once more where a request that changes nothing lost its connection at once: nginx cuts off
/// whoever has just connected, too, when somebody's access ends.
async fn ask(
    servers: &Servers,
    request: Request<Body>,
) -> Result<Response<Incoming>, hyper_util::client::legacy::Error> {
    let again = repeated(&request);
    let begun = Instant::now();
    let asked = servers.request(request).await;
    match (asked, again) {
        (Err(error), Some(again)) if begun.elapsed() < AT_ONCE && !timed_out(&error) => {
            servers.request(again).await
        }
        (asked, _) => asked,
    }
}

/// The same request a second time, if that is the same as once (RFC 9110, 9.2.1) and nothing follows its head.
fn repeated(request: &Request<Body>) -> Option<Request<Body>> {
    let repeatable = request.method().is_safe() && request.body().is_end_stream();
    repeatable.then(|| {
        let mut again = Request::new(whole(Bytes::new()));
        *again.method_mut() = request.method().clone();
        *again.uri_mut() = request.uri().clone();
        *again.headers_mut() = request.headers().clone();
        again
    })
}

/// Before the agent has switched nginx to this instance, nginx answers 403 to every host.
fn not_ready(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::FORBIDDEN | StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE
    )
}

/// Why there is no server.
pub(super) fn waiting(status: InstanceStatus) -> &'static page::Answer {
    match status {
        InstanceStatus::Pending => &text::PENDING,
        InstanceStatus::Starting => &text::STARTING,
        InstanceStatus::Failed => &text::FAILED,
        InstanceStatus::Running => &text::UNREACHABLE,
        InstanceStatus::Stopped => &text::STOPPED,
        InstanceStatus::Suspended => &text::SUSPENDED,
        InstanceStatus::Deleted | InstanceStatus::Purged => &text::UNKNOWN_HOST,
    }
}

/// The same request, fit for the server. `None` when its target cannot be written for it.
fn rewrite(
    inner: &Inner,
    peer: IpAddr,
    entry: &Entry,
    upstream: Upstream,
    visitor: Visitor,
    request: Request<Incoming>,
    (bound, socket): (Bound, Option<&upgrade::Wanted>),
) -> Option<Request<Body>> {
    let (mut head, body) = request.into_parts();
    let target = head
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    head.uri = servers::uri(upstream, inner.settings.http_port, target)?;
    headers::clean_request(&mut head.headers, BasicAuth::of(&entry.route));
    let host = HeaderValue::from_str(&entry.route.host).ok()?;
    head.headers.insert(header::HOST, host);
    headers::vouch(&mut head.headers, &entry.route.edge_proof, visitor, peer)?;
    if socket.is_some() {
        ask_for_websocket(&mut head.headers);
    }
    head.version = http::Version::HTTP_11;
    head.extensions.clear();
    Some(Request::from_parts(
        head,
        bounded(body, entry.live.clone(), bound),
    ))
}

fn ask_for_websocket(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

/// The answer, which may be a stream without an end: it breaks off when access does.
fn pass_back(
    inner: &Arc<Inner>,
    entry: &Arc<Entry>,
    grant: Grant,
    place: Place<(InstanceId, Visitor)>,
    response: Response<Incoming>,
) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    headers::clean_response(&mut head.headers);
    head.extensions.clear();
    let ended = entry.live.clone().cancelled_owned();
    let live = async move {
        // Held as long as the body is.
        let _place = place;
        ended.await;
    };
    let body = match grant {
        Grant::Session(_) => {
            let (inner, entry) = (Arc::clone(inner), Arc::clone(entry));
            until(body, async move {
                tokio::select! {
                    () = live => {}
                    () = inner.gate.until_void(grant, entry.route.instance) => {}
                }
            })
        }
        // What ends these ends the instance's access as a whole, or is over with the request.
        Grant::Password | Grant::Pass | Grant::Hook => until(body, live),
    };
    Response::from_parts(head, body)
}

/// Whether the connection was not accepted in time, anywhere in the chain of causes.
fn timed_out(error: &hyper_util::client::legacy::Error) -> bool {
    std::iter::successors(Some(error as &dyn std::error::Error), |error| {
        error.source()
    })
    .filter_map(|error| error.downcast_ref::<std::io::Error>())
    .any(|error| error.kind() == std::io::ErrorKind::TimedOut)
}
