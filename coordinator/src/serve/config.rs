//! The configuration of `tidepool serve`: one TOML file, refused as a whole if anything in it is wrong.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use tidepool_shared::{
    database_url::{self, DatabaseUrl, GivenUrl},
    document::GatewayLimits,
};

use crate::{
    cloud::{Placement, hetzner::HetznerSettings, nspawn::NspawnSettings},
    domains::{DomainName, DomainsSettings},
    edge::{DomainDoor, EdgeSettings},
    instance::PublicNames,
    model::PoolKey,
    pool::{Policy, trial},
    routes::{RedisUrl, RoutesSettings},
    sweep,
};

/// What a coordinator needs to know.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Certificates, the link's keys, the master keys (which open providers' keys in the store), the secrets by
    /// which Traefik is known and this coordinator's id. All but the id are the same on every coordinator of a
    /// store: copy them.
    pub state_dir: PathBuf,
    /// `sqlite:PATH` or `postgres://...`; the environment's TIDEPOOL_DATABASE_URL wins.
    pub database_url: Option<String>,
    /// The manifest of the image that servers are made from: the API checks configurations by its schema.
    pub manifest: PathBuf,
    pub api: Api,
    pub link: Link,
    pub edge: Edge,
    /// Base URL of the LLM proxy as servers reach it.
    pub proxy_url: String,
    /// Where metrics are shown; nowhere if absent. Nothing secret is in them.
    pub metrics: Option<SocketAddr>,
    /// How long a deleted instance may be asked back.
    #[serde(default = "week_s")]
    pub deletion_grace_s: u64,
    pub cloud: Cloud,
    #[serde(rename = "pool")]
    pub pools: Vec<Pool>,
    #[serde(default)]
    pub sweep: Sweep,
}

/// The HTTP API.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Api {
    pub listen: SocketAddr,
    /// Its base URL as other coordinators of this store reach it.
    pub advertise: Option<String>,
}

/// The link to agents.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    pub listen: SocketAddr,
    /// Every coordinator of this store, as servers reach it; agents dial them in turn.
    pub coordinators: Vec<SocketAddr>,
    /// Over how long agents spread their reconnects.
    #[serde(default = "spread_s")]
    pub reconnect_spread_s: u64,
}

/// The built-in edge.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edge {
    pub listen: SocketAddr,
    /// Instances are `<name>.<domain>`.
    pub domain: String,
    /// As browsers see it.
    #[serde(default = "https")]
    pub scheme: String,
    /// As browsers see it, if it is not the scheme's own.
    pub port: Option<u16>,
    /// Where nginx listens on servers.
    #[serde(default = "http_port")]
    pub server_port: u16,
    /// Connections of visitors at the same time; as many more for customers' own names, if there are any.
    #[serde(default = "max_connections")]
    pub max_connections: usize,
    /// Addresses of what ends TLS in front of the edge, such as Traefik: whom it names last in
    /// `X-Forwarded-For` is the visitor. From others that header means nothing.
    #[serde(default)]
    pub trusted_hops: Vec<IpAddr>,
    /// Traefik knows the instances itself, by this Redis; without it one wildcard route leads to the edges.
    pub redis: Option<Redis>,
    /// Customers' own names, if they may have any.
    pub domains: Option<Domains>,
}

/// Customers' own names.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Domains {
    /// The name that they must lead to; its addresses are those that visitors come to.
    pub target: String,
    /// Where this edge ends their TLS. What stands in front of it passes connections on unopened.
    pub listen: SocketAddr,
    /// Of the certificate authority (ACME).
    #[serde(default = "lets_encrypt")]
    pub directory: String,
    /// Whom it writes to.
    pub email: Option<String>,
    /// Who vouches for the directory itself, if this machine does not know; PEM.
    pub directory_ca: Option<PathBuf>,
    /// The recursive resolver to ask, if it is not the machine's own.
    pub resolver: Option<SocketAddr>,
}

