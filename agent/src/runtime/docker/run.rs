//! What a gateway's container is allowed: the request that makes it.
//!
//! The customer has a shell in it, so it is judged as theirs: no capability, no new privileges, a root
//! file system that cannot be written, limits on memory, CPU and processes, a network of its own, and of
//! this machine only the state directory and one log file. Docker's socket is never among them.
//!
//! The gateway's output is appended to a file of the agent's, as a process's is: no reader must be alive
//! for it, nothing that was said is still in a pipe when it is looked for, and it outlives the container.
//! Docker's own log holds what goes wrong before that, and is empty otherwise.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    path::{Path, PathBuf},
    thread::available_parallelism,
};

use bollard::models::{
    ContainerCreateBody, ContainerUpdateBody, HealthConfig, HostConfig, Mount, MountType,
    PortBinding, RestartPolicy, RestartPolicyNameEnum,
};
use tidepool_certs::secret_file::Owner;
use tidepool_shared::{document::GatewayLimits, manifest::ContainerManifest};

use super::Bridge;
use crate::{
    machine,
    openclaw::{Browsers, Inside, Place},
};

/// The label that says whose container or network it is; without it nothing is touched.
pub(super) const SERVER_LABEL: &str = "tidepool.server";
/// The label that says from which image the container was made.
pub(super) const IMAGE_LABEL: &str = "tidepool.image";

/// Where the gateway listens in its container.
const PORT: u16 = 18789;
/// The image's user `node`.
const NODE: Owner = Owner {
    user: 1000,
    group: 1000,
};
const HOME: &str = "/home/node";
/// Where the log is in the container.
const LOG: &str = "/var/log/openclaw-gateway.log";
/// Where the browsers' volume is in the container.
const BROWSERS: &str = "/opt/browsers";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Processes and threads. Measured: 30 for a gateway at rest; browsers take hundreds.
const MAX_PIDS: u32 = 512;
/// The share of CPU time against the machine's other services, when both want all of it; theirs is 1024.
const CPU_SHARES: i64 = 512;
/// Memory that is not the gateway's: nginx, the agent, Docker, the kernel.
const KEPT_MIB: u64 = 400;
/// What is written outside the state directory is in memory, and counts as the container's. Programs run
/// from there: they do from the state directory as well, and npm and the customer's tools put them there.
const HOME_TMPFS: &str = "rw,exec,nosuid,nodev,size=256m,uid=1000,gid=1000,mode=0700";
const TMP_TMPFS: &str = "rw,exec,nosuid,nodev,size=512m,mode=1777";

/// One gateway's container, before it is made.
#[derive(Debug, Clone)]
pub struct Run {
    /// Whose container it is: the server's id.
    pub server: String,
    pub manifest: ContainerManifest,
    /// What Docker loads the image from, unless it has it.
    pub archive: Option<PathBuf>,
    /// Program and arguments, within the container.
    pub argv: Vec<String>,
    pub place: Place,
    /// More variables, for tests (the stub's switches).
    pub extra_env: BTreeMap<String, String>,
}

impl Run {
    /// How a container sees what the agent knows by other names.
    pub fn inside(browsers: Browsers) -> Inside {
        Inside {
            listen: SocketAddr::from(([0, 0, 0, 0], PORT)),
            home: PathBuf::from(HOME),
            owner: NODE,
            browsers,
        }
    }

    /// Whom the gateway runs as.
    pub(super) fn owner() -> Owner {
        NODE
    }

    /// The network that the container is in.
    pub fn bridge(&self) -> Bridge {
        Bridge::of(self.place.gateway.port())
    }

    pub(super) fn name(&self) -> String {
        format!("tidepool-{}", self.server)
    }

    pub(super) fn image(&self) -> &str {
        self.manifest.image.as_str()
    }

    pub(super) fn labels(&self) -> HashMap<String, String> {
        HashMap::from([(SERVER_LABEL.to_owned(), self.server.clone())])
    }

