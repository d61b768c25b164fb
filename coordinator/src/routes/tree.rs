//! What of Traefik's configuration we keep in Redis: its keys and their only possible values.
//!
//! One unknown field or unreadable number under the root key freezes Traefik's provider for everybody, so
//! keys are made here and nowhere else, from types that hold nothing else. Nothing is indexed but what
//! must be: a list key that `SCAN` returns twice is a list twice as long. Nothing secret is in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
};

use tidepool_shared::id::ServerId;

use crate::model::{Destination, Door};

/// Traefik's `rootKey`. Its match has no slash behind it.
pub const ROOT: &str = "traefik";

/// The middleware of Traefik's file provider that asks the edge about every request.
pub const SIGN_IN: &str = "tidepool-sign-in@file";
/// The header in which a route tells the edge the address of its server.
pub const SERVER: &str = "X-Tidepool-Server";
/// How Traefik comes to servers, and keeps connections to them; of its file provider, too.
pub const TRANSPORT: &str = "tidepool-servers@file";
/// The edges, as a service of Traefik's file provider.
pub const EDGES: &str = "edges@file";

/// Keys and values.
pub(super) type Tree = BTreeMap<String, String>;

/// The name of a server's router and service: a letter and the server's id, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Name(String);

/// A host name in lower case that cannot end a rule's quotes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Host(String);

/// Where a router leads, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) upstream: SocketAddr,
    pub(super) door: Door,
    /// None: it is only staged.
    pub(super) hosts: BTreeSet<Host>,
}

/// What the store wants to be there.
pub(super) type Wanted = BTreeMap<Name, Target>;

/// Which version of the tree this is. Whoever writes makes a new one, so that a tree that somebody else
/// wrote, and one that was lost, are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Revision(pub(super) u64);

const HOST_MAX_BYTES: usize = 253;

impl Name {
    pub(super) fn of(server: ServerId) -> Self {
        let id = server.to_string();
        let id = id.rsplit('_').next().unwrap_or_default();
        Self(format!("s{id}"))
    }

    pub(super) fn rule_key(&self) -> String {
        format!("{ROOT}/http/routers/{self}/rule")
    }

    /// Matches nothing that anybody can reach.
    pub(super) fn staged_rule(&self) -> String {
        format!("Host(`{self}.staged.invalid`)")
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Host {
    pub(super) fn of(text: &str) -> Option<Self> {
        let is_plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
        let fits = !text.is_empty() && text.len() <= HOST_MAX_BYTES && text.bytes().all(is_plain);
        fits.then(|| Self(text.to_owned()))
    }
}

impl Target {
    /// The rule that makes it live; `None` while nobody's names lead to it.
    pub(super) fn live_rule(&self) -> Option<String> {
        let matchers: Vec<_> = self
            .hosts
            .iter()
            .map(|host| format!("Host(`{}`)", host.0))
            .collect();
        (!matchers.is_empty()).then(|| matchers.join(" || "))
    }

    /// All its keys but the rule. Its middleware says, before the edge is asked, to which server the request
    /// would go: Traefik may have been told of another one and not have heard.
    pub(super) fn frame(&self, name: &Name) -> [(String, String); 5] {
        let router = |field: &str| format!("{ROOT}/http/routers/{name}/{field}");
        let balancer = |field: &str| format!("{ROOT}/http/services/{name}/loadBalancer/{field}");
        let header =
            format!("{ROOT}/http/middlewares/{name}/headers/customRequestHeaders/{SERVER}");
        [
            (router("service"), name.to_string()),
            (router("middlewares"), format!("{name},{SIGN_IN}")),
            (header, self.upstream.ip().to_string()),
            (balancer("servers/0/url"), self.url()),
            (balancer("serversTransport"), TRANSPORT.to_owned()),
        ]
    }

    pub(super) fn url(&self) -> String {
        let scheme = match self.door {
            Door::Mutual => "https",
            Door::Open => "http",
        };
        format!("{scheme}://{}", self.upstream)
    }
}

impl Revision {
    /// The router that is always there. Its rule says which revision the tree is.
    pub(super) const ROUTER: &str = "tidepool";

    pub(super) fn key() -> String {
        format!("{ROOT}/http/routers/{}/rule", Self::ROUTER)
    }

    pub(super) fn rule(self) -> String {
        format!("Host(`r{}.staged.invalid`)", self.0)
    }

    pub(super) fn of_rule(rule: &str) -> Option<Self> {
        let number = rule
            .strip_prefix("Host(`r")?
            .strip_suffix(".staged.invalid`)")?;
        number.parse().ok().map(Self)
    }

    pub(super) fn of_tree(tree: &Tree) -> Option<Self> {
        Self::of_rule(tree.get(&Self::key())?)
    }

    /// What else makes it a router.
    pub(super) fn frame() -> (String, String) {
        let key = format!("{ROOT}/http/routers/{}/service", Self::ROUTER);
        (key, EDGES.to_owned())
    }
}

/// What the store says, as routers. A host name that cannot be in a rule is left out: the built-in edge
/// serves it all the same.
pub(super) fn wanted(destinations: Vec<Destination>, port: u16) -> Wanted {
    let target = |to: Destination| {
        let target = Target {
            upstream: SocketAddr::new(to.upstream.address, port),
            door: to.upstream.door,
            hosts: to.hosts.iter().filter_map(|host| Host::of(host)).collect(),
        };
        (Name::of(to.upstream.server), target)
    };
    destinations.into_iter().map(target).collect()
}

/// The routers that are whole and staged.
pub(super) fn staged<'t>(wanted: &'t Wanted, found: &Tree) -> impl Iterator<Item = &'t Name> {
    wanted.keys().filter(|name| {
        let rule = found.get(&name.rule_key());
        rule.is_some_and(|rule| *rule == name.staged_rule())
    })
}

/// The name of the router or service that a key is of.
pub(super) fn router_of(key: &str) -> Option<Name> {
    let mut parts = key.split('/').skip(3);
    parts.next().map(|name| Name(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use tidepool_shared::id::ServerId;
    use uuid::Uuid;

    use super::*;
    use crate::model::Upstream;

    #[test]
    fn a_server_is_six_keys_and_its_name_begins_with_a_letter() {
        let server = ServerId::new(Uuid::from_u128(7));
        let destination = Destination {
            upstream: Upstream {
                server,
                address: [10, 0, 0, 7].into(),
                door: Door::Mutual,
            },
            hosts: vec!["b.example".into(), "a.example".into()],
        };
        let wanted = wanted(vec![destination], 80);
        let (name, target) = wanted.first_key_value().unwrap();
        let mut tree: Tree = target.frame(name).into();
        tree.insert(name.rule_key(), target.live_rule().unwrap());
        insta::assert_debug_snapshot!("tree", tree);
    }

    #[test]
    fn a_host_that_could_end_the_rule_is_none() {
        for text in ["", "a`) || Host(`b", "A.example", "a b", "a/", "ä.example"] {
            assert_eq!(Host::of(text), None, "{text}");
        }
    }

    #[test]
    fn a_revision_reads_back() {
        let revision = Revision(17);
        assert_eq!(Revision::of_rule(&revision.rule()), Some(revision));
        assert_eq!(Revision::of_rule("Host(`rx.staged.invalid`)"), None);
    }
}