/// Routes for Traefik.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// `redis://USER:PASSWORD@HOST:PORT/DATABASE`, a database of its own.
    url: String,
    /// Base URLs of every Traefik's API.
    traefik: Vec<String>,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis")
            .field("traefik", &self.traefik)
            .finish_non_exhaustive()
    }
}

impl Edge {
    /// Whether browsers come by https.
    pub fn is_https(&self) -> bool {
        self.scheme == "https"
    }

    /// The port that browsers see.
    pub fn public_port(&self) -> u16 {
        self.port.unwrap_or(if self.is_https() { 443 } else { 80 })
    }
}

/// Where servers come from.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Cloud {
    Hetzner(HetznerSettings),
    /// Machines of this one, for trying an image.
    Nspawn(NspawnSettings),
}

/// A pool: a tier in a region.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    pub tier: String,
    pub region: String,
    /// The preferred one first.
    pub placements: Vec<Placement>,
    /// Idle servers at the least and at the most.
    #[serde(default = "one")]
    pub floor: u32,
    pub most_idle: u32,
    /// All of the pool's servers, claimed ones included.
    pub max_servers: u32,
    /// Of 1,000 customers this many should find a warm server.
    #[serde(default = "hits_per_mille")]
    pub hits_per_mille: u32,
    /// What idle servers may cost in a month, in the cloud's currency, in hundredths.
    pub idle_budget_cents: Option<u64>,
    #[serde(default = "five")]
    pub creating_at_once: u32,
    #[serde(default = "boot_deadline_s")]
    pub boot_deadline_s: u64,
    /// How long a used server's address rests before the server is deleted.
    #[serde(default = "address_rest_s")]
    pub address_rest_s: u64,
    /// Clouds bill started hours: a server that is removed sooner costs the same.
    #[serde(default = "hour_s")]
    pub minimum_idle_s: u64,
    #[serde(default = "week_s")]
    pub max_age_s: u64,
    #[serde(default = "five")]
    pub halt_after: u32,
    #[serde(default = "failure_pause_s")]
    pub failure_pause_s: u64,
    /// The most that a gateway may take; what is absent is as the server allows.
    #[serde(default)]
    pub limits: Limits,
}

/// As [`GatewayLimits`], where a word that is not known is a mistake.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    memory_mib: Option<u32>,
    cpu_millicores: Option<u32>,
    pids: Option<u32>,
}

impl From<Limits> for GatewayLimits {
    fn from(limits: Limits) -> Self {
        Self {
            memory_mib: limits.memory_mib,
            cpu_millicores: limits.cpu_millicores,
            pids: limits.pids,
        }
    }
}

/// How careful the sweep is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sweep {
    pub interval_s: u64,
    pub minimum_age_s: u64,
    pub most_removals: usize,
}

impl Default for Sweep {
    fn default() -> Self {
        let policy = sweep::Policy::default();
        Self {
            interval_s: 60,
            minimum_age_s: policy.minimum_age.as_secs(),
            most_removals: policy.most_removals,
        }
    }
}

fn week_s() -> u64 {
    7 * 24 * 3600
}

fn hour_s() -> u64 {
    3600
}

fn spread_s() -> u64 {
    20
}

fn address_rest_s() -> u64 {
    65
}

fn boot_deadline_s() -> u64 {
    20 * 60
}

fn failure_pause_s() -> u64 {
    10
}

fn lets_encrypt() -> String {
    "https://acme-v02.api.letsencrypt.org/directory".to_owned()
}

fn https() -> String {
    "https".to_owned()
}

fn max_connections() -> usize {
    EdgeSettings::default().max_connections
}

fn http_port() -> u16 {
    80
}

fn one() -> u32 {
    1
}

fn five() -> u32 {
    5
}

/// Cautious enough for more than 995 on a quiet day: see `./tidepool bench pool`.
fn hits_per_mille() -> u32 {
    990
}

