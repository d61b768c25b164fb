//! What of a request's head goes to the server, and what of the answer's comes back.
//!
//! A server believes what the edge says about a visitor, so nothing that a visitor says in the same
//! words may reach it. The list of identity headers is wide on purpose: a name too many costs a
//! client a header nobody reads, a name too few can cost a customer their agent.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use tidepool_shared::document::EdgeProof;

use super::sessions;
use crate::model::Route;

/// Shown to nginx with whatever this edge lets pass.
const PROOF: HeaderName = HeaderName::from_static("x-tidepool-proof");
/// Who that is; nginx gives an identity to the owner alone.
const VISITOR: HeaderName = HeaderName::from_static("x-tidepool-visitor");
/// The visitor's address, as seen by the edge.
const CLIENT: HeaderName = HeaderName::from_static("x-tidepool-client");
/// Carries the pass of the coordinator's own probe.
pub(super) const PASS: HeaderName = HeaderName::from_static("x-tidepool-pass");

/// The part of a page's policy that says which pages may frame it.
const FRAME_ANCESTORS: &str = "frame-ancestors";

/// Between two neighbours only. `Expect` is answered by our own server.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "expect",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Names by which one proxy tells the next who or from where a visitor is.
const CLAIMS: [&str; 9] = [
    "forwarded",
    "via",
    "client-ip",
    "true-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-real-ip",
    "x-user",
    "x-email",
];
const CLAIM_PREFIXES: [&str; 11] = [
    "cf-",
    "remote-",
    "tailscale-",
    "x-auth-",
    "x-authenticated-",
    "x-authentik-",
    "x-forwarded-",
    "x-original-",
    "x-remote-",
    "x-tidepool-",
    "x-webauth-",
];

/// Where OpenClaw takes web hooks, unless it is configured otherwise.
const HOOKS: &str = "/hooks/";
/// The other header in which OpenClaw takes a hook's token.
const HOOK_TOKEN: HeaderName = HeaderName::from_static("x-openclaw-token");

/// As whom the edge lets a request pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Visitor {
    Owner,
    /// Another program with a token or a signature, which the gateway judges.
    Hook,
}

impl Visitor {
    const fn word(self) -> HeaderValue {
        match self {
            Self::Owner => HeaderValue::from_static("owner"),
            Self::Hook => HeaderValue::from_static("hook"),
        }
    }
}

/// Whether a request is a web hook: with a token, or on a path of a channel (`paths`), whose sender signs. Both
/// are so plain that no reader behind us can take them for others.
pub(super) fn is_hook<B>(request: &Request<B>, paths: &[String]) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/_-".contains(&byte);
    let path = request.uri().path();
    let bears_token = request.headers().contains_key(HOOK_TOKEN)
        || request
            .headers()
            .get(header::AUTHORIZATION)
            .is_some_and(|value| has_scheme(value, b"bearer "));
    let bears_good_token = path.starts_with(HOOKS) && path.bytes().all(plain) && bears_token;
    request.method() == Method::POST && (bears_good_token || paths.iter().any(|hook| hook == path))
}

/// Whether the request's `Authorization` was meant for the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BasicAuth {
    On,
    Off,
}

impl BasicAuth {
    pub(super) fn of(route: &Route) -> Self {
        match route.basic_auth {
            Some(_) => Self::On,
            None => Self::Off,
        }
    }
}

/// A regular expression for the names of all claims, for a hop that drops them in our place.
pub fn claims_pattern() -> String {
    let spelt = |name: &str| name.replace('-', "[-_]");
    let names: Vec<_> = CLAIMS.iter().map(|name| spelt(name)).collect();
    let prefixes: Vec<_> = CLAIM_PREFIXES.iter().map(|name| spelt(name)).collect();
    format!("(?i)^(({})$|{})", names.join("|"), prefixes.join("|"))
}

