//! Sign-in by link: a secret that works once becomes a session cookie of this one host.

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use tidepool_shared::document::Digest;

use super::{
    Inner,
    body::{Body, whole},
    page::{self, text},
    sessions::COOKIE,
    table::Entry,
};

/// Paths under this are the edge's own and never reach a server.
pub(super) const OWN_PREFIX: &str = "/.tidepool/";
const LOGIN: &str = "/.tidepool/login";

/// Answers a request for one of the edge's own paths.
pub(super) async fn answer<B>(
    inner: &Inner,
    request: &Request<B>,
    entry: &Entry,
) -> Response<Body> {
    if request.uri().path() != LOGIN {
        return page::answer(&text::NO_SUCH_PAGE, request.headers());
    }
    let mut response = match *request.method() {
        Method::GET if is_prefetch(request.headers()) => bare(StatusCode::NO_CONTENT),
        Method::GET => redeem(inner, request, entry).await,
        // Link checkers ask so; a link is for the person.
        Method::HEAD => bare(StatusCode::OK),
        _ => {
            let mut refused = bare(StatusCode::METHOD_NOT_ALLOWED);
            let allowed = HeaderValue::from_static("GET, HEAD");
            refused.headers_mut().insert(header::ALLOW, allowed);
            refused
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    response
}

async fn redeem<B>(inner: &Inner, request: &Request<B>, entry: &Entry) -> Response<Body> {
    let refused = || page::answer(&text::LINK_REFUSED, request.headers());
    let Some(token) = token(request.uri().query()) else {
        return refused();
    };
    let secret = inner.chance.secret();
    let now = inner.clock.now();
    let redeemed = inner
        .store
        .access
        .redeem_login_link(
            Digest::of(token.as_bytes()).0,
            entry.route.instance,
            Digest::of(secret.as_bytes()).0,
            now.plus(inner.settings.session),
            now,
        )
        .await;
    match redeemed {
        Ok(true) => signed_in(inner, &secret).unwrap_or_else(refused),
        Ok(false) => refused(),
        Err(error) => {
            tracing::error!(
                error = format!("{:#}", anyhow::Error::new(error)),
                "login link not redeemed"
            );
            page::answer(&text::STORE_DOWN, request.headers())
        }
    }
}

/// To the front page, with the cookie. Without `Domain`, so that no other host name gets it.
fn signed_in(inner: &Inner, secret: &str) -> Option<Response<Body>> {
    let secure = if inner.site.https() { "; Secure" } else { "" };
    let max_age = inner.settings.session.as_secs();
    let cookie =
        format!("{COOKIE}={secret}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Lax{secure}");
    let mut cookie = HeaderValue::from_str(&cookie).ok()?;
    cookie.set_sensitive(true);
    let mut response = bare(StatusCode::SEE_OTHER);
    let headers = response.headers_mut();
    headers.insert(header::SET_COOKIE, cookie);
    headers.insert(header::LOCATION, HeaderValue::from_static("/"));
    Some(response)
}

/// The secret of the link: hexadecimal or base 64 for URLs, so never percent-encoded.
fn token(query: Option<&str>) -> Option<&str> {
    let token = query?
        .split('&')
        .find_map(|pair| pair.strip_prefix("token="))?;
    (!token.is_empty() && token.len() <= 256).then_some(token)
}

/// A browser that only thinks that its user may click.
fn is_prefetch(headers: &HeaderMap) -> bool {
    ["sec-purpose", "purpose", "x-moz"].iter().any(|name| {
        headers
            .get(*name)
            .is_some_and(|value| value.as_bytes().starts_with(b"prefetch"))
    })
}

fn bare(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(whole(""));
    *response.status_mut() = status;
    response
}
