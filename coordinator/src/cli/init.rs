//! `tidepool init`: configuration of what stands beside a coordinator.
//!
//! Traefik ends TLS for one wildcard name and hands every request to the built-in edge, which knows the
//! instances: nothing of Traefik's changes when one comes or goes, and any number of them fit. With
//! `[edge.redis]` it also reads routes from Redis; then the edge is asked about each request, and gets those
//! that no route is for; and Traefik comes to servers itself, with a certificate of an edge's that is made here.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

mod edge;
mod redis;
mod traefik;

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};
use serde_json::json;
use tidepool_certs::secret_file;

use self::{redis::Access, traefik::Front};
use super::{CommandFailed, output::Output};
use crate::{
    ambient::Chance,
    edge::hop_secret,
    serve::config::Config,
    two_secrets::{self, Rotation},
};

/// What to write.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Traefik in front of the edge: TLS for all instances' names, and routes in Redis if they are configured
    Traefik(Traefik),
    /// A new certificate for Traefik's way to servers, which it reads at once; for a timer
    TraefikCertificate(TraefikCertificate),
}

/// Where to put it.
#[derive(Debug, Args)]
pub struct TraefikCertificate {
    /// The configuration of `serve`
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where `init traefik` has written
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Traefik's side of a configuration of `serve`.
#[derive(Debug, Args)]
pub struct Traefik {
    /// The configuration of `serve`
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where to write `traefik.yml` and `dynamic.yml`
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// An edge as Traefik reaches it; several times if there are several coordinators [default: the
    /// configuration's own]
    #[arg(long = "edge", value_name = "URL")]
    edges: Vec<String>,
    #[command(flatten)]
    source: Source,
    #[arg(long, default_value_t = 80)]
    http_port: u16,
    #[arg(long, default_value_t = 443)]
    https_port: u16,
    /// Where `GET /ping` and `GET /metrics` are answered, and with routes in Redis Traefik's API, which
    /// shows them to everybody
    #[arg(long, default_value_t = 8082)]
    status_port: u16,
    /// The address for that: this machine's own, or one of a private network that coordinators are in
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    status_address: IpAddr,
    /// Where Traefik asks itself which edge is there, on this machine only; with routes in Redis and
    /// several edges
    #[arg(long, default_value_t = 8083)]
    sign_in_port: u16,
    /// With routes in Redis, make a new password for Redis and a new secret for the edge; those of before stay good
    /// until the next time. Without it every Traefik is told the same
    #[arg(long)]
    rotate: bool,
}

/// Where the wildcard's certificate comes from: Let's Encrypt by DNS, or files.
#[derive(Debug, Args)]
struct Source {
    /// For Let's Encrypt
    #[arg(long, requires = "dns", required_unless_present = "certificate")]
    email: Option<String>,
    /// Traefik's name of the DNS provider, such as `hetzner`; Traefik reads its credentials from the
    /// environment
    #[arg(long, requires = "email", conflicts_with = "certificate")]
    dns: Option<String>,
    /// A certificate of your own, PEM
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
}

pub(super) fn run(command: &Command, output: &mut Output) -> Result<(), CommandFailed> {
    let failed = |error: anyhow::Error| CommandFailed::Init(error.into());
    let (written, next) = match command {
        Command::Traefik(options) => {
            let file = options.out.join("traefik.yml");
            let next = format!("start it: traefik --configFile={}", file.display());
            (traefik(options).map_err(failed)?, Some(next))
        }
        Command::TraefikCertificate(options) => (certificate(options).map_err(failed)?, None),
    };
    output.show(&json!({ "written": written }), |_| {
        let lines = written
            .iter()
            .map(|path| format!("wrote {}", path.display()));
        lines.chain(next).collect()
    })
}

fn certificate(options: &TraefikCertificate) -> anyhow::Result<Vec<PathBuf>> {
    let config = Config::read(&options.config)?;
    let out = options.out.canonicalize()?;
    // Traefik reads the certificate again when this file changes, and not before.
    let dynamic = out.join(traefik::DYNAMIC);
    let text = fs::read_to_string(&dynamic)
        .with_context(|| format!("read `{}`: `init traefik` comes first", dynamic.display()))?;
    let mut written = edge::write(&config, &out)?;
    write(&dynamic, &text)?;
    written.push(dynamic);
    Ok(written)
}

fn traefik(options: &Traefik) -> anyhow::Result<Vec<PathBuf>> {
    let config = Config::read(&options.config)?;
    let (edge, domain) = (&config.edge, config.edge.domain.as_str());
    ensure!(
        edge.is_https(),
        "`edge.scheme` is `{}`: browsers will come by https",
        edge.scheme
    );
    ensure!(
        edge.public_port() == options.https_port,
        "`edge.port` and --https-port differ"
    );
    ensure!(
        !edge.trusted_hops.is_empty(),
        "`edge.trusted_hops` is empty: the edge would take Traefik for every visitor"
    );
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    ensure!(
        !domain.is_empty() && domain.bytes().all(is_name),
        "`edge.domain` is no name: `{domain}`"
    );
    let own = [format!("http://{}", edge.listen)];
    let edges = if options.edges.is_empty() {
        own.as_slice()
    } else {
        options.edges.as_slice()
    };
    let access = config.routes()?.map(|routes| Access::of(&routes.redis));
    let mut access = access.transpose()?;
    let asks_itself = access.is_some() && edges.len() > 1;
    ensure!(
        !asks_itself || edge.trusted_hops.contains(&Ipv4Addr::LOCALHOST.into()),
        "`edge.trusted_hops` lacks 127.0.0.1: with several edges Traefik asks them by way of itself"
    );
    fs::create_dir_all(&options.out)
        .with_context(|| format!("make `{}`", options.out.display()))?;
    let out = options.out.canonicalize()?;
    // Before Traefik hears of them: the edge knows its one as soon as it is in the file.
    let (hop, kept) = match &mut access {
        Some(access) => secrets(&config, options, access)?,
        None => Default::default(),
    };
    let front = Front {
        options,
        domain,
        edges,
        access: access.as_ref(),
        hop,
        tls_port: edge.domains.as_ref().map(|domains| domains.listen.port()),
        out: &out,
    };
    let mut written = vec![out.join("traefik.yml"), front.dynamic_path()];
    let texts = [front.statics(), front.dynamic()?];
    // First, so that no Traefik reads of files that are not there.
    let certificate = match &access {
        Some(_) => edge::write(&config, &out)?,
        None => Vec::new(),
    };
    for (path, text) in written.iter().zip(&texts) {
        write(path, text)?;
    }
    written.extend(certificate);
    if let Some(access) = &access {
        let path = out.join("redis.acl");
        write(&path, &access.acl())?;
        written.push(path);
        written.extend(kept);
    }
    Ok(written)
}

/// What the edge and Redis know Traefik by, and in which files that is kept: another Traefik is told the same.
fn secrets(
    config: &Config,
    options: &Traefik,
    access: &mut Access,
) -> anyhow::Result<(String, Vec<PathBuf>)> {
    let rotation = if options.rotate {
        Rotation::New
    } else {
        Rotation::Keep
    };
    let dir = &config.state_dir;
    secret_file::create_dir(dir).with_context(|| format!("make `{}`", dir.display()))?;
    let (hop, redis) = (config.traefik_secrets(), config.traefik_passwords());
    let chance = Chance::from_os();
    access.passwords = two_secrets::keep(&redis, rotation, &chance)
        .with_context(|| format!("write `{}`", redis.display()))?;
    let secret = hop_secret(&hop, rotation, &chance)
        .with_context(|| format!("write `{}`", hop.display()))?;
    Ok((secret, vec![hop, redis]))
}

/// Replaces a file whole, for its owner only: Traefik's password for Redis is in one of them, its key and what
/// the edge knows it by in others. Whose the file was stays so, for Traefik may be another user; where a link led
/// is left alone.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let writing = || {
        let owner = match fs::symlink_metadata(path) {
            Ok(there) if there.is_file() => Some(secret_file::Owner {
                user: there.uid(),
                group: there.gid(),
            }),
            Ok(_) => None,
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        match owner {
            Some(owner) => secret_file::write_for(path, text.as_bytes(), owner),
            None => secret_file::write(path, text.as_bytes()),
        }
    };
    writing().with_context(|| format!("write `{}`", path.display()))
}

