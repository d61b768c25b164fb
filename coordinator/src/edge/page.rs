//! What the edge says itself: a small page for people, a problem document for programs.
//!
//! All texts are constants but one, the operator's word about a suspension, which is escaped; nothing of a
//! request is ever shown.

pub(super) mod text;

use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header};

use super::body::{Body, whole};

/// One thing that the edge has to say.
pub(super) struct Answer {
    status: StatusCode,
    /// Names the problem to programs.
    slug: &'static str,
    title: &'static str,
    detail: &'static str,
    retry: Retry,
    challenge: Challenge,
}

/// Whether looking again soon may help.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Retry {
    /// A page looks again by itself.
    Soon,
    /// A person has to do something first; programs should come back some time.
    Later,
    Never,
}

/// What a browser should ask its user for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Challenge {
    None,
    Password,
}

const RETRY_SOON_SECONDS: u16 = 2;
const RETRY_LATER_SECONDS: u16 = 300;

/// The answer in the form that the client reads.
pub(super) fn answer(answer: &Answer, client: &HeaderMap) -> Response<Body> {
    worded(answer, answer.detail, client)
}

/// The same with a detail of the operator's own.
pub(super) fn worded(answer: &Answer, detail: &str, client: &HeaderMap) -> Response<Body> {
    let (body, kind) = if wants_page(client) {
        (page(answer, detail), "text/html; charset=utf-8")
    } else {
        (problem(answer, detail), "application/problem+json")
    };
    let mut response = Response::new(whole(body));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_TYPE, kind);
    set(header::CACHE_CONTROL, "no-store");
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "no-referrer");
    set(
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    );
    if answer.challenge == Challenge::Password {
        set(
            header::WWW_AUTHENTICATE,
            "Basic realm=\"agent\", charset=\"UTF-8\"",
        );
    }
    let retry_after = match answer.retry {
        Retry::Soon => Some(RETRY_SOON_SECONDS),
        Retry::Later => Some(RETRY_LATER_SECONDS),
        Retry::Never => None,
    };
    if let Some(seconds) = retry_after {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// The same thing is at another URL. Whoever sent something sends it again there.
pub(super) fn moved(url: &str, asked: &Uri) -> Response<Body> {
    let target = asked.path_and_query().map_or("/", |target| target.as_str());
    let mut response = Response::new(whole(""));
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::from_str(&format!("{url}{target}")) {
        headers.insert(header::LOCATION, location);
    }
    // The old name may be somebody else's one day.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Whether the client is a browser that shows a page: not one that opens a WebSocket or fetches.
pub(super) fn wants_page(client: &HeaderMap) -> bool {
    !client.contains_key(header::UPGRADE)
        && client
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.contains("text/html"))
}

fn page(answer: &Answer, detail: &str) -> String {
    let refresh = match answer.retry {
        Retry::Soon => format!("<meta http-equiv=\"refresh\" content=\"{RETRY_SOON_SECONDS}\">"),
        Retry::Later | Retry::Never => String::new(),
    };
    let body = format!("<p>{}</p>", escaped(detail));
    document(answer.title, &refresh, &body)
}

/// Fit to stand between two tags.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            char => escaped.push(char),
        }
    }
    escaped
}

/// A page in the edge's looks.
pub(super) fn document(title: &str, head: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">{head}\
         <title>{title}</title><style>body{{font:16px/1.5 system-ui,sans-serif;max-width:32rem;\
         margin:20vh auto 0;padding:0 1.5rem;color:#1c2733;background:#f7f9fb}}\
         h1{{font-size:1.4rem}}@media(prefers-color-scheme:dark){{body{{color:#e6edf3;\
         background:#10161d}}}}</style></head><body><h1>{title}</h1>{body}</body></html>"
    )
}

fn problem(answer: &Answer, detail: &str) -> String {
    serde_json::json!({
        "type": format!("urn:tidepool:edge:{}", answer.slug),
        "title": answer.title,
        "status": answer.status.as_u16(),
        "detail": detail,
    })
    .to_string()
}
