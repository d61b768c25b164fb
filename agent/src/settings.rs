//! What the agent is told at its start, checked before anything is touched.

use std::{
    fmt::Write as _,
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use clap::Args;
use nix::unistd::{User, geteuid};
use rand::TryRngCore as _;
use tidepool_certs::secret_file::{self, Owner};
use tidepool_shared::{manifest::ImageManifest, user_data::UserData};

use crate::{
    door::{DoorError, DoorFile},
    nginx::{Llm, Site, Worker, create_passable},
    runtime::Bridge,
};

/// Of the state directory: key and certificates.
pub(crate) const IDENTITY_DIR: &str = "identity";

/// The command line of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunArguments {
    /// The agent's own directory: identity, ledger, nginx, gateway
    #[arg(long)]
    pub state_dir: PathBuf,
    /// User data as the cloud gave it, JSON
    #[arg(long)]
    pub user_data: PathBuf,
    /// The image manifest, JSON
    #[arg(long)]
    pub manifest: PathBuf,
    /// The server's own address
    #[arg(long)]
    pub address: IpAddr,
    /// Where edges are let in, by TLS
    #[arg(long, default_value_t = 8080)]
    pub http_port: u16,
    /// Where the gateway finds its models
    #[arg(long, default_value_t = 8081)]
    pub relay_port: u16,
    /// Where the gateway listens; on one machine each server needs its own, 120 apart
    #[arg(long, default_value_t = 18789)]
    pub gateway_port: u16,
    /// The cloud's id of this server, which a copy of its disk does not have
    #[arg(long)]
    pub cloud_instance: Option<String>,
}

/// Everything the agent knows before it does anything.
#[derive(Debug)]
pub struct Settings {
    pub state_dir: PathBuf,
    pub address: IpAddr,
    pub http_port: u16,
    pub relay_port: u16,
    pub gateway_port: u16,
    pub cloud_instance: Option<String>,
    pub user_data: UserData,
    pub manifest: ImageManifest,
    /// As reported at enrolment.
    pub manifest_json: String,
    llm: Llm,
}

impl Settings {
    /// Reads and checks; makes only the state directory, to know that it can be written.
    pub fn read(arguments: &RunArguments) -> Result<Self, InvalidSettings> {
        let ports = [
            arguments.http_port,
            arguments.relay_port,
            arguments.gateway_port,
        ];
        let [http, relay, gateway] = ports;
        if ports.contains(&0) || http == relay || relay == gateway || http == gateway {
            return Err(InvalidSettings::Ports);
        }
        if arguments.address.is_unspecified() {
            return Err(InvalidSettings::Address(arguments.address));
        }
        let (user_data, _): (UserData, _) = read_json(&arguments.user_data)?;
        let (manifest, manifest_json): (ImageManifest, _) = read_json(&arguments.manifest)?;
        let llm = Llm::parse(&user_data.proxy)
            .ok_or_else(|| InvalidSettings::Proxy(user_data.proxy.clone()))?;
        for program in
            std::iter::once(&manifest.nginx).chain(std::iter::once(&manifest.config_schema))
        {
            if !program.is_file() {
                return Err(InvalidSettings::Missing(program.clone()));
            }
        }
        if manifest.gateway.is_empty() {
            return Err(InvalidSettings::NoGateway);
        }
        let state_dir = private_dir(&arguments.state_dir)?;
        // It is written into nginx's configuration, where these would end a word.
        let plain = |c: char| c.is_alphanumeric() || "/-_.+@,:=~".contains(c);
        if !state_dir
            .to_str()
            .is_some_and(|text| text.chars().all(plain))
        {
            return Err(InvalidSettings::StateDirName(state_dir));
        }
        Ok(Self {
            state_dir,
            address: arguments.address,
            http_port: http,
            relay_port: relay,
            gateway_port: gateway,
            cloud_instance: arguments.cloud_instance.clone(),
            user_data,
            manifest,
            manifest_json,
            llm,
        })
    }

    /// Where nginx and the agent reach the gateway. A container's port is published on loopback only:
    /// Docker's rules come before the machine's own.
    pub fn gateway(&self) -> SocketAddr {
        let in_container = self.manifest.container.is_some();
        let address = if in_container && !self.address.is_loopback() {
            Ipv4Addr::LOCALHOST.into()
        } else {
            self.address
        };
        SocketAddr::new(address, self.gateway_port)
    }

