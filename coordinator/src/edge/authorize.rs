//! Traefik's question, whether a request that it would pass to a server itself may pass (`forwardAuth`).
//!
//! The request in question is told in forwarding headers, which count from trusted hops only, and of these
//! from the one that knows the secret ([`super::hop`]). Whoever may
//! pass is answered by the headers that the server's nginx must get; everybody else by the very page that
//! the edge would show. The instance's proof is in that answer and nowhere else on the way: a router of
//! Traefik's that does not ask here reaches a server that refuses it.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, Method, Request, Response, header};

use super::{
    Inner,
    body::{Body, whole},
    forward, handle,
    headers::{self, BasicAuth},
    host, own,
    page::{self, Answer, text},
    table::Entry,
};
use crate::{model::InstanceStatus, routes::SERVER};

/// Where Traefik asks.
pub const PATH: &str = "/.tidepool/authorize";

const FORWARDED_HOST: &str = "x-forwarded-host";
const FORWARDED_METHOD: &str = "x-forwarded-method";
const FORWARDED_URI: &str = "x-forwarded-uri";

/// Where `tidepool doctor` comes by way of Traefik, to see whether Traefik's question is answered.
pub const CHECK: &str = "/.tidepool/sign-in-check";

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    /// It is no question.
    Nobody,
    Hop,
    /// Somebody with a hop's address who does not know its secret.
    Pretender,
}

/// Whether a hop asks in its own name. What it passes on from a visitor has the visitor's `Host`, which is
/// an instance's, and the forwarded one too: whoever could ask so would be told an instance's proof.
pub(super) fn asker<B>(inner: &Inner, peer: IpAddr, request: &Request<B>) -> Asker {
    let (Some(questions), Some(secrets)) = (&inner.settings.questions, &inner.hop_secrets) else {
        return Asker::Nobody;
    };
    let forwarded = only(request.headers(), FORWARDED_HOST).and_then(host::canonical);
    let asked = host::of(request);
    let is_visitors = asked.as_ref().is_none_or(|host| {
        let name = host.strip_suffix(&questions.domain.to_ascii_lowercase());
        name.is_some_and(|name| name.is_empty() || name.ends_with('.'))
    });
    let is_question = request.uri().path() == PATH
        && inner.settings.trusted_hops.has(peer)
        && forwarded.is_some()
        && forwarded != asked
        && !is_visitors;
    match is_question {
        true if secrets.are_shown(request.headers()) => Asker::Hop,
        true => Asker::Pretender,
        false => Asker::Nobody,
    }
}

/// Answers it.
pub(super) async fn answer<B>(
    inner: &Inner,
    visitor: IpAddr,
    request: &Request<B>,
) -> Response<Body> {
    let passed = match asked_about(request) {
        Some(asked) => pass(inner, visitor, &asked).await,
        None => Err(page::answer(&text::BAD_REQUEST, request.headers())),
    };
    match passed {
        Ok(vouched) => {
            let mut response = Response::new(whole(""));
            *response.headers_mut() = vouched;
            response
        }
        Err(answer) => answer,
    }
}

/// The request that the question is about, without its body.
fn asked_about<B>(request: &Request<B>) -> Option<Request<()>> {
    let told = |name| only(request.headers(), name);
    let mut asked = Request::new(());
    *asked.method_mut() = told(FORWARDED_METHOD)?.parse::<Method>().ok()?;
    *asked.uri_mut() = told(FORWARDED_URI)?.parse().ok()?;
    *asked.headers_mut() = request.headers().clone();
    let host = HeaderValue::from_str(told(FORWARDED_HOST)?).ok()?;
    asked.headers_mut().insert(header::HOST, host);
    Some(asked)
}

/// What is vouched for to the server, or what the visitor is answered.
async fn pass(
    inner: &Inner,
    visitor: IpAddr,
    asked: &Request<()>,
) -> Result<HeaderMap, Response<Body>> {
    let refused = |answer: &Answer| page::answer(answer, asked.headers());
    let host = host::of(asked).ok_or_else(|| refused(&text::BAD_REQUEST))?;
    if asked.uri().path() == CHECK {
        return Err(refused(&text::SIGN_IN_WORKS));
    }
    let entry = inner.table.find(&host);
    let entry = entry.ok_or_else(|| refused(&text::UNKNOWN_HOST))?;
    match handle::closed(&entry, asked.headers()) {
        Some(page) if entry.route.moved_to.is_none() => Err(page),
        _ => vouched(inner, visitor, asked, &entry)
            .await
            .map_err(refused),
    }
}

async fn vouched(
    inner: &Inner,
    visitor: IpAddr,
    asked: &Request<()>,
    entry: &Entry,
) -> Result<HeaderMap, &'static Answer> {
    // Its route in Traefik is about to go, and then the edge is asked for the page itself.
    if entry.route.moved_to.is_some() {
        return Err(&text::STARTING);
    }
    if asked.uri().path().starts_with(own::PREFIX) {
        return Err(&text::NO_SUCH_PAGE);
    }
    let grant = handle::judge(inner, asked, entry, visitor).await?;
    // Traefik may not have heard yet that the name leads elsewhere, and what is vouched for is for the
    // instance's own server only.
    let server = only(asked.headers(), SERVER).and_then(|address| address.parse().ok());
    if server != entry.route.upstream.map(|upstream| upstream.address) {
        return Err(&text::STARTING);
    }
    let (route, status) = (&entry.route, entry.route.status);
    if route.upstream.is_none() || status == InstanceStatus::Starting {
        return Err(forward::waiting(status));
    }
    // Traefik may lead there already, and what its nginx says to a name that it does not know yet would be the
    // visitor's answer.
    if route.is_renaming && entry.since.elapsed() < forward::NEW {
        return Err(&text::STARTING);
    }
    let mut head = asked.headers().clone();
    headers::clean_request(&mut head, BasicAuth::of(route));
    head = [header::COOKIE, header::AUTHORIZATION]
        .iter()
        .flat_map(|name| {
            head.get_all(name)
                .iter()
                .map(|value| (name.clone(), value.clone()))
        })
        .collect();
    headers::vouch(&mut head, &route.edge_proof, grant.visitor(), visitor)
        .ok_or(&text::BAD_REQUEST)?;
    head.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(head)
}

/// The value of a header that is there once.
fn only<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    value.to_str().ok()
}
