//! The agent's parts, made and handed to each other, and their end.
//!
//! What runs on the server is adopted before the link is opened, so that the first report tells the
//! truth. On SIGTERM the link goes first, then the loops, then gateway and nginx: an orderly power-off.
//! After SIGKILL gateway and nginx run on, and the next agent adopts them; one that is to be replaced by
//! another version ends its loops and leaves gateway and nginx alone, too.

use std::{collections::BTreeMap, fs, net::IpAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use rand::TryRngCore as _;
use tidepool_shared::{manifest::ContainerManifest, message::Phase};
use tokio::{
    sync::{Notify, Semaphore, mpsc, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    applied::AppliedFile,
    artefact::Depot,
    converge::{
        board::Board,
        body::{Body, Gateway as _, first_view},
        chain,
        front::Front,
        openclaw::{Maker, NoEdition, OpenClaw},
    },
    desk::{self, Desk, View},
    door::Door,
    enrol,
    identity::{Identity, IdentityError},
    ledger::Ledger,
    link,
    networks::NetworksFile,
    nginx::Nginx,
    observe::Observer,
    openclaw::{Browsers, Place},
    release::{Shelf, Supply},
    runtime::{Bridge, Command, DockerRuntime, ProcessRuntime, Run},
    settings::{IDENTITY_DIR, Settings},
    slots::Slots,
    stats::{self, Looker, Tenancy},
    update::{OwnRelease, Updater},
};

/// For everything to end after SIGTERM; systemd's patience must be longer.
const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// The enrolment token lives for 15 minutes.
const ENROL_WITHIN: Duration = Duration::from_mins(16);
const ENROL_ATTEMPT: Duration = Duration::from_secs(10);

/// The parts of one agent, before they run.
pub struct Agent {
    settings: Settings,
    nginx: Arc<Nginx>,
    gateway: Arc<OpenClaw>,
    board: Arc<Board>,
    desk: Desk,
    applied: AppliedFile,
    release: OwnRelease,
    depot: Arc<Depot>,
    line: watch::Sender<Option<link::Line>>,
}

impl Agent {
    /// Makes the parts and reads what is on disk; starts nothing.
    pub fn new(settings: Settings, release: OwnRelease) -> anyhow::Result<Self> {
        let site = settings.site().context("prepare nginx")?;
        let nginx = Arc::new(Nginx::new(settings.manifest.nginx.clone(), site));
        let (line, fetches) = watch::channel(None);
        let artefacts = settings.own_dir("artefacts");
        let artefacts = artefacts.context("prepare a place for artefacts")?;
        let backoff = link::Pace::default().backoff;
        let depot = Arc::new(Depot::new(artefacts, fetches, backoff));
        let supply = Supply {
            depot: Arc::clone(&depot),
            keys: settings.manifest.release_keys.clone(),
        };
        let gateway = Arc::new(openclaw(&settings, &nginx, Some(supply))?);
        let records = settings.own_dir("ledger").context("prepare ledger")?;
        let ledger = Ledger::open(&records).context("open ledger")?;
        let applied = AppliedFile::open(&records);
        let held = ledger.held().map(|entry| entry.document.generation);
        let openclaw = gateway.standing().state;
        let board = Arc::new(Board::new(View {
            openclaw,
            ..first_view(&applied, held)
        }));
        let desk = Desk::new(ledger, Arc::clone(&gateway) as Arc<dyn desk::LogSource>);
        Ok(Self {
            settings,
            nginx,
            gateway,
            board,
            desk,
            applied,
            release,
            depot,
            line,
        })
    }

    /// Lives until `stop`, and takes gateway and nginx along; or until another version is to be started, and
    /// leaves them.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let (loops, link_stop) = (stop.child_token(), stop.child_token());
        let version = self.release.version;
        let changes = Arc::new(Semaphore::new(1));
        let (updater, ends) = self.updater(link_stop.clone(), &changes);
        // Before anything else can be begun.
        let is_upgrading = self.gateway.standing().stage.is_some();
        let change = is_upgrading.then(|| Arc::clone(&changes).try_acquire_owned().ok());
        let replaced = updater.replaced.clone();
        let documents = self.desk.documents();
        let (wake_front, wake_body) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        // nginx listens on a network that is made here. Without it nginx does not start, and both are
        // tried again.
        if let Err(error) = self.gateway.prepare().await {
            tracing::error!(error = chain(&error), "the gateway's network is not there");
        }
        let mut front = Front {
            nginx: Arc::clone(&self.nginx),
            networks: networks(&self.settings),
            documents: documents.clone(),
            board: Arc::clone(&self.board),
            wake: Arc::clone(&wake_front),
        };
        front.turn().await;
        let body = Body {
            gateway: Arc::clone(&self.gateway),
            applied: self.applied,
            documents: documents.clone(),
            board: Arc::clone(&self.board),
            wake: Arc::clone(&wake_body),
            changes,
            change: change.flatten(),
        };
        let observer = Observer {
            gateway: Arc::clone(&self.gateway),
            nginx: Arc::clone(&self.nginx),
            documents,
            board: Arc::clone(&self.board),
            wake_front,
            wake_body,
        };
        let (ask, asked) = mpsc::channel(desk::QUEUE);
        let tasks = TaskTracker::new();
        tasks.spawn(front.run(loops.clone()));
        tasks.spawn(body.run(loops.clone()));
        tasks.spawn(observer.run(loops.clone()));
        tasks.spawn(self.desk.run(asked, loops.clone()));
        tasks.spawn(updater.run(loops.clone()));
        let looker = looker(&self.settings, Arc::clone(&self.gateway));
        let (looked, stats) = watch::channel(None);
        tasks.spawn(looker.run(self.board.subscribe(), looked, loops.clone()));
        tasks.close();

        let seen = (self.board.subscribe(), stats);
        let outcome = linked(&self.settings, version, (ask, seen, ends), link_stop).await;
        if let Err(error) = &outcome {
            tracing::error!(error = format!("{error:#}"), "no link");
            // A server that cannot enrol is of no use and ends; a customer is served on without us.
            let phase = self.board.subscribe().borrow().phase;
            if phase == Phase::Claimed {
                stop.cancelled().await;
            }
        }
        loops.cancel();
        // Told to stop as well, it is a power-off.
        let stays = replaced.is_cancelled() && !stop.is_cancelled();
        let ended = async {
            tasks.wait().await;
            if !stays {
                tokio::join!(self.gateway.leave(), self.nginx.stop());
            }
        };
        if timeout(STOP_DEADLINE, ended).await.is_err() {
            tracing::error!("not everything ended in time");
        }
        outcome
    }
}

/// What the link and the updater have of each other.
struct Ends {
    line: watch::Sender<Option<link::Line>>,
    updates: link::Updates,
}

impl Agent {
    /// The updater, and the link's ends of it. When another version is to be started, the link ends.
    fn updater(&self, link_stop: CancellationToken, changes: &Arc<Semaphore>) -> (Updater, Ends) {
        let (wish, wanted) = watch::channel(None);
        let (outcome, told) = watch::channel(None);
        let is_on_trial = self.release.trial.is_some();
        let change = is_on_trial.then(|| Arc::clone(changes).try_acquire_owned().ok());
        let updater = Updater {
            slots: Slots::of(&self.settings.state_dir),
            depot: Arc::clone(&self.depot),
            keys: self.settings.manifest.release_keys.clone(),
            release: self.release.clone(),
            wanted,
            view: self.board.subscribe(),
            outcome,
            replaced: link_stop,
            changes: Arc::clone(changes),
            change: change.flatten(),
        };
        let updates = link::Updates {
            wanted: wish,
            outcome: told,
        };
        let line = self.line.clone();
        (updater, Ends { line, updates })
    }
}

/// The disk was another server's: a copy, which must not go on as the first one.
#[derive(Debug, thiserror::Error)]
#[error("refuse to run")]
pub struct Copied(#[source] IdentityError);

/// Whether the identity on this disk, if there is one, is this server's. What else may be wrong with it is found
/// when it is used.
pub fn own_disk(settings: &Settings) -> Result<(), Copied> {
    let Ok(machine) = machine_id(settings) else {
        return Ok(());
    };
    let dir = settings.state_dir.join(IDENTITY_DIR);
    match Identity::load(&dir, settings.user_data.server, &machine) {
        Err(error @ (IdentityError::AnotherMachine | IdentityError::AnotherServer { .. })) => {
            Err(Copied(error))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Ends gateway and nginx of a server whose agent does not run any more.
pub async fn stop_all(settings: &Settings) -> anyhow::Result<()> {
    let nginx = Nginx::new(settings.manifest.nginx.clone(), settings.site()?);
    let gateway = openclaw(settings, &nginx, None)?;
    tokio::join!(gateway.leave(), nginx.stop());
    Ok(())
}

fn openclaw(
    settings: &Settings,
    nginx: &Nginx,
    supply: Option<Supply>,
) -> anyhow::Result<OpenClaw> {
    let manifest = &settings.manifest;
    let bridge = Bridge::of(settings.gateway_port);
    // nginx as the gateway sees it: through a bridge everybody comes from the bridge.
    let proxy = match manifest.container {
        Some(_) => bridge.address(),
        None => settings.address,
    };
    let place = Place {
        gateway: settings.gateway(),
        source: Some(settings.address),
        trusted_proxies: vec![proxy],
        relay: format!("{}/v1", nginx.relay_url()),
        home: settings.own_dir("home").context("prepare the gateway")?,
        records: settings.own_dir("gateway").context("prepare the gateway")?,
        inside: manifest.container.as_ref().map(|container| {
            Run::inside(match container.browsers {
                Some(_) => Browsers::Mounted,
                None => Browsers::None,
            })
        }),
    };
    let shelf = Shelf::new(vec![manifest.baked()], settings.own_dir("releases")?);
    let shelf = match supply {
        Some(supply) => shelf.supplied_by(supply),
        None => shelf,
    };
    let maker = maker(
        settings.user_data.server.to_string(),
        manifest.container.clone(),
        place.clone(),
    );
    let records = settings.own_dir("upgrade")?;
    Ok(OpenClaw::open(place, shelf, maker, &records)?.checking_in_child())
}

/// Only an image is a machine of its own.
fn looker(settings: &Settings, gateway: Arc<OpenClaw>) -> Looker {
    let tenancy = match settings.manifest.build {
        Some(_) => Tenancy::Alone,
        None => Tenancy::Shared,
    };
    Looker::new(gateway, tenancy, settings.state_dir.clone())
}

/// Only an image has the packet filter that they are an exception to.
fn networks(settings: &Settings) -> Option<NetworksFile> {
    let build = settings.manifest.build.as_ref();
    build.map(|_| NetworksFile::of(&settings.state_dir))
}

/// Runs releases in containers if the image does.
fn maker(server: String, container: Option<ContainerManifest>, place: Place) -> Maker {
    Box::new(move |release| {
        let argv = release.gateway.clone();
        Ok(match (&container, &release.container) {
            (Some(container), Some(image)) => Box::new(DockerRuntime::new(Run {
                server: server.clone(),
                manifest: ContainerManifest {
                    image: image.clone(),
                    ..container.clone()
                },
                archive: release.archive.clone(),
                argv,
                place: place.clone(),
                extra_env: BTreeMap::new(),
            })),
            (None, None) => Box::new(ProcessRuntime::new(Command::new(argv, &place))),
            (Some(_), None) | (None, Some(_)) => return Err(NoEdition::OtherKind),
        })
    })
}
/// What is told over the link.
type Seen = (
    watch::Receiver<desk::View>,
    watch::Receiver<Option<stats::Look>>,
);

/// Enrols if need be and keeps the link until `stop`.
async fn linked(
    settings: &Settings,
    version: &str,
    (ask, (view, stats), ends): (mpsc::Sender<desk::Request>, Seen, Ends),
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let identity_dir = settings.own_dir(IDENTITY_DIR).context("prepare identity")?;
    let local: IpAddr = settings.address;
    let enrolment = enrol::Settings {
        identity_dir: identity_dir.clone(),
        machine_id: machine_id(settings)?,
        local,
        manifest: settings.manifest_json.clone(),
        deadline: ENROL_ATTEMPT,
        backoff: link::Pace::default().backoff,
        give_up_after: ENROL_WITHIN,
    };
    let root = enrol::root(&settings.user_data).context("read root certificate")?;
    let identity: Identity = match enrol::ensure(&enrolment, &settings.user_data, &stop).await {
        Ok(identity) => identity,
        Err(enrol::EnrolError::Cancelled) => return Ok(()),
        Err(error) => return Err(error).context("enrol"),
    };
    let door_file = settings
        .door_file()
        .context("find the door's certificate")?;
    let door =
        Door::load(&door_file.path, identity.server).context("read the door's certificate")?;
    let config = link::Config {
        identity,
        door,
        door_file,
        identity_dir,
        root,
        coordinators: settings.user_data.coordinators.clone(),
        local,
        boot: rand::rngs::OsRng
            .try_next_u64()
            .context("draw a boot number")?,
        agent_version: version.to_owned(),
        pace: link::Pace::default(),
        stats,
        status: watch::Sender::new(link::Status::default()),
        line: ends.line,
        updates: ends.updates,
    };
    link::run(config, ask, view, stop).await;
    Ok(())
}

/// What tells this machine from a copy of its disk. `/etc/machine-id` is copied too; the cloud's own id of the
/// server, where there is a cloud, is not.
fn machine_id(settings: &Settings) -> anyhow::Result<String> {
    let text = fs::read_to_string("/etc/machine-id").context("read machine id")?;
    let own = text.trim();
    Ok(match &settings.cloud_instance {
        Some(instance) => format!("{own} {instance}"),
        None => own.to_owned(),
    })
}