    /// Where the gateway finds its models: on the server's address, or on that of the network which it
    /// shares with the gateway's container.
    fn relay(&self) -> SocketAddr {
        let address = match &self.manifest.container {
            Some(_) => Bridge::of(self.gateway_port).address(),
            None => self.address,
        };
        SocketAddr::new(address, self.relay_port)
    }

    /// A directory of the agent's for this purpose, made if it is not there.
    pub fn own_dir(&self, name: &str) -> Result<PathBuf, InvalidSettings> {
        private_dir(&self.state_dir.join(name))
    }

    /// What nginx must know, with the relay's secret as this server has it.
    pub fn site(&self) -> Result<Site, InvalidSettings> {
        let prefix = self.own_dir("nginx")?;
        let worker = self.worker()?;
        if worker.owner().is_some() {
            for passed in [&self.state_dir, &prefix] {
                create_passable(passed).map_err(|source| InvalidSettings::Directory {
                    path: passed.clone(),
                    source,
                })?;
            }
        }
        let door = self.door_file()?;
        door.adopt(&self.own_dir(IDENTITY_DIR)?.join("door.pem"))
            .map_err(InvalidSettings::Door)?;
        Ok(Site {
            door: door.path,
            prefix,
            address: self.address,
            http_port: self.http_port,
            relay: self.relay(),
            gateway: self.gateway(),
            llm: self.llm.clone(),
            authority: self.user_data.ca.clone(),
            relay_secret: self.relay_secret()?,
            worker,
        })
    }

    /// The door's certificate: in nginx's directory, since its worker reads it.
    pub fn door_file(&self) -> Result<DoorFile, InvalidSettings> {
        Ok(DoorFile {
            path: self.own_dir("nginx")?.join("door.pem"),
            owner: self.worker()?.owner(),
        })
    }

    /// Only an image is a machine whose users and directories are ours.
    fn worker(&self) -> Result<Worker, InvalidSettings> {
        match (geteuid().is_root(), &self.manifest.build) {
            (false, _) => Ok(Worker::Same),
            (true, None) => Ok(Worker::Root),
            (true, Some(_)) => match User::from_name("www-data") {
                Ok(Some(found)) => Ok(Worker::WwwData(Owner {
                    user: found.uid.as_raw(),
                    group: found.gid.as_raw(),
                })),
                Ok(None) | Err(_) => Err(InvalidSettings::NoWorker),
            },
        }
    }

    /// Born on the server at its first start, and the same ever after: a gateway knows it.
    fn relay_secret(&self) -> Result<String, InvalidSettings> {
        let path = self.state_dir.join("relay-secret");
        let directory = |source| InvalidSettings::Directory {
            path: path.clone(),
            source,
        };
        if let Some(bytes) = secret_file::read(&path).map_err(directory)? {
            let secret = String::from_utf8(bytes).unwrap_or_default();
            let is_secret =
                secret.len() == 64 && secret.bytes().all(|byte| byte.is_ascii_hexdigit());
            return is_secret
                .then_some(secret)
                .ok_or_else(|| InvalidSettings::Secret(path.clone()));
        }
        let mut bytes = [0u8; 32];
        rand::rngs::OsRng
            .try_fill_bytes(&mut bytes)
            .map_err(|error| directory(io::Error::other(error)))?;
        let secret = bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a string cannot fail");
            text
        });
        secret_file::write(&path, secret.as_bytes()).map_err(directory)?;
        Ok(secret)
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<(T, String), InvalidSettings> {
    let text = fs::read_to_string(path).map_err(|source| InvalidSettings::Read {
        path: path.to_owned(),
        source,
    })?;
    match serde_json::from_str(&text) {
        Ok(value) => Ok((value, text)),
        // Only where: the cause may quote the enrolment token.
        Err(error) => Err(InvalidSettings::Json {
            path: path.to_owned(),
            line: error.line(),
            column: error.column(),
        }),
    }
}

fn private_dir(path: &Path) -> Result<PathBuf, InvalidSettings> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .and_then(|()| path.canonicalize())
        .map_err(|source| InvalidSettings::Directory {
            path: path.to_owned(),
            source,
        })
}