    /// The most that the container may have, within what the machine has.
    pub(super) fn ceilings(&self, limits: GatewayLimits) -> Ceilings {
        let machine = match self.manifest.memory_mib {
            Some(wanted) => u64::from(wanted),
            None => (machine::memory().total >> 20).saturating_sub(KEPT_MIB),
        };
        let wanted = limits.memory_mib.map_or(u64::MAX, u64::from);
        let cores = available_parallelism().map_or(1, std::num::NonZero::get);
        let cores = u32::try_from(cores)
            .unwrap_or(u32::MAX)
            .saturating_mul(1000);
        Ceilings {
            memory_mib: wanted
                .min(machine)
                .max(GatewayLimits::LEAST_MEMORY_MIB.into()),
            cpu_millicores: limits.cpu_millicores.unwrap_or(cores).min(cores),
            pids: limits.pids.unwrap_or(MAX_PIDS),
        }
    }

    pub(super) fn request(&self, ceilings: Ceilings) -> ContainerCreateBody {
        let mut labels = self.labels();
        labels.insert(IMAGE_LABEL.to_owned(), self.image().to_owned());
        let into_log = format!("exec \"$@\" >>{LOG} 2>&1");
        let words = ["/bin/sh", "-c", &into_log, "gateway"];
        ContainerCreateBody {
            image: Some(self.image().to_owned()),
            hostname: Some("openclaw".to_owned()),
            user: Some(format!("{}:{}", NODE.user, NODE.group)),
            working_dir: Some(HOME.to_owned()),
            entrypoint: Some(words.map(str::to_owned).into()),
            cmd: Some(self.argv.clone()),
            env: Some(self.environment()),
            labels: Some(labels),
            exposed_ports: Some(vec![exposed()]),
            // With another one a crash after a signal would count as wanted, and nothing would restart it.
            stop_signal: Some("SIGTERM".to_owned()),
            // The image's starts a process in the container every time; the agent asks by itself.
            healthcheck: Some(HealthConfig {
                test: Some(vec!["NONE".to_owned()]),
                ..HealthConfig::default()
            }),
            host_config: Some(self.host(ceilings)),
            ..ContainerCreateBody::default()
        }
    }

    fn environment(&self) -> Vec<String> {
        let text = |path: PathBuf| path.display().to_string();
        let browsers = self.manifest.browsers.as_ref();
        let fixed = [
            ("PATH", PATH.to_owned()),
            ("LANG", "C.UTF-8".to_owned()),
            ("HOME", HOME.to_owned()),
            ("OPENCLAW_HOME", HOME.to_owned()),
            ("OPENCLAW_STATE_DIR", text(self.place.seen_state_dir())),
            ("OPENCLAW_CONFIG_PATH", text(self.place.seen_config_path())),
            ("OPENCLAW_DISABLE_BONJOUR", "1".to_owned()),
        ];
        fixed
            .into_iter()
            .chain(browsers.map(|_| ("PLAYWRIGHT_BROWSERS_PATH", BROWSERS.to_owned())))
            .chain(
                self.extra_env
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.clone())),
            )
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }

    fn host(&self, ceilings: Ceilings) -> HostConfig {
        let memory = ceilings.memory();
        HostConfig {
            cap_drop: Some(vec!["ALL".to_owned()]),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            readonly_rootfs: Some(true),
            tmpfs: Some(HashMap::from([
                (HOME.to_owned(), HOME_TMPFS.to_owned()),
                ("/tmp".to_owned(), TMP_TMPFS.to_owned()),
            ])),
            mounts: Some(self.mounts()),
            memory: Some(memory),
            // No swap beside it.
            memory_swap: Some(memory),
            nano_cpus: Some(ceilings.nano_cpus()),
            cpu_shares: Some(CPU_SHARES),
            pids_limit: Some(ceilings.pids.into()),
            // Reaps what the gateway's tools leave behind, and passes signals on.
            init: Some(true),
            network_mode: Some(self.bridge().name()),
            port_bindings: Some(HashMap::from([(
                exposed(),
                Some(vec![PortBinding {
                    host_ip: Some(self.place.gateway.ip().to_string()),
                    host_port: Some(self.place.gateway.port().to_string()),
                }]),
            )])),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::ALWAYS),
                ..RestartPolicy::default()
            }),
            ..HostConfig::default()
        }
    }

    fn mounts(&self) -> Vec<Mount> {
        let bind = |source: &Path, target: PathBuf| Mount {
            typ: Some(MountType::BIND),
            source: Some(source.display().to_string()),
            target: Some(target.display().to_string()),
            ..Mount::default()
        };
        let browsers = self.manifest.browsers.as_ref().map(|volume| Mount {
            typ: Some(MountType::VOLUME),
            source: Some(volume.clone()),
            target: Some(BROWSERS.to_owned()),
            // Gateways of one machine share it.
            read_only: Some(true),
            ..Mount::default()
        });
        let state = bind(&self.place.state_dir(), self.place.seen_state_dir());
        let log = bind(&self.place.log_path(), LOG.into());
        [state, log].into_iter().chain(browsers).collect()
    }
}

