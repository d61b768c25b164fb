//! What a certificate authority asks a customer's own name for (HTTP-01), by plain http and by any edge.

use std::net::IpAddr;

use http::{HeaderValue, Request, Response, header};

use super::{
    Inner,
    body::{Body, whole},
    lookups::Looked,
    page::{self, text},
};

const PREFIX: &str = "/.well-known/acme-challenge/";
const TOKEN_MAX_BYTES: usize = 128;

/// Whether it is asked for one.
pub(super) fn is_asked<B>(inner: &Inner, request: &Request<B>) -> bool {
    inner.domains.is_some() && request.uri().path().starts_with(PREFIX)
}

/// Answers with what the reconciler of domains has put into the store.
pub(super) async fn answer<B>(inner: &Inner, peer: IpAddr, request: &Request<B>) -> Response<Body> {
    let refuse = |answer| page::answer(answer, request.headers());
    let token = request.uri().path().strip_prefix(PREFIX);
    let is_token = |token: &&str| {
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        (1..=TOKEN_MAX_BYTES).contains(&token.len()) && token.bytes().all(is_letter)
    };
    let Some((domains, token)) = inner.domains.as_ref().zip(token.filter(is_token)) else {
        return refuse(&text::NO_SUCH_PAGE);
    };
    let kept = domains.store.challenge(token, inner.clock.now());
    match inner.lookups.look(peer, kept).await {
        Ok(Looked::Found(answer)) => {
            let mut response = Response::new(whole(answer));
            let kind = HeaderValue::from_static("application/octet-stream");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        Ok(Looked::Nothing) => refuse(&text::NO_SUCH_PAGE),
        Ok(Looked::NotNow) => refuse(&text::TOO_MANY_LOOKUPS),
        Err(error) => {
            tracing::error!(
                error = format!("{:#}", anyhow::Error::new(error)),
                "challenge not looked up"
            );
            refuse(&text::STORE_DOWN)
        }
    }
}