/// Why the agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum InvalidSettings {
    #[error("take over the door's certificate")]
    Door(#[source] DoorError),
    #[error("this machine has no user `www-data`, whom nginx runs as")]
    NoWorker,
    #[error("the three ports must differ and not be 0")]
    Ports,
    #[error("not an address of one server: {0}")]
    Address(IpAddr),
    #[error("read `{path}`")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` is not what it should be, line {line} column {column}")]
    Json {
        path: PathBuf,
        line: usize,
        column: usize,
    },
    #[error("proxy in user data is not a base URL without a path: `{0}`")]
    Proxy(String),
    #[error("the manifest names a file that is not there: `{0}`")]
    Missing(PathBuf),
    #[error("the manifest names no gateway program")]
    NoGateway,
    #[error("state directory has a character in its name that nginx cannot have: `{0}`")]
    StateDirName(PathBuf),
    #[error("use directory `{path}`")]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("not a relay secret: `{0}`")]
    Secret(PathBuf),
}

#[cfg(test)]
mod tests {
    use tidepool_shared::manifest::ContainerManifest;

    use super::*;

    fn arguments(dir: &Path) -> RunArguments {
        let schema = dir.join("schema.json");
        fs::write(&schema, "{}").unwrap();
        let manifest = serde_json::json!({
            "image": "test", "openclaw_version": "2026.9.6", "gateway": ["node"],
            "config_schema": schema, "nginx": schema,
        });
        fs::write(dir.join("manifest.json"), manifest.to_string()).unwrap();
        let user_data = serde_json::json!({
            "server": "srv_00000000000000000000000001", "enrolment_token": "s3cret",
            "coordinators": ["127.0.0.1:7443"], "ca": "", "proxy": "http://127.0.0.1:4000",
        });
        fs::write(dir.join("user-data.json"), user_data.to_string()).unwrap();
        RunArguments {
            state_dir: dir.join("state"),
            user_data: dir.join("user-data.json"),
            manifest: dir.join("manifest.json"),
            address: [127, 0, 0, 1].into(),
            http_port: 8080,
            relay_port: 8081,
            gateway_port: 18789,
            cloud_instance: None,
        }
    }

    #[test]
    fn the_relay_secret_is_born_once_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings::read(&arguments(dir.path())).unwrap();
        let first = settings.site().unwrap().relay_secret;
        assert_eq!(first.len(), 64);
        let again = Settings::read(&arguments(dir.path())).unwrap();
        assert_eq!(again.site().unwrap().relay_secret, first);
    }

    #[test]
    fn a_containers_port_is_on_loopback_and_its_models_on_its_own_network() {
        let dir = tempfile::tempdir().unwrap();
        let mut given = arguments(dir.path());
        given.address = [203, 0, 113, 7].into();
        let mut settings = Settings::read(&given).unwrap();
        assert_eq!(settings.gateway().to_string(), "203.0.113.7:18789");
        let image = format!("sha256:{}", "0a".repeat(32)).try_into().unwrap();
        settings.manifest.container = Some(ContainerManifest {
            image,
            socket: "/var/run/docker.sock".into(),
            browsers: None,
            memory_mib: None,
        });
        assert_eq!(settings.gateway().to_string(), "127.0.0.1:18789");
        let relay = settings.site().unwrap().relay;
        assert_eq!(relay, SocketAddr::new(Bridge::of(18789).address(), 8081));
    }

    #[test]
    fn equal_ports_and_an_unspecified_address_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut wrong = arguments(dir.path());
        wrong.relay_port = wrong.http_port;
        assert!(matches!(
            Settings::read(&wrong),
            Err(InvalidSettings::Ports)
        ));
        let mut wrong = arguments(dir.path());
        wrong.address = [0, 0, 0, 0].into();
        assert!(matches!(
            Settings::read(&wrong),
            Err(InvalidSettings::Address(_))
        ));
    }

    #[test]
    fn an_error_in_user_data_does_not_quote_the_token() {
        let dir = tempfile::tempdir().unwrap();
        let arguments = arguments(dir.path());
        fs::write(&arguments.user_data, r#"{"enrolment_token": s3cret}"#).unwrap();
        let error = Settings::read(&arguments).unwrap_err();
        assert!(!crate::converge::chain(&error).contains("s3cret"));
    }
}
