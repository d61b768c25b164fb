//! One gateway on an address of its own, with a model behind it that counts its calls.

#[path = "bench/container.rs"]
mod container;
#[path = "bench/model.rs"]
mod model;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tidepool_agent::{
    converge::openclaw::{Maker, OpenClaw},
    gateway::Gateway,
    openclaw::{Place, Schema, Stage, neutral, wanted},
    release::Shelf,
    reload::{Deadlines, Outcome, Reloader, Table},
    runtime::{Command, DockerRuntime, ProcessRuntime, Run, Runtime, Since},
};
use tidepool_shared::manifest::{ImageManifest, Release};
use tidepool_tests::docker::Engine;
use tokio::task::JoinSet;

/// Of the gateway, and of who asks it.
const OWN_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 80, 77, 1);

pub(crate) struct Bench {
    pub(crate) place: Place,
    kind: Kind,
    version: String,
    pub(crate) runtime: Box<dyn Runtime>,
    pub(crate) gateway: Gateway,
    pub(crate) reloader: Reloader,
    pub(crate) table: Table,
    pub(crate) schema: Arc<Schema>,
    schema_path: PathBuf,
    pub(crate) model_calls: Arc<AtomicU32>,
    _model: JoinSet<()>,
    // After what uses it.
    engine: Option<Engine>,
    folder: TempDir,
}

/// What the gateway runs as.
#[derive(Debug, Clone)]
enum Kind {
    Process(Command),
    Container(Box<Run>),
}

impl Kind {
    fn runtime(&self) -> Box<dyn Runtime> {
        match self {
            Self::Process(command) => Box::new(ProcessRuntime::new(command.clone())),
            Self::Container(run) => Box::new(DockerRuntime::new(Run::clone(run))),
        }
    }

    /// As the agent makes a runtime of a release.
    fn maker(&self) -> Maker {
        let kind = self.clone();
        Box::new(move |release| {
            let argv = release.gateway.clone();
            Ok(match &kind {
                Self::Process(command) => Self::Process(Command {
                    argv,
                    ..command.clone()
                }),
                Self::Container(run) => {
                    let mut run = run.clone();
                    run.argv = argv;
                    run.archive.clone_from(&release.archive);
                    run.manifest.image = release.container.clone().expect("an image");
                    Self::Container(run)
                }
            }
            .runtime())
        })
    }
}

/// What is tried is what the gateway does, not how fast it does it on a machine full of other tests.
pub(crate) fn patient() -> Deadlines {
    Deadlines {
        word: Duration::from_secs(15),
        start: Duration::from_mins(2),
        ..Deadlines::default()
    }
}

/// The manifest that a variable names, or a loud word that the test is skipped.
pub(crate) fn manifest_from(variable: &str) -> Option<ImageManifest> {
    let Ok(path) = std::env::var(variable) else {
        eprintln!("SKIPPED: {variable} is not set, the real OpenClaw was not tried");
        return None;
    };
    let bytes = std::fs::read(&path).expect("read the manifest");
    Some(serde_json::from_slice(&bytes).expect("parse the manifest"))
}

impl Bench {
    /// A stub that has started.
    pub(crate) async fn stub(switches: &[(&str, &str)]) -> Self {
        Self::unstarted_stub(switches).started().await
    }

    pub(crate) fn unstarted_stub(switches: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let schema_path = stub_schema(&folder);
        let version = switches.iter().find(|(name, _)| *name == "STUB_VERSION");
        let version = version.map_or("2026.9.6", |(_, version)| version);
        let argv = vec![
            env!("CARGO_BIN_EXE_stub-gateway").to_owned(),
            "gateway".to_owned(),
        ];
        let mut bench = Self::process(folder, argv, schema_path, version);
        bench.switch(owned(switches));
        bench
    }

    fn switch(&mut self, switches: BTreeMap<String, String>) {
        match &mut self.kind {
            Kind::Process(command) => command.extra_env = switches,
            Kind::Container(run) => run.extra_env = switches,
        }
        self.runtime = self.kind.runtime();
    }

