//! Whom a request is for, and whether the page that sent it is the instance's own.

use http::{HeaderMap, Method, Request, Uri, header};

use super::table::{Entry, Table};

/// How browsers see this edge.
pub(super) struct Site {
    https: bool,
    port: u16,
}

impl Site {
    pub(super) fn new(https: bool, port: u16) -> Self {
        Self { https, port }
    }

    pub(super) fn https(&self) -> bool {
        self.https
    }

    /// Whether nothing says that a page of another site sent this request.
    pub(super) fn may_send<B>(&self, request: &Request<B>, entry: &Entry, table: &Table) -> bool {
        self.own_origin(request.headers(), entry, table) && !is_of_another_site(request)
    }

    /// Whether `Origin`, if it is there, is one of the instance's own. `null`, a second `Origin` and
    /// anything unreadable are foreign.
    fn own_origin(&self, headers: &HeaderMap, entry: &Entry, table: &Table) -> bool {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let Some(origin) = origins.next() else {
            return true;
        };
        let own = origin
            .to_str()
            .ok()
            .and_then(|origin| self.host_of_origin(origin))
            .and_then(|host| table.find(&host))
            .is_some_and(|from| from.route.instance == entry.route.instance);
        own && origins.next().is_none()
    }

    /// The host of an origin of this edge's scheme and port.
    fn host_of_origin(&self, origin: &str) -> Option<String> {
        let (scheme, usual_port) = if self.https {
            ("https", 443)
        } else {
            ("http", 80)
        };
        let uri: Uri = origin.parse().ok()?;
        let authority = uri.authority()?;
        let same_place = uri.scheme_str() == Some(scheme)
            && authority.port_u16().unwrap_or(usual_port) == self.port
            && !authority.as_str().contains('@');
        same_place.then(|| canonical(authority.host())).flatten()
    }
}

/// Whether the browser says that another site's page is behind this, and it is more than a person who
/// follows a link. A sibling host name is another customer's, so it counts as another site, though the
/// session cookie comes along from there.
fn is_of_another_site<B>(request: &Request<B>) -> bool {
    let is = |name: &str, word: &str| {
        let said = request.headers().get(name);
        said.is_some_and(|said| said.as_bytes().eq_ignore_ascii_case(word.as_bytes()))
    };
    let foreign = is("sec-fetch-site", "cross-site") || is("sec-fetch-site", "same-site");
    let follows_a_link = matches!(*request.method(), Method::GET | Method::HEAD)
        && is("sec-fetch-mode", "navigate")
        && is("sec-fetch-dest", "document");
    foreign && !follows_a_link
}

/// The canonical host name that a request names; `None` when it names none or contradicts itself.
/// An absolute URI wins over `Host`, as HTTP wants it.
pub(super) fn of<B>(request: &Request<B>) -> Option<String> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return None;
    }
    match request.uri().authority() {
        Some(authority) => canonical(authority.as_str()),
        None => canonical(host?.to_str().ok()?),
    }
}

/// Lower case, without port and trailing dot.
pub(super) fn canonical(authority: &str) -> Option<String> {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    (!host.is_empty() && !host.contains('@')).then(|| host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_port_and_trailing_dot_do_not_matter() {
        for spelling in [
            "a.localhost",
            "A.LocalHost:8080",
            "a.localhost.",
            "a.localhost.:80",
        ] {
            assert_eq!(canonical(spelling).as_deref(), Some("a.localhost"));
        }
        assert_eq!(canonical(":80"), None);
        assert_eq!(canonical("x@a.localhost"), None);
    }

    #[test]
    fn an_absolute_uri_wins_over_host_and_two_hosts_are_refused() {
        let request = Request::builder()
            .uri("http://b.localhost:81/x")
            .header("host", "a.localhost");
        assert_eq!(
            of(&request.body(()).unwrap()).as_deref(),
            Some("b.localhost")
        );
        let twice = Request::builder().header("host", "a").header("host", "a");
        assert_eq!(of(&twice.body(()).unwrap()), None);
    }

    #[test]
    fn of_another_site_only_a_followed_link_is_taken() {
        let foreign = |method: &str, site: &str, mode: &str, dest: &str| {
            let request = Request::builder()
                .method(method)
                .header("sec-fetch-site", site)
                .header("sec-fetch-mode", mode)
                .header("sec-fetch-dest", dest);
            is_of_another_site(&request.body(()).unwrap())
        };
        for site in ["cross-site", "same-site"] {
            assert!(!foreign("GET", site, "navigate", "document"));
            assert!(foreign("POST", site, "navigate", "document"));
            assert!(foreign("GET", site, "navigate", "iframe"));
            assert!(foreign("GET", site, "no-cors", "image"));
            assert!(foreign("GET", site, "cors", "empty"));
        }
        for site in ["same-origin", "none"] {
            assert!(!foreign("POST", site, "cors", "empty"));
        }
        assert!(!is_of_another_site(&Request::new(())));
    }

    #[test]
    fn an_origin_of_another_scheme_or_port_is_foreign() {
        let site = Site::new(false, 8080);
        assert_eq!(
            site.host_of_origin("http://A.localhost:8080").as_deref(),
            Some("a.localhost")
        );
        for foreign in [
            "https://a.localhost:8080",
            "http://a.localhost",
            "null",
            "",
            "http://u@a.localhost:8080",
        ] {
            assert_eq!(site.host_of_origin(foreign), None, "{foreign}");
        }
        assert!(
            Site::new(true, 443)
                .host_of_origin("https://a.example")
                .is_some()
        );
    }
}
