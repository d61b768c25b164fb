//! One request: whose it is, whether it may pass, and on to the server.

use std::{net::IpAddr, sync::Arc};

use super::{
    Inner,
    access::{Grant, Verdict},
    authorize::{self, Asker},
    body::Body,
    challenge, forward, headers, host, own,
    page::{self, Answer, text},
    places::ConnectionPlace,
    table::Entry,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use hyper::body::Incoming;

use crate::model::InstanceStatus;

/// The connection that a request came on.
#[derive(Clone)]
pub(super) struct Connection {
    /// Who visits; what it came by at first.
    pub(super) peer: IpAddr,
    /// The customer's own name for which TLS ended here: then the peer is the visitor, and nobody's word
    /// about that counts.
    pub(super) name: Option<Arc<str>>,
    /// Counts the connection, also when it has become a WebSocket.
    pub(super) place: Arc<ConnectionPlace>,
}

/// Answers a request.
pub(super) async fn handle(
    inner: Arc<Inner>,
    connection: Connection,
    request: Request<Incoming>,
) -> Response<Body> {
    let is_last = connection.place.is_for_a_question;
    let mut response = answer(inner, connection, request).await;
    if is_last {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

async fn answer(
    inner: Arc<Inner>,
    mut connection: Connection,
    request: Request<Incoming>,
) -> Response<Body> {
    let hop = connection.peer;
    if connection.name.is_none() {
        connection.peer = visitor(&inner, hop, &request);
    }
    if challenge::is_asked(&inner, &request) {
        return challenge::answer(&inner, connection.peer, &request).await;
    }
    let refuse = |answer| page::answer(answer, request.headers());
    // What comes by TLS of a customer's name is a visitor's, wherever it says it is from.
    let asker = match connection.name {
        Some(_) => Asker::Nobody,
        None => authorize::asker(&inner, hop, &request),
    };
    match asker {
        Asker::Nobody if connection.place.is_for_a_question => return refuse(&text::FULL),
        Asker::Nobody => {}
        Asker::Hop => return authorize::answer(&inner, connection.peer, &request).await,
        Asker::Pretender => return refuse(&text::UNKNOWN_HOP),
    }
    let Some(host) = host::of(&request).filter(|_| request.method() != Method::CONNECT) else {
        return refuse(&text::BAD_REQUEST);
    };
    if connection.name.as_ref().is_some_and(|name| **name != *host) {
        return refuse(&text::MISDIRECTED);
    }
    let Some(entry) = inner.table.find(&host) else {
        return refuse(&text::UNKNOWN_HOST);
    };
    if let Some(url) = &entry.route.moved_to {
        return page::moved(url, request.uri());
    }
    if let Some(page) = closed(&entry, request.headers()) {
        return page;
    }
    if request.uri().path().starts_with(own::PREFIX) {
        return own::answer(&inner, connection.peer, &request, &entry).await;
    }
    match judge(&inner, &request, &entry, connection.peer).await {
        Ok(grant) => forward::forward(&inner, &connection, &entry, grant, request).await,
        Err(answer) => refuse(answer),
    }
}

/// What everybody is told of an instance that is switched off, its owner and web hooks too: nobody can sign in
/// to be told more.
pub(super) fn closed(entry: &Entry, client: &HeaderMap) -> Option<Response<Body>> {
    match entry.route.status {
        InstanceStatus::Stopped => Some(page::answer(&text::STOPPED, client)),
        InstanceStatus::Suspended => {
            let answer = &text::SUSPENDED;
            Some(match &entry.route.notice {
                Some(notice) => page::worded(answer, notice, client),
                None => page::answer(answer, client),
            })
        }
        InstanceStatus::Pending
        | InstanceStatus::Starting
        | InstanceStatus::Running
        | InstanceStatus::Failed
        | InstanceStatus::Deleted
        | InstanceStatus::Purged => None,
    }
}

/// Who visits, as far as `peer` may say.
fn visitor<B>(inner: &Inner, peer: IpAddr, request: &Request<B>) -> IpAddr {
    let forwarded = request.headers().get_all("x-forwarded-for").iter();
    let forwarded = forwarded.map(HeaderValue::as_bytes);
    let visitor = inner.settings.trusted_hops.caller(peer, forwarded);
    // A hop that names nobody asks for itself.
    visitor.unwrap_or(peer)
}

/// By what a request may pass, or what it is answered.
pub(super) async fn judge<B>(
    inner: &Inner,
    request: &Request<B>,
    entry: &Entry,
    visitor: IpAddr,
) -> Result<Grant, &'static Answer> {
    if !inner.site.may_send(request, entry, &inner.table) {
        return Err(&text::FOREIGN_ORIGIN);
    }
    let judged = inner.gate.judge(request.headers(), &entry.route, visitor);
    let judged = judged.await;
    // It took a while: what let this request in may be what has just been taken away.
    if entry.live.is_cancelled() {
        return Err(&text::CHANGED);
    }
    match judged {
        Ok(Verdict::Allowed(grant)) => in_time(inner, entry, grant),
        Ok(Verdict::SignInFirst) if headers::is_hook(request, &entry.route.hooks) => {
            in_time(inner, entry, Grant::Hook)
        }
        Ok(Verdict::SignInFirst) if entry.route.basic_auth.is_some() => {
            Err(&text::SIGN_IN_OR_PASSWORD)
        }
        Ok(Verdict::SignInFirst) => Err(&text::SIGN_IN),
        Ok(Verdict::TooManyGuesses) => Err(&text::TOO_MANY_GUESSES),
        Ok(Verdict::TooManyLookups) => Err(&text::TOO_MANY_LOOKUPS),
        Err(error) => {
            tracing::error!(
                error = format!("{:#}", anyhow::Error::new(error)),
                "session not looked up"
            );
            Err(&text::STORE_DOWN)
        }
    }
}

/// Holds whoever may pass to the instance's pace; the coordinator's own probe has none.
fn in_time(inner: &Inner, entry: &Entry, grant: Grant) -> Result<Grant, &'static Answer> {
    let route = &entry.route;
    let fits = grant == Grant::Pass
        || inner
            .pace
            .take(route.instance, grant.visitor(), &route.limits);
    if fits {
        Ok(grant)
    } else {
        Err(&text::TOO_MANY_REQUESTS)
    }
}