    /// The real OpenClaw, started.
    pub(crate) async fn real(manifest: ImageManifest) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let version = manifest.openclaw_version;
        Self::process(folder, manifest.gateway, manifest.config_schema, &version)
            .started()
            .await
    }

    fn process(folder: TempDir, argv: Vec<String>, schema_path: PathBuf, version: &str) -> Self {
        let (listener, relay) = model::listener([127, 0, 0, 1].into());
        let place = Place {
            trusted_proxies: vec![OWN_ADDRESS.into()],
            relay: format!("http://{relay}/v1"),
            ..bare_place(&folder)
        };
        let command = Command::new(argv, &place);
        Self::of(
            folder,
            Kind::Process(command),
            place,
            listener,
            schema_path,
            version,
        )
    }

    fn of(
        folder: TempDir,
        kind: Kind,
        place: Place,
        listener: std::net::TcpListener,
        schema_path: PathBuf,
        version: &str,
    ) -> Self {
        let model_calls = Arc::new(AtomicU32::new(0));
        let mut serving = JoinSet::new();
        serving.spawn(model::serve(listener, model_calls.clone()));
        let table = Table::of(version).expect("a known version");
        let schema = Arc::new(Schema::load(&schema_path).expect("the image's schema"));
        Self {
            runtime: kind.runtime(),
            kind,
            version: version.to_owned(),
            gateway: Gateway::new(place.clone()),
            reloader: Reloader::new(place.clone(), table, schema.clone()).with_deadlines(patient()),
            table,
            schema,
            schema_path,
            place,
            model_calls,
            _model: serving,
            engine: None,
            folder,
        }
    }

    pub(crate) fn lay_down(&self) {
        let config = neutral(&self.place, Stage::WarmingUp);
        self.reloader.lay_down(&config).expect("lay down");
    }

    async fn started(self) -> Self {
        self.lay_down();
        self.runtime.start().await.expect("start");
        let up = self.gateway.started_within(Duration::from_secs(90)).await;
        assert!(up, "not started: {:?}", self.runtime.log().tail(20));
        self
    }

    /// The gateway as the agent's loop has it.
    pub(crate) fn openclaw(&self) -> OpenClaw {
        self.openclaw_beside(&[], patient())
    }

    /// The same as an agent has it that starts now, with further versions to go to.
    pub(crate) fn openclaw_beside(&self, others: &[Release], deadlines: Deadlines) -> OpenClaw {
        let releases = std::iter::once(self.release()).chain(others.iter().cloned());
        let shelf = Shelf::new(releases.collect(), self.folder.path().join("releases"));
        let upgrades = self.upgrades();
        std::fs::create_dir_all(&upgrades).expect("a folder");
        OpenClaw::open(self.place.clone(), shelf, self.kind.maker(), &upgrades)
            .expect("the version that runs")
            .with_deadlines(deadlines)
    }

    /// Where an agent keeps what it must know of upgrades.
    pub(crate) fn upgrades(&self) -> PathBuf {
        self.folder.path().join("upgrade")
    }

    /// The version that the bench began with.
    pub(crate) fn release(&self) -> Release {
        let (gateway, container) = match &self.kind {
            Kind::Process(command) => (command.argv.clone(), None),
            Kind::Container(run) => (run.argv.clone(), Some(run.manifest.image.clone())),
        };
        Release {
            openclaw_version: self.version.clone(),
            gateway,
            config_schema: self.schema_path.clone(),
            container,
            archive: None,
            restart_signal: None,
        }
    }

    /// As a new agent has it that finds what this one's has started.
    pub(crate) fn another_runtime(&self) -> Box<dyn Runtime> {
        self.kind.runtime()
    }

    pub(crate) async fn apply(&self, patch: &Value) -> Outcome {
        self.apply_by(&self.reloader, patch).await
    }

    pub(crate) async fn apply_with(&self, deadlines: Deadlines, patch: &Value) -> Outcome {
        let reloader = Reloader::new(self.place.clone(), self.table, self.schema.clone())
            .with_deadlines(deadlines);
        self.apply_by(&reloader, patch).await
    }

    /// Past our own check, so that it is the gateway that judges.
    pub(crate) async fn apply_unchecked(&self, patch: &Value) -> Outcome {
        let anything = Schema::compile(&json!({})).expect("a schema");
        let reloader = Reloader::new(self.place.clone(), self.table, Arc::new(anything))
            .with_deadlines(patient());
        self.apply_by(&reloader, patch).await
    }

    async fn apply_by(&self, reloader: &Reloader, patch: &Value) -> Outcome {
        let config = wanted(&self.place, patch).expect("a patch that is allowed");
        let outcome = reloader
            .apply(self.runtime.as_ref(), &self.gateway, &config)
            .await;
        outcome.unwrap_or_else(|error| {
            panic!("{error:?}: {:?}", self.runtime.log().tail(20));
        })
    }

    pub(crate) fn on_disk(&self) -> Value {
        let bytes = std::fs::read(self.config_path()).expect("the configuration");
        serde_json::from_slice(&bytes).expect("JSON")
    }

    pub(crate) fn config_path(&self) -> PathBuf {
        self.place.config_path()
    }

    /// Waits until the gateway has accepted a file with this content.
    pub(crate) async fn until_accepted(&self, content: &str) {
        let copy = self.place.state_dir().join("openclaw.json.last-good");
        let accepted = async {
            while std::fs::read(&copy).ok().as_deref() != Some(content.as_bytes()) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(30), accepted).await;
        assert!(
            waited.is_ok(),
            "not accepted: {:?}",
            self.runtime.log().tail(20)
        );
    }

    pub(crate) fn calls(&self) -> u32 {
        self.model_calls.load(Ordering::SeqCst)
    }

    pub(crate) fn log_end(&self) -> Since {
        self.runtime.log().end()
    }

    /// What the gateway printed of its configuration since then.
    pub(crate) fn said_since(&self, since: &mut Since) -> Vec<String> {
        let mut lines = self.runtime.log().read(since).expect("the log");
        lines.retain(|line| line.contains("config"));
        lines
    }

    /// The process on record.
    pub(crate) fn recorded_process(&self) -> i32 {
        let record = std::fs::read(self.place.process_record()).expect("the record");
        let record: Value = serde_json::from_slice(&record).expect("JSON");
        let process = record.get("process").unwrap_or(&record);
        let pid = process["pid"].as_i64().expect("a pid");
        i32::try_from(pid).expect("a pid")
    }

    /// All living processes that were started with this gateway's environment.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let mark = format!("OPENCLAW_CONFIG_PATH={}", self.config_path().display());
        let bears = |pid: &i32| {
            std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
                environ
                    .split(|byte| *byte == 0)
                    .any(|entry| entry == mark.as_bytes())
            })
        };
        let mut found: Vec<_> = std::fs::read_dir("/proc")
            .expect("/proc")
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(bears)
            .collect();
        found.sort_unstable();
        found
    }

    pub(crate) async fn end(&self) {
        self.runtime
            .stop(Duration::from_millis(500))
            .await
            .expect("stop");
    }
}

