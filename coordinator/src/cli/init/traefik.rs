//! Traefik's files.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use tidepool_certs::door::SERVERS_NAME;
use url::Url;

use super::{
    Traefik, edge, quoted,
    redis::{self, Access},
};
use crate::{
    edge::{AUTHORIZE, CHECK, HOP, claims_pattern},
    routes::{EDGES, ROOT, SIGN_IN, TRANSPORT},
};

/// The file that says where routes lead.
pub(super) const DYNAMIC: &str = "dynamic.yml";

/// Traefik, as it is to be.
pub(super) struct Front<'o> {
    pub(super) options: &'o Traefik,
    pub(super) domain: &'o str,
    pub(super) edges: &'o [String],
    /// To Redis, if routes are there.
    pub(super) access: Option<&'o Access>,
    /// By what the edge knows Traefik's questions.
    pub(super) hop: String,
    /// Of every edge, where TLS of customers' own names ends; none if there are none.
    pub(super) tls_port: Option<u16>,
    /// Where the files go.
    pub(super) out: &'o Path,
}

impl Front<'_> {
    pub(super) fn dynamic_path(&self) -> PathBuf {
        self.out.join(DYNAMIC)
    }

    /// `traefik.yml`.
    pub(super) fn statics(&self) -> String {
        let Traefik {
            http_port,
            https_port,
            ..
        } = self.options;
        let (tls, resolver) = self.certificates();
        let status = SocketAddr::new(self.options.status_address, self.options.status_port);
        let (api, entry, provider) = self.access.map_or_else(Default::default, |access| {
            let api = "# Of it, only what `dynamic.yml` lets out.
api: { dashboard: false }
";
            (api, self.sign_in_entry(), provider(access))
        });
        format!(
            "# Made by `tidepool init traefik`. Nothing in it changes when instances come and go.
global: {{ checkNewVersion: false, sendAnonymousUsage: false }}
log: {{ level: INFO, format: json }}
entryPoints:
  web:
    address: \":{http_port}\"
    http: {{ redirections: {{ entryPoint: {{ to: websecure, scheme: https{priority} }} }} }}
  websecure:
    address: \":{https_port}\"
    asDefault: true
    http:
      {tls}
    # An upload may take long; 60 s is the default.
    transport: {{ respondingTimeouts: {{ readTimeout: 10m }} }}
  # For the operator only. There is no dashboard.
  traefik: {{ address: \"{status}\" }}
{entry}{api}ping: {{}}
metrics: {{ prometheus: {{}} }}
providers:
  file: {{ filename: {dynamic} }}
{provider}{resolver}",
            // Below the authority's way to its challenges.
            priority = self.tls_port.map_or("", |_| ", priority: 10"),
            dynamic = quoted(&self.dynamic_path().to_string_lossy()),
        )
    }

    fn certificates(&self) -> (String, String) {
        let source = &self.options.source;
        let (Some(email), Some(dns)) = (&source.email, &source.dns) else {
            return ("tls: {}".to_owned(), String::new());
        };
        let wildcard = quoted(&format!("*.{}", self.domain));
        let resolver = format!(
            "certificatesResolvers:
  wildcard:
    acme:
      email: {}
      storage: {}
      keyType: EC256
      dnsChallenge: {{ provider: {} }}
",
            quoted(email),
            quoted(&self.out.join("acme.json").to_string_lossy()),
            quoted(dns)
        );
        let tls = "tls: { certResolver: wildcard, domains: [ { main: ";
        (format!("{tls}{wildcard} }} ] }}"), resolver)
    }

    fn has_several_edges(&self) -> bool {
        self.edges.len() > 1
    }

    /// `forwardAuth` knows one address; several edges are reached by way of Traefik itself.
    fn asks_itself(&self) -> bool {
        self.access.is_some() && self.has_several_edges()
    }

    /// What a request to the edges goes through.
    fn before_edges(&self) -> &'static str {
        if self.has_several_edges() {
            "crowd, another-edge"
        } else {
            "crowd"
        }
    }

    fn sign_in_entry(&self) -> String {
        if !self.asks_itself() {
            return String::new();
        }
        format!(
            "  # Here Traefik asks an edge that is there; what it says of visitors stays.
  sign-in:
    address: \"127.0.0.1:{}\"
    forwardedHeaders: {{ trustedIPs: [ \"127.0.0.1/32\" ] }}
",
            self.options.sign_in_port
        )
    }

    /// `dynamic.yml`.
    pub(super) fn dynamic(&self) -> anyhow::Result<String> {
        let rule = format!("HostRegexp(`{}`)", self.names());
        let servers: Vec<_> = self
            .edges
            .iter()
            .map(|url| format!("          - {{ url: {} }}\n", quoted(url)))
            .collect();
        let (routers, middlewares, transports) = match self.access {
            Some(_) => (self.own_routers(&rule), self.sign_in(), self.servers()),
            None => Default::default(),
        };
        Ok(format!(
            "# Made by `tidepool init traefik`.
http:
  routers:
    instances:
      rule: {rule}
      # Whatever else matches is more precise.
      priority: 1
      service: edges
      middlewares: [ {before} ]
{routers}{challenges}  middlewares:
    # Of one visitor at the same time: the edge sees one address, Traefik's. A host has a whole /64 of IPv6.
    crowd: {{ inFlightReq: {{ amount: 512, sourceCriterion: {{ ipStrategy: {{ depth: 0, ipv6Subnet: 64 }} }} }} }}
{another}{middlewares}  services:
    {edges}:
      loadBalancer:
        serversTransport: edges
{health}        servers:
{servers}  serversTransports:
    # Go's default of two kept connections would open one for nearly every request. An edge is near: one that
    # takes longer to be connected to is away.
    edges: {{ maxIdleConnsPerHost: 64, forwardingTimeouts: {{ dialTimeout: 1s }} }}
{transports}{domains}{certificate}",
            before = self.before_edges(),
            challenges = self.challenges(),
            another = self.another_edge(),
            health = self.health(),
            domains = self.domains()?,
            rule = quoted(&rule),
            edges = local(EDGES),
            servers = servers.concat(),
            certificate = self.certificate()?,
        ))
    }

    /// What goes to the edge, of instances with routes of their own too: its own pages, and whatever outlives
    /// its request, for Traefik and nginx would keep a WebSocket or a stream alive whose access has ended.
    fn own_routers(&self, rule: &str) -> String {
        let own = format!("{rule} && PathPrefix(`/.tidepool/`)");
        let lasting =
            "HeaderRegexp(`Upgrade`, `.`) || HeaderRegexp(`Accept`, `(?i)text/event-stream`)";
        let lasting = format!("{rule} && ({lasting})");
        let sign_in = if self.asks_itself() {
            format!(
                "    sign-in:
      entryPoints: [ sign-in ]
      rule: \"Path(`{AUTHORIZE}`)\"
      service: edges
      middlewares: [ another-edge ]
"
            )
        } else {
            String::new()
        };
        let check = format!("{rule} && Path(`{CHECK}`)");
        let shown = "Method(`GET`) && PathRegexp(`^/api/http/(routers|(routers|services)/[a-z0-9]+@redis)$`)";
        format!(
            "    # For coordinators: which routes this Traefik knows. The rest of its API would show what is secret.
    shown:
      entryPoints: [ traefik ]
      rule: {}
      service: api@internal
    # `tidepool doctor` comes here.
    sign-in-check:
      rule: {}
      priority: 100001
      service: edges
      middlewares: [ {} ]
    own-pages:
      rule: {}
      priority: 100000
      service: edges
      middlewares: [ {before} ]
    # The edge cuts them when their access ends; Traefik and nginx would not.
    lasting:
      rule: {}
      priority: 99999
      service: edges
      middlewares: [ {before} ]
{sign_in}",
            quoted(shown),
            quoted(&check),
            local(SIGN_IN),
            quoted(&own),
            quoted(&lasting),
            before = self.before_edges(),
        )
    }

    /// The certificate authority asks customers' own names by plain http.
    fn challenges(&self) -> String {
        if self.tls_port.is_none() {
            return String::new();
        }
        format!(
            "    challenges:
      entryPoints: [ web ]
      rule: \"PathPrefix(`/.well-known/acme-challenge/`)\"
      priority: 100000
      service: edges
      middlewares: [ {} ]
",
            self.before_edges()
        )
    }

    /// An edge that cannot be connected to is passed by: nothing of the request was sent then, a WebSocket's neither.
    fn another_edge(&self) -> String {
        if !self.has_several_edges() {
            return String::new();
        }
        format!(
            "    # When an edge is away: nothing was sent to it yet.
    another-edge: {{ retry: {{ attempts: {}, initialInterval: 20ms }} }}
",
            self.edges.len()
        )
    }

    /// Not with routes in Redis: each of their changes would start Traefik's checks anew, and an edge that is
    /// away would be back until the next one.
    fn health(&self) -> &'static str {
        if self.access.is_some() || !self.has_several_edges() {
            return "";
        }
        "        # An edge says 404 to its own address, which is no agent's name.
        healthCheck: { path: /, status: 404, interval: 2s, timeout: 1s }
"
    }

    /// Connections for any name but ours go to the edges unopened, with a word about who connects.
    fn domains(&self) -> anyhow::Result<String> {
        let Some(port) = self.tls_port else {
            return Ok(String::new());
        };
        let not_ours = format!("HostSNI(`*`) && !HostSNIRegexp(`{}`)", self.names());
        let mut servers = Vec::with_capacity(self.edges.len());
        for edge in self.edges {
            let url = Url::parse(edge).with_context(|| format!("read the edge's URL `{edge}`"))?;
            let host = url.host_str();
            let host = host.with_context(|| format!("the edge's URL `{edge}` has no host"))?;
            let server = quoted(&format!("{host}:{port}"));
            servers.push(format!("          - {{ address: {server} }}\n"));
        }
        Ok(format!(
            "tcp:
  routers:
    # Customers' own names. The edges have their certificates.
    domains:
      entryPoints: [ websecure ]
      rule: {}
      service: domains
      tls: {{ passthrough: true }}
  services:
    domains:
      loadBalancer:
        serversTransport: domains
        servers:
{servers}  serversTransports:
    # Who connects is told in a header of the PROXY protocol.
    domains: {{ proxyProtocol: {{ version: 2 }} }}
",
            quoted(&not_ours),
            servers = servers.concat(),
        ))
    }

    /// A regular expression for the names of all instances. A name may end with a dot: Traefik matches it in routes
    /// from Redis without, so these rules must know it, too.
    fn names(&self) -> String {
        let domain = self.domain.to_ascii_lowercase().replace('.', "\\.");
        format!("^[a-z0-9-]+\\.{domain}\\.?$")
    }

    fn sign_in(&self) -> String {
        let asked = match self.edges {
            [edge] => edge.clone(),
            _ => format!("http://127.0.0.1:{}", self.options.sign_in_port),
        };
        format!(
            "    # Every route from Redis has it. The edge says who may pass; what a visitor says of itself is
    # dropped, and so are the cookies and passwords that were for the edge. It knows Traefik by a secret, which
    # goes no further.
    {}: {{ chain: {{ middlewares: [ crowd, hop, ask-edge ] }} }}
    hop: {{ headers: {{ customRequestHeaders: {{ {HOP}: {} }} }} }}
    ask-edge:
      forwardAuth:
        address: {}
        trustForwardHeader: false
        authResponseHeaders: [ X-Tidepool-Proof, X-Tidepool-Visitor, X-Tidepool-Client, {HOP}, Cookie, Authorization ]
        authResponseHeadersRegex: {}
        maxResponseBodySize: 65536
",
            local(SIGN_IN),
            quoted(&self.hop),
            quoted(&format!("{}{AUTHORIZE}", asked.trim_end_matches('/'))),
            quoted(&claims_pattern()),
        )
    }

    /// The way to servers. A server of before is named by http in its route, and this says nothing to it.
    fn servers(&self) -> String {
        let [root, certificate, key] =
            edge::paths(self.out).map(|path| quoted(&path.to_string_lossy()));
        format!(
            "    {}:
      maxIdleConnsPerHost: 64
      # Servers and edges are of one authority. `tidepool init traefik-certificate` renews ours.
      serverName: {SERVERS_NAME}
      rootCAs: [ {root} ]
      certificates: [ {{ certFile: {certificate}, keyFile: {key} }} ]
",
            local(TRANSPORT)
        )
    }

    fn certificate(&self) -> anyhow::Result<String> {
        let source = &self.options.source;
        let (Some(certificate), Some(key)) = (&source.certificate, &source.key) else {
            return Ok(String::new());
        };
        Ok(format!(
            "tls:
  stores:
    default:
      defaultCertificate: {{ certFile: {}, keyFile: {} }}
",
            absolute(certificate)?,
            absolute(key)?
        ))
    }
}

fn provider(access: &Access) -> String {
    format!(
        "  # The first change at once, then at most two a second.
  providersThrottleDuration: 500ms
  redis:
    endpoints: [ {} ]
    rootKey: {ROOT}
    db: {}
    username: {}
    password: {}
",
        quoted(&access.endpoint),
        access.database,
        redis::USER,
        quoted(access.passwords.first().map_or("", String::as_str)),
    )
}

/// A name of the file provider, in its own file.
fn local(name: &str) -> &str {
    name.strip_suffix("@file").unwrap_or(name)
}

fn absolute(path: &Path) -> anyhow::Result<String> {
    let path = path
        .canonicalize()
        .with_context(|| format!("find `{}`", path.display()))?;
    Ok(quoted(&path.to_string_lossy()))
}