/// Makes a visitor's head fit to be seen by the server.
pub(super) fn clean_request(headers: &mut HeaderMap, basic: BasicAuth) {
    remove_hop_by_hop(headers);
    let claims: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_claim(name))
        .cloned()
        .collect();
    for name in claims {
        headers.remove(name);
    }
    if basic == BasicAuth::On && headers.get(header::AUTHORIZATION).is_some_and(is_basic) {
        headers.remove(header::AUTHORIZATION);
    }
    remove_session_cookie(headers);
}

/// Adds what the edge itself vouches for. `None` when a value cannot stand in a header.
pub(super) fn vouch(
    headers: &mut HeaderMap,
    proof: &EdgeProof,
    visitor: Visitor,
    client: IpAddr,
) -> Option<()> {
    let mut proof = HeaderValue::from_str(&proof.0).ok()?;
    proof.set_sensitive(true);
    headers.insert(PROOF, proof);
    headers.insert(VISITOR, visitor.word());
    headers.insert(
        CLIENT,
        HeaderValue::from_str(&client.to_canonical().to_string()).ok()?,
    );
    Some(())
}

/// Makes a server's head fit to be seen by the visitor: the session cookie is the edge's alone, and
/// unless the server says who may, only the instance's own pages may frame it.
pub(super) fn clean_response(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    let says_who_frames = |value: &HeaderValue| {
        let value = value.as_bytes().to_ascii_lowercase();
        value
            .windows(FRAME_ANCESTORS.len())
            .any(|part| part == FRAME_ANCESTORS.as_bytes())
    };
    if !headers
        .get_all(header::CONTENT_SECURITY_POLICY)
        .iter()
        .any(says_who_frames)
    {
        headers.append(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("frame-ancestors 'self'"),
        );
    }
    let sets_session = |value: &HeaderValue| {
        let name = value.as_bytes().split(|byte| *byte == b'=').next();
        name.and_then(|name| str::from_utf8(name).ok())
            .is_some_and(|name| sessions::is_ours(name.trim_ascii()))
    };
    if headers.get_all(header::SET_COOKIE).iter().any(sets_session)
        && let header::Entry::Occupied(entry) = headers.entry(header::SET_COOKIE)
    {
        let (name, values) = entry.remove_entry_mult();
        let kept: Vec<HeaderValue> = values.filter(|value| !sets_session(value)).collect();
        for value in kept {
            headers.append(name.clone(), value);
        }
    }
}