/// What Docker is told of limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ceilings {
    pub(super) memory_mib: u64,
    cpu_millicores: u32,
    pids: u32,
}

impl Ceilings {
    /// In bytes.
    fn memory(self) -> i64 {
        i64::try_from(self.memory_mib << 20).unwrap_or(i64::MAX)
    }

    /// Thousand-millionths of a core.
    fn nano_cpus(self) -> i64 {
        i64::from(self.cpu_millicores) * 1_000_000
    }

    /// The request that changes a container which runs.
    pub(super) fn update(self) -> ContainerUpdateBody {
        ContainerUpdateBody {
            memory: Some(self.memory()),
            memory_swap: Some(self.memory()),
            nano_cpus: Some(self.nano_cpus()),
            pids_limit: Some(self.pids.into()),
            ..ContainerUpdateBody::default()
        }
    }
}

fn exposed() -> String {
    format!("{PORT}/tcp")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Run {
        let image = format!("sha256:{}", "0a".repeat(32)).try_into().unwrap();
        Run {
            server: "srv_1".to_owned(),
            manifest: ContainerManifest {
                image,
                socket: "/var/run/docker.sock".into(),
                browsers: Some("browsers".to_owned()),
                memory_mib: None,
            },
            archive: None,
            argv: vec!["node".to_owned(), "gateway".to_owned()],
            place: Place {
                gateway: "127.0.0.1:18789".parse().unwrap(),
                source: None,
                trusted_proxies: vec![Bridge::of(18789).address()],
                relay: "http://172.20.150.81:8081/v1".to_owned(),
                home: "/srv/state/home".into(),
                records: "/srv/state/gateway".into(),
                inside: Some(Run::inside(Browsers::Mounted)),
            },
            extra_env: BTreeMap::new(),
        }
    }

    #[test]
    fn the_container_is_given_two_paths_of_this_machine_and_no_more() {
        let run = run();
        let request = run.request(run.ceilings(GatewayLimits::default()));
        let host = request.host_config.unwrap();
        let sources: Vec<_> = host
            .mounts
            .unwrap()
            .into_iter()
            .filter_map(|mount| mount.source)
            .collect();
        assert_eq!(
            sources,
            [
                "/srv/state/home/.openclaw",
                "/srv/state/gateway/gateway.log",
                "browsers"
            ]
        );
        assert_eq!(host.binds, None);
        assert_eq!(host.privileged, None);
    }

    #[test]
    fn its_limits_are_the_tiers_within_what_the_machine_has() {
        let mut run = run();
        let tier = GatewayLimits {
            memory_mib: Some(1500),
            cpu_millicores: Some(500),
            pids: Some(200),
        };
        run.manifest.memory_mib = Some(2000);
        let ceilings = run.ceilings(tier);
        assert_eq!(ceilings.memory(), 1500 << 20);
        assert_eq!((ceilings.nano_cpus(), ceilings.pids), (500_000_000, 200));
        run.manifest.memory_mib = Some(1000);
        assert_eq!(run.ceilings(tier).memory_mib, 1000);
        let none = run.ceilings(GatewayLimits::default());
        assert_eq!((none.memory_mib, none.pids), (1000, MAX_PIDS));
        assert!(none.cpu_millicores >= 1000);
    }

    #[test]
    fn there_is_never_too_little_memory_to_boot() {
        let mut run = run();
        run.manifest.memory_mib = Some(1);
        let least = u64::from(GatewayLimits::LEAST_MEMORY_MIB);
        assert_eq!(run.ceilings(GatewayLimits::default()).memory_mib, least);
        run.manifest.memory_mib = None;
        assert!(run.ceilings(GatewayLimits::default()).memory_mib >= least);
    }
}