impl Config {
    /// Reads and checks the file.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("read configuration `{}`", path.display()))?;
        Self::parse(&text).with_context(|| format!("configuration `{}`", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let config: Self = toml::from_str(text)?;
        ensure!(!config.pools.is_empty(), "no [[pool]] is given");
        for (index, pool) in config.pools.iter().enumerate() {
            let name = pool.key();
            ensure!(
                pool.tier != trial::TIER,
                "pool {name}: the tier is that of servers on which images are tried"
            );
            ensure!(!pool.placements.is_empty(), "pool {name} has no placements");
            ensure!(
                pool.floor <= pool.most_idle && pool.most_idle <= pool.max_servers,
                "pool {name}: floor <= most_idle <= max_servers does not hold"
            );
            ensure!(
                pool.hits_per_mille <= 999,
                "pool {name}: `hits_per_mille` is 0 to 999"
            );
            ensure!(
                (1..=5).contains(&pool.creating_at_once),
                "pool {name}: `creating_at_once` is 1 to 5"
            );
            let limits = GatewayLimits::from(pool.limits).check();
            limits.with_context(|| format!("pool {name}: limits"))?;
            let twice = config
                .pools
                .iter()
                .skip(index + 1)
                .any(|other| other.key() == name);
            ensure!(!twice, "pool {name} is given twice");
        }
        ensure!(
            matches!(config.edge.scheme.as_str(), "http" | "https"),
            "`edge.scheme` is http or https"
        );
        ensure!(
            !config.link.coordinators.is_empty(),
            "`link.coordinators` is empty"
        );
        if let Cloud::Nspawn(settings) = &config.cloud {
            let checked = settings.check().map_err(anyhow::Error::msg);
            checked.context("`cloud.nspawn`")?;
        }
        config.routes()?;
        config.check_domains()?;
        Ok(config)
    }

    fn check_domains(&self) -> anyhow::Result<()> {
        let Some(domains) = &self.edge.domains else {
            return Ok(());
        };
        ensure!(
            self.edge.is_https(),
            "`edge.domains` needs https: visitors of customers' names come by no other way"
        );
        let target = &domains.target;
        DomainName::read(target, &[])
            .with_context(|| format!("`edge.domains.target` is `{target}`"))?;
        let directory = url::Url::parse(&domains.directory);
        ensure!(
            directory.is_ok_and(|url| url.scheme() == "https"),
            "`edge.domains.directory` is no URL of https"
        );
        Ok(())
    }

    /// How customers' own names are proven and certified, if there may be any.
    pub fn domains(&self) -> anyhow::Result<Option<DomainsSettings>> {
        let Some(domains) = &self.edge.domains else {
            return Ok(None);
        };
        let authority = domains.directory_ca.as_ref().map(|path| {
            let text = std::fs::read(path).with_context(|| format!("read `{}`", path.display()))?;
            reqwest::Certificate::from_pem(&text)
                .with_context(|| format!("read a certificate from `{}`", path.display()))
        });
        Ok(Some(DomainsSettings {
            target: domains.target.clone(),
            resolver: domains.resolver,
            directory: domains.directory.clone(),
            email: domains.email.clone(),
            authority: authority.transpose()?,
            master_keys: self.master_keys(),
        }))
    }

    /// The edge's door for them.
    pub fn domain_door(&self) -> Option<DomainDoor> {
        let domains = self.edge.domains.as_ref()?;
        Some(DomainDoor {
            listen: domains.listen,
            master_keys: self.master_keys(),
        })
    }

    /// How many connections of visitors the edge takes by both its doors.
    pub fn edge_connections(&self) -> usize {
        let doors = if self.edge.domains.is_some() { 2 } else { 1 };
        self.edge.max_connections.saturating_mul(doors)
    }

    /// The database: the one that was given, that of the environment, or the file's.
    pub fn database(&self, given: Option<GivenUrl>) -> anyhow::Result<DatabaseUrl> {
        let environment = || {
            std::env::var(database_url::VARIABLE)
                .ok()
                .map(GivenUrl::from)
        };
        given
            .or_else(environment)
            .or_else(|| self.database_url.as_deref().map(GivenUrl::from))
            .context("no database is named: see --database-url")?
            .read()
            .context("read the database's URL")
    }

    /// The file with the keys that seal.
    pub fn master_keys(&self) -> PathBuf {
        self.state_dir.join("master.keys")
    }

    /// The directory of what servers fetch.
    pub fn artefacts(&self) -> PathBuf {
        self.state_dir.join("artefacts")
    }

    /// The file with the secrets by which edges know Traefik.
    pub fn traefik_secrets(&self) -> PathBuf {
        self.state_dir.join("traefik.secrets")
    }

    /// The file with Traefik's password for Redis.
    pub(crate) fn traefik_passwords(&self) -> PathBuf {
        self.state_dir.join("traefik.redis")
    }

    /// The certificate that `init traefik` made last, without its key.
    pub(crate) fn traefik_certificate(&self) -> PathBuf {
        self.state_dir.join("certs").join("traefik.pem")
    }

    /// The names under which browsers reach instances.
    pub fn names(&self) -> PublicNames {
        PublicNames {
            domain: self.edge.domain.clone(),
            scheme: self.edge.scheme.clone(),
            port: self.edge.port,
        }
    }

    /// Where routes for Traefik are written, if Traefik knows the instances itself.
    pub fn routes(&self) -> anyhow::Result<Option<RoutesSettings>> {
        let Some(redis) = &self.edge.redis else {
            return Ok(None);
        };
        ensure!(
            !redis.traefik.is_empty(),
            "`edge.redis.traefik` is empty: nobody could say whether routes are known"
        );
        ensure!(
            !self.edge.trusted_hops.is_empty(),
            "`edge.trusted_hops` is empty: Traefik could not ask the edge who may pass"
        );
        for url in &redis.traefik {
            let known = url::Url::parse(url).is_ok_and(|url| url.scheme() == "http");
            ensure!(known, "`edge.redis.traefik` has no URL of http: `{url}`");
        }
        Ok(Some(RoutesSettings {
            redis: RedisUrl::read(&redis.url).context("`edge.redis.url`")?,
            traefik: redis.traefik.clone(),
            server_port: self.edge.server_port,
        }))
    }

    /// How careful the sweep is.
    pub fn sweep(&self) -> (sweep::Policy, Duration) {
        let policy = sweep::Policy {
            minimum_age: Duration::from_secs(self.sweep.minimum_age_s),
            most_removals: self.sweep.most_removals,
            ..sweep::Policy::default()
        };
        (policy, Duration::from_secs(self.sweep.interval_s.max(1)))
    }
}

impl Pool {
    fn key(&self) -> PoolKey {
        PoolKey {
            tier: self.tier.clone(),
            region: self.region.clone(),
        }
    }

