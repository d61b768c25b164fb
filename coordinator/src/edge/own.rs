//! The edge's own paths: sign-in and sign-out. They never reach a server.

use std::net::IpAddr;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};

use super::{
    Inner,
    body::{Body, whole},
    login, logout,
    page::{self, text},
    table::Entry,
};

/// What all of them begin with.
pub(super) const PREFIX: &str = "/.tidepool/";

const LOGIN: &str = "/.tidepool/login";
const LOGOUT: &str = "/.tidepool/logout";

/// Answers a request for one of them.
pub(super) async fn answer<B>(
    inner: &Inner,
    visitor: IpAddr,
    request: &Request<B>,
    entry: &Entry,
) -> Response<Body> {
    // What changes who is signed in is asked by the instance's own pages only: another site could
    // otherwise sign a visitor in as somebody else, or out.
    if *request.method() == Method::POST && !inner.site.may_send(request, entry, &inner.table) {
        return page::answer(&text::FOREIGN_ORIGIN, request.headers());
    }
    let mut response = match request.uri().path() {
        LOGIN => login::answer(inner, visitor, request, entry).await,
        LOGOUT => logout::answer(inner, visitor, request, entry).await,
        _ => page::answer(&text::NO_SUCH_PAGE, request.headers()),
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers
        .entry(header::REFERRER_POLICY)
        .or_insert(HeaderValue::from_static("no-referrer"));
    response
}

/// An answer without words.
pub(super) fn bare(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(whole(""));
    *response.status_mut() = status;
    response
}

/// The refusal of a method; `allowed` are those that would do.
pub(super) fn wrong_method(allowed: &'static str) -> Response<Body> {
    let mut refused = bare(StatusCode::METHOD_NOT_ALLOWED);
    let allowed = HeaderValue::from_static(allowed);
    refused.headers_mut().insert(header::ALLOW, allowed);
    refused
}
