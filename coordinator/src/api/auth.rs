//! Bearer tokens: `tp_<token id>_<secret>`, of which the store knows only the secret's SHA-256.
//!
//! Whatever is wrong with a token, the answer is the same 401, and comparing takes the same time.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::header,
    middleware::Next,
    response::Response,
};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tidepool_shared::id::TokenId;

use super::{
    ApiState,
    problem::{Code, Problem},
};
use crate::{
    ambient::{Chance, Moment},
    model::ApiToken,
    store::StoreError,
};

/// The longest header that can hold a token; anything longer is not looked at.
const MAX_LEN: usize = 256;

/// Who is calling.
#[derive(Debug, Clone)]
pub struct Caller(pub ApiToken);

/// Lets a request pass whose token is good, and says whose it is.
pub(super) async fn require(
    State(state): State<Arc<ApiState>>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let refused = || Problem::new(Code::Unauthorized, "send `Authorization: Bearer tp_…`");
    let presented = presented(&request).ok_or_else(refused)?;
    let token = authenticate(&state, &presented)
        .await?
        .ok_or_else(refused)?;
    request.extensions_mut().insert(Caller(token));
    Ok(next.run(request).await)
}

/// A new token and the text that is shown once.
pub fn issue(
    name: String,
    expires_at: Option<Moment>,
    now: Moment,
    chance: &Chance,
) -> (ApiToken, String) {
    let id = TokenId::new(chance.uuid(now));
    let secret = chance.secret();
    let token = ApiToken {
        id,
        name,
        secret_hash: hash(&secret),
        created_at: now,
        expires_at,
        revoked_at: None,
    };
    (token, format!("tp_{id}_{secret}"))
}

/// SHA-256 of a secret's text, which is how the store knows tokens, login links and sessions.
pub fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

struct Presented {
    id: TokenId,
    secret: String,
}

fn presented(request: &Request) -> Option<Presented> {
    let header = request
        .headers()
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?;
    if header.len() > MAX_LEN {
        return None;
    }
    let (scheme, token) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (id, secret) = token.trim().strip_prefix("tp_")?.rsplit_once('_')?;
    Some(Presented {
        id: id.parse().ok()?,
        secret: secret.to_owned(),
    })
}

async fn authenticate(
    state: &ApiState,
    presented: &Presented,
) -> Result<Option<ApiToken>, StoreError> {
    let known = good(state, presented.id).await?;
    Ok(known.filter(|token| token.secret_hash.ct_eq(&hash(&presented.secret)).into()))
}

/// The token, unless it is revoked or expired by now.
pub(super) async fn good(state: &ApiState, id: TokenId) -> Result<Option<ApiToken>, StoreError> {
    let known = state.store.api_token(id).await?;
    let now = state.now();
    Ok(known.filter(|token| {
        token.revoked_at.is_none() && token.expires_at.is_none_or(|expiry| now < expiry)
    }))
}