    /// The policy of the pool.
    pub fn policy(&self) -> Policy {
        Policy {
            pool: self.key(),
            placements: self.placements.clone(),
            floor: self.floor,
            most_idle: self.most_idle,
            hits_per_mille: self.hits_per_mille,
            idle_budget_cents: self.idle_budget_cents,
            ceiling: self.max_servers,
            creating_at_once: self.creating_at_once,
            boot_deadline: Duration::from_secs(self.boot_deadline_s),
            address_rest: Duration::from_secs(self.address_rest_s),
            minimum_idle: Duration::from_secs(self.minimum_idle_s),
            max_age: Duration::from_secs(self.max_age_s),
            failure_pause: Duration::from_secs(self.failure_pause_s),
            halt_after: self.halt_after,
            below_target_for: Duration::from_mins(10),
            limits: self.limits.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../tidepool.example.toml");

    /// The example, with the part that is not everybody's.
    fn with_redis() -> String {
        let text = EXAMPLE.replace("# [edge.redis]", "[edge.redis]");
        let text = text.replace("# url =", "url =");
        text.replace("# traefik =", "traefik =")
    }

    fn with_domains() -> String {
        let text = EXAMPLE.replace("# [edge.domains]", "[edge.domains]");
        let text = text.replace("# target =", "target =");
        let text = text.replace("# listen =", "listen =");
        text.replace("# email =", "email =")
    }

    #[test]
    fn customers_names_are_a_choice_that_needs_https() {
        assert!(Config::parse(EXAMPLE).unwrap().domains().unwrap().is_none());
        let config = Config::parse(&with_domains()).unwrap();
        let domains = config.domains().unwrap().unwrap();
        assert_eq!(domains.target, "edge.example.com");
        assert!(domains.directory.contains("letsencrypt.org"));
        assert_eq!(config.domain_door().unwrap().listen.port(), 8443);
        for (right, wrong, said) in [
            ("scheme = \"https\"", "scheme = \"http\"", "needs https"),
            ("edge.example.com", "localhost", "`edge.domains.target`"),
            (
                "email =",
                "directory = \"http://ca.example\"\nemail =",
                "no URL of https",
            ),
        ] {
            let text = with_domains().replacen(right, wrong, 1);
            let error = format!("{:#}", Config::parse(&text).unwrap_err());
            assert!(error.contains(said), "{wrong}: {error}");
        }
    }

    #[test]
    fn routes_in_redis_are_a_choice_and_their_password_is_not_shown() {
        assert!(Config::parse(EXAMPLE).unwrap().routes().unwrap().is_none());
        let config = Config::parse(&with_redis()).unwrap();
        let routes = config.routes().unwrap().unwrap();
        assert_eq!(routes.traefik, ["http://127.0.0.1:8082"]);
        assert!(!format!("{config:?}{routes:?}").contains("PASSWORD"));
    }

    #[test]
    fn the_example_is_a_whole_configuration() {
        let config = Config::parse(EXAMPLE).unwrap();
        let policy = config.pools[0].policy();
        assert_eq!(policy.placements.len(), 3);
        assert_eq!(config.sweep().0.minimum_age, Duration::from_mins(30));
        assert!(config.database(None).is_ok());
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (right, wrong, said) in [
            (
                "floor = 1",
                "floor = 9",
                "floor <= most_idle <= max_servers",
            ),
            (
                "tier = \"basic\"",
                "tier = \"image-trial\"",
                "images are tried",
            ),
            ("creating_at_once = 5", "creating_at_once = 6", "1 to 5"),
            ("hits_per_mille = 990", "hits_per_mille = 1000", "0 to 999"),
            ("scheme = \"https\"", "scheme = \"gopher\"", "http or https"),
            ("[edge]", "[edge]\ncolour = 1", "unknown field"),
            ("[[pool]]", "[[pools]]", "unknown field"),
            ("pids = 512", "pids = 12", "`pids` is 128 to"),
            ("pids = 512", "pids_ = 512", "unknown field"),
            ("6379/1", "6379/0", "names no database"),
            ("\"http://127.0.0.1:8082\"", "", "traefik` is empty"),
            ("http://127.0.0.1:8082", "127.0.0.1:8082", "no URL of http"),
            (
                "hops = [\"127.0.0.1\"]",
                "hops = []",
                "trusted_hops` is empty",
            ),
        ] {
            let text = with_redis().replacen(right, wrong, 1);
            let error = format!("{:#}", Config::parse(&text).unwrap_err());
            assert!(error.contains(said), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_network_of_machines_here_is_three_numbers() {
        let hetzner = &EXAMPLE[EXAMPLE.find("[cloud.hetzner]").unwrap()..];
        let hetzner = &hetzner[..hetzner.find("[[pool]]").unwrap()];
        let nspawn =
            "[cloud.nspawn]\ndirectory = \"/d\"\nimage = \"/i\"\nedge_port = 8080\nnetwork = ";
        let with =
            |network| Config::parse(&EXAMPLE.replace(hetzner, &format!("{nspawn}{network:?}\n")));
        assert!(with("10.78.0").is_ok());
        let error = format!("{:#}", with("10.78").unwrap_err());
        assert!(
            error.contains("`cloud.nspawn`: `10.78` is not a network"),
            "{error}"
        );
    }

    #[test]
    fn a_pool_is_given_once() {
        let pool = &EXAMPLE[EXAMPLE.find("[[pool]]").unwrap()..];
        let error = Config::parse(&format!("{EXAMPLE}\n{pool}")).unwrap_err();
        assert!(error.to_string().contains("given twice"), "{error}");
    }
}
