//! One request: whose it is, whether it may pass, and on to the server.

use std::{net::IpAddr, sync::Arc};

use super::{
    Inner,
    access::{Grant, Verdict},
    body::Body,
    forward, headers, host, own,
    page::{self, text},
    serve::ConnectionPlace,
};
use http::{HeaderValue, Method, Request, Response};
use hyper::body::Incoming;

/// The connection that a request came on.
#[derive(Clone)]
pub(super) struct Connection {
    /// Who visits; what it came by at first.
    pub(super) peer: IpAddr,
    /// Counts the connection, also when it has become a WebSocket.
    pub(super) place: Arc<ConnectionPlace>,
}

/// Answers a request.
pub(super) async fn handle(
    inner: Arc<Inner>,
    mut connection: Connection,
    request: Request<Incoming>,
) -> Response<Body> {
    let forwarded = request.headers().get_all("x-forwarded-for").iter();
    let forwarded = forwarded.map(HeaderValue::as_bytes);
    let visitor = inner
        .settings
        .trusted_hops
        .caller(connection.peer, forwarded);
    // A hop that names nobody asks for itself.
    connection.peer = visitor.unwrap_or(connection.peer);
    let refuse = |answer| page::answer(answer, request.headers());
    let Some(host) = host::of(&request).filter(|_| request.method() != Method::CONNECT) else {
        return refuse(&text::BAD_REQUEST);
    };
    let Some(entry) = inner.table.find(&host) else {
        return refuse(&text::UNKNOWN_HOST);
    };
    if request.uri().path().starts_with(own::PREFIX) {
        return own::answer(&inner, &request, &entry).await;
    }
    if !inner.site.may_send(&request, &entry, &inner.table) {
        return refuse(&text::FOREIGN_ORIGIN);
    }
    let judged = inner
        .gate
        .judge(request.headers(), &entry.route, connection.peer);
    let grant = match judged.await {
        Ok(Verdict::Allowed(grant)) => grant,
        Ok(Verdict::SignInFirst) if headers::is_hook(&request) => Grant::Hook,
        Ok(Verdict::SignInFirst) if entry.route.basic_auth.is_some() => {
            return refuse(&text::SIGN_IN_OR_PASSWORD);
        }
        Ok(Verdict::SignInFirst) => return refuse(&text::SIGN_IN),
        Ok(Verdict::TooManyGuesses) => return refuse(&text::TOO_MANY_GUESSES),
        Err(error) => {
            tracing::error!(
                error = format!("{:#}", anyhow::Error::new(error)),
                "session not looked up"
            );
            return refuse(&text::STORE_DOWN);
        }
    };
    forward::forward(&inner, &connection, &entry, grant, request).await
}
