//! Sign-out: the session that the visitor shows ends, here and in the store.

use std::net::IpAddr;

use http::{HeaderValue, Method, Request, Response, header};

use super::{
    Inner,
    body::Body,
    lookups::Looked,
    own::wrong_method,
    page::{self, text},
    sessions,
    table::Entry,
};
use crate::store::Stored;

/// Answers a request for the sign-out's path. Who is not signed in is signed out already.
pub(super) async fn answer<B>(
    inner: &Inner,
    visitor: IpAddr,
    request: &Request<B>,
    entry: &Entry,
) -> Response<Body> {
    if *request.method() != Method::POST {
        return wrong_method("POST");
    }
    match end(inner, visitor, request, entry).await {
        Ok(Looked::Found(()) | Looked::Nothing) => {}
        Ok(Looked::NotNow) => return page::answer(&text::TOO_MANY_LOOKUPS, request.headers()),
        Err(error) => {
            tracing::error!(
                error = format!("{:#}", anyhow::Error::new(error)),
                "session not ended"
            );
            return page::answer(&text::STORE_DOWN, request.headers());
        }
    }
    let mut response = page::answer(&text::SIGNED_OUT, request.headers());
    if let Ok(cookie) = HeaderValue::from_str(&sessions::no_cookie(&inner.site)) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

async fn end<B>(
    inner: &Inner,
    visitor: IpAddr,
    request: &Request<B>,
    entry: &Entry,
) -> Stored<Looked<()>> {
    let instance = entry.route.instance;
    let shown = inner.gate.session(request.headers(), instance, visitor);
    let session = match shown.await? {
        Looked::Found(session) => session,
        Looked::Nothing => return Ok(Looked::Nothing),
        Looked::NotNow => return Ok(Looked::NotNow),
    };
    let access = &inner.store.access;
    access.end_sessions(instance, Some(session)).await?;
    inner.gate.forget_sessions(instance);
    tracing::info!(instance.id = %instance, "a visitor signed out");
    Ok(Looked::Found(()))
}
