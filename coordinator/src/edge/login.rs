//! Sign-in by link: a secret that works once becomes a session cookie of this one host.
//!
//! Opening the link only shows a page that asks again by POST, by itself or by its button; that spends
//! the link. What merely looks at links (a chat's preview, a mail scanner) spends none, and costs
//! nothing: the page is the same for every link and asks no store. It holds no secret either, as a form
//! without an action is sent to where its page is.

use std::{net::IpAddr, sync::LazyLock};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use tidepool_shared::document::Digest;

use super::{
    Inner,
    body::{Body, whole},
    lookups::Looked,
    own::{bare, wrong_method},
    page::{self, text},
    sessions,
    table::Entry,
};
use crate::ambient::SECRET_CHARS;

/// Sends the form as soon as the page is there.
const SUBMIT: &str = "document.forms[0].submit()";

static PAGE: LazyLock<String> = LazyLock::new(|| {
    let form = format!(
        "<form method=\"post\"><button>Open my agent</button></form><script>{SUBMIT}</script>"
    );
    page::document("Signing in", "", &form)
});

static POLICY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{}'; \
         form-action 'self'; frame-ancestors 'none'",
        STANDARD.encode(Digest::of(SUBMIT.as_bytes()).0)
    )
});

/// Answers a request for the sign-in's path.
pub(super) async fn answer<B>(
    inner: &Inner,
    visitor: IpAddr,
    request: &Request<B>,
    entry: &Entry,
) -> Response<Body> {
    match *request.method() {
        Method::GET if is_prefetch(request.headers()) => bare(StatusCode::NO_CONTENT),
        Method::GET => ask(),
        // Link checkers ask so; a link is for the person.
        Method::HEAD => bare(StatusCode::OK),
        Method::POST => redeem(inner, visitor, request, entry).await,
        _ => wrong_method("GET, HEAD, POST"),
    }
}

fn ask() -> Response<Body> {
    let mut response = Response::new(whole(PAGE.as_str()));
    let headers = response.headers_mut();
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_TYPE, "text/html; charset=utf-8");
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    // With `no-referrer` a browser would send the form from the origin `null`.
    set(header::REFERRER_POLICY, "strict-origin");
    set(header::CONTENT_SECURITY_POLICY, POLICY.as_str());
    response
}

async fn redeem<B>(
    inner: &Inner,
    visitor: IpAddr,
    request: &Request<B>,
    entry: &Entry,
) -> Response<Body> {
    let refused = || page::answer(&text::LINK_REFUSED, request.headers());
    let Some(token) = token(request.uri().query()) else {
        return refused();
    };
    let secret = inner.chance.secret();
    let now = inner.clock.now();
    let redeeming = async {
        let redeemed = inner.store.access.redeem_login_link(
            Digest::of(token.as_bytes()).0,
            entry.route.instance,
            Digest::of(secret.as_bytes()).0,
            now.plus(inner.settings.session),
            now,
        );
        Ok(redeemed.await?.then_some(()))
    };
    match inner.lookups.look(visitor, redeeming).await {
        Ok(Looked::Found(())) => signed_in(inner, &secret).unwrap_or_else(refused),
        Ok(Looked::Nothing) => refused(),
        Ok(Looked::NotNow) => page::answer(&text::TOO_MANY_LOOKUPS, request.headers()),
        Err(error) => {
            tracing::error!(
                error = format!("{:#}", anyhow::Error::new(error)),
                "login link not redeemed"
            );
            page::answer(&text::STORE_DOWN, request.headers())
        }
    }
}

/// To the front page, with the cookie.
fn signed_in(inner: &Inner, secret: &str) -> Option<Response<Body>> {
    let cookie = sessions::cookie(&inner.site, secret, inner.settings.session);
    let mut cookie = HeaderValue::from_str(&cookie).ok()?;
    cookie.set_sensitive(true);
    let mut response = bare(StatusCode::SEE_OTHER);
    let headers = response.headers_mut();
    headers.insert(header::SET_COOKIE, cookie);
    headers.insert(header::LOCATION, HeaderValue::from_static("/"));
    Some(response)
}

/// The secret of the link: hexadecimal, so never percent-encoded. What is not as long as ours is none.
fn token(query: Option<&str>) -> Option<&str> {
    let token = query?
        .split('&')
        .find_map(|pair| pair.strip_prefix("token="))?;
    (token.len() == SECRET_CHARS).then_some(token)
}

/// A browser that only thinks that its user may click.
fn is_prefetch(headers: &HeaderMap) -> bool {
    ["sec-purpose", "purpose", "x-moz"].iter().any(|name| {
        headers
            .get(*name)
            .is_some_and(|value| value.as_bytes().starts_with(b"prefetch"))
    })
}