impl Drop for Bench {
    /// A failed test ends its gateway too: a real one takes a gigabyte.
    fn drop(&mut self) {
        for pid in self.processes() {
            // It may have ended meanwhile, which is as good.
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
    }
}

/// A port that is free on the address and on 127.0.0.1, which OpenClaw takes as well.
///
/// Below the kernel's ephemeral range: from there, any connection of the machine could take it
/// between this look and the gateway's start. Tests run as processes, so the pid tells them apart.
fn free_port(address: IpAddr) -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let own = std::process::id().wrapping_mul(8) % 10_000;
    (0..10_000)
        .map(|_| 20_000 + (own + NEXT.fetch_add(1, Ordering::SeqCst)) % 10_000)
        .filter_map(|port| u16::try_from(port).ok())
        .find(|port| {
            [address, [127, 0, 0, 1].into()]
                .iter()
                .all(|ip| std::net::TcpListener::bind((*ip, *port)).is_ok())
        })
        .expect("a free port")
}

/// A place at a free port, without what depends on what the gateway runs as.
fn bare_place(folder: &TempDir) -> Place {
    Place {
        gateway: SocketAddr::new(OWN_ADDRESS.into(), free_port(OWN_ADDRESS.into())),
        source: Some(OWN_ADDRESS.into()),
        trusted_proxies: Vec::new(),
        relay: String::new(),
        home: folder.path().join("home"),
        records: folder.path().join("records"),
        inside: None,
    }
}

fn stub_schema(folder: &TempDir) -> PathBuf {
    let schema = json!({
        "type": "object", "additionalProperties": false,
        "patternProperties": {"^(gateway|models|agents|plugins|discovery|telemetry|update|logging|ui|meta|messages|browser|hooks)$": {"type": "object"}},
    });
    let path = folder.path().join("schema.json");
    std::fs::write(&path, schema.to_string()).expect("write the schema");
    path
}

fn owned(switches: &[(&str, &str)]) -> BTreeMap<String, String> {
    let switches = switches.iter();
    switches
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}