/// Whether a header's list of words has this one.
pub(super) fn lists(headers: &HeaderMap, name: HeaderName, word: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(word))
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// nginx and CGI-like readers take `_` for `-`: compared as if it were one.
fn is_claim(name: &HeaderName) -> bool {
    let name = name.as_str().replace('_', "-");
    CLAIMS.contains(&name.as_str()) || CLAIM_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn is_basic(value: &HeaderValue) -> bool {
    has_scheme(value, b"basic ")
}

fn has_scheme(value: &HeaderValue, scheme: &[u8]) -> bool {
    value
        .as_bytes()
        .get(..scheme.len())
        .is_some_and(|begin| begin.eq_ignore_ascii_case(scheme))
}

fn remove_session_cookie(headers: &mut HeaderMap) {
    let header::Entry::Occupied(entry) = headers.entry(header::COOKIE) else {
        return;
    };
    let (name, values) = entry.remove_entry_mult();
    let kept: Vec<HeaderValue> = values.filter_map(|value| without_session(&value)).collect();
    for value in kept {
        headers.append(name.clone(), value);
    }
}

/// `None` when nothing is left or the value is not text.
fn without_session(value: &HeaderValue) -> Option<HeaderValue> {
    let kept: Vec<&str> = value
        .to_str()
        .ok()?
        .split(';')
        .map(str::trim)
        .filter(|pair| {
            let name = pair.split('=').next().unwrap_or_default();
            !pair.is_empty() && !sessions::is_ours(name.trim())
        })
        .collect();
    (!kept.is_empty())
        .then(|| HeaderValue::from_str(&kept.join("; ")).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn nothing_a_visitor_says_of_itself_is_left() {
        let mut head = headers(&[
            ("accept", "*/*"),
            ("forwarded", "for=1.2.3.4"),
            ("x-forwarded-user", "owner"),
            ("x_forwarded_user", "owner"),
            ("x-tidepool-proof", "guess"),
            ("remote-user", "owner"),
            ("x-real-ip", "1.2.3.4"),
            ("connection", "x-secret, keep-alive"),
            ("x-secret", "1"),
            (
                "cookie",
                "a=1; tidepool_session=s; b=2; __Host-tidepool_session=s",
            ),
        ]);
        head.append("cookie", HeaderValue::from_static("tidepool_session=t"));
        clean_request(&mut head, BasicAuth::Off);
        assert_eq!(head, headers(&[("accept", "*/*"), ("cookie", "a=1; b=2")]));
    }

    #[test]
    fn a_password_for_the_edge_stops_at_the_edge_and_a_bearer_token_passes() {
        let mut head = headers(&[("authorization", "bAsic eDp5")]);
        clean_request(&mut head, BasicAuth::On);
        assert!(head.is_empty());
        let mut head = headers(&[("authorization", "Bearer x")]);
        clean_request(&mut head, BasicAuth::On);
        assert_eq!(head.len(), 1);
    }

    #[test]
    fn only_a_post_to_a_channels_path_or_with_a_token_below_hooks_is_a_hook() {
        let is = |method: &Method, path: &str, name: &str, value: &str| {
            let request = Request::builder().method(method).uri(path);
            let paths = ["/slack/events".to_owned()];
            is_hook(&request.header(name, value).body(()).unwrap(), &paths)
        };
        let bearer = ("authorization", "BEARER t");
        assert!(is(&Method::POST, "/hooks/agent?x=1", bearer.0, bearer.1));
        assert!(is(&Method::POST, "/hooks/wake", "x-openclaw-token", "t"));
        assert!(!is(&Method::GET, "/hooks/agent", bearer.0, bearer.1));
        assert!(!is(
            &Method::POST,
            "/hooks/agent",
            "authorization",
            "Basic t"
        ));
        assert!(!is(&Method::POST, "/hooks/agent", "accept", "*/*"));
        for path in ["/hooks", "/v1/x", "/hooks/../v1", "/hooks/%2e%2e/v1"] {
            assert!(!is(&Method::POST, path, bearer.0, bearer.1), "{path}");
        }
        assert!(is(&Method::POST, "/slack/events?x=1", "accept", "*/*"));
        assert!(!is(&Method::GET, "/slack/events", "accept", "*/*"));
        for path in [
            "/slack",
            "/slack/events/x",
            "/slack/./events",
            "/slack/%65vents",
        ] {
            assert!(!is(&Method::POST, path, "accept", "*/*"), "{path}");
        }
    }

    #[test]
    fn a_server_cannot_set_the_session_cookie() {
        let mut head = headers(&[
            ("set-cookie", "tidepool_session=x; Domain=example.com"),
            (
                "content-security-policy",
                "default-src 'self'; Frame-Ancestors *",
            ),
        ]);
        let prefixed = HeaderValue::from_static("__Host-tidepool_session=x; Secure; Path=/");
        head.append("set-cookie", prefixed);
        head.append("set-cookie", HeaderValue::from_static("own=1"));
        clean_response(&mut head);
        assert_eq!(
            head.get_all("set-cookie").iter().collect::<Vec<_>>(),
            ["own=1"]
        );
        assert_eq!(head.get_all("content-security-policy").iter().count(), 1);
    }

    #[test]
    fn only_its_own_pages_frame_a_server_that_says_nothing_of_frames() {
        let mut head = headers(&[("content-security-policy", "default-src 'self'")]);
        clean_response(&mut head);
        let policies: Vec<_> = head.get_all("content-security-policy").iter().collect();
        assert_eq!(policies, ["default-src 'self'", "frame-ancestors 'self'"]);
    }
}