/// In quotes that YAML and JSON have in common.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn what_was_readable_or_a_link_is_replaced_by_a_file_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let [key, link, elsewhere] =
            ["edge.key", "dynamic.yml", "elsewhere"].map(|name| folder.path().join(name));
        for path in [&key, &elsewhere] {
            fs::write(path, "before").unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
        }
        symlink(&elsewhere, &link).unwrap();
        for path in [&key, &link] {
            let before = fs::symlink_metadata(path).unwrap();
            write(path, "secret").unwrap();
            let after = fs::symlink_metadata(path).unwrap();
            assert!(after.is_file());
            assert_eq!(after.mode() & 0o777, 0o600);
            assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()));
            assert_ne!(after.ino(), before.ino(), "a reader would see half of it");
            assert_eq!(fs::read_to_string(path).unwrap(), "secret");
        }
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "before");
    }

    fn options() -> Traefik {
        Traefik {
            config: PathBuf::new(),
            out: PathBuf::new(),
            edges: Vec::new(),
            source: Source {
                email: Some("ops@example.com".into()),
                dns: Some("hetzner".into()),
                certificate: None,
                key: None,
            },
            http_port: 80,
            https_port: 443,
            status_port: 8082,
            status_address: Ipv4Addr::LOCALHOST.into(),
            sign_in_port: 8083,
            rotate: false,
        }
    }

    fn written(edges: &[&str], access: Option<&Access>) -> String {
        written_with(edges, access, None)
    }

    fn written_with(edges: &[&str], access: Option<&Access>, tls_port: Option<u16>) -> String {
        let options = options();
        let edges: Vec<_> = edges.iter().map(|edge| (*edge).to_owned()).collect();
        let front = Front {
            options: &options,
            domain: "apps.example.com",
            edges: &edges,
            access,
            hop: "made".to_owned(),
            tls_port,
            out: Path::new("/etc/traefik"),
        };
        format!("{}---\n{}", front.statics(), front.dynamic().unwrap())
    }

    #[test]
    fn one_rule_is_for_every_instance_of_the_domain_and_for_nothing_else() {
        let edges = ["http://127.0.0.1:8080", "http://10.0.0.2:8080"];
        insta::assert_snapshot!("traefik", written(&edges, None));
    }

    #[test]
    fn what_is_for_customers_names_goes_to_the_edges_unopened() {
        let edges = ["http://127.0.0.1:8080", "http://10.0.0.2:8080"];
        insta::assert_snapshot!("domains", written_with(&edges, None, Some(8443)));
    }

    #[test]
    fn with_redis_the_edge_is_asked_about_every_request() {
        let access = Access {
            endpoint: "127.0.0.1:6379".to_owned(),
            database: 1,
            passwords: vec!["generated".to_owned()],
            own: Some(("tidepool".to_owned(), "ours".to_owned())),
        };
        let text = written(&["http://127.0.0.1:8080"], Some(&access));
        insta::assert_snapshot!("redis", format!("{text}---\n{}", access.acl()));
        let edges = ["http://127.0.0.1:8080", "http://10.0.0.2:8080"];
        insta::assert_snapshot!("redis_and_edges", written(&edges, Some(&access)));
    }
}
