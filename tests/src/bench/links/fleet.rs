//! The agents' ends: the real links, each with a desk that takes whatever it is offered and counts it.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::Context as _;
use rustls::pki_types::CertificateDer;
use tidepool_agent::{
    desk::{QUEUE, Request, View},
    door::{Door, DoorFile},
    identity::Identity,
    link::{self, Pace, Status, Updates},
};
use tidepool_certs::{
    authority::{Authority, LEAF_LIFE},
    request::{AgentKey, CheckedRequest},
};
use tidepool_shared::{
    document::{Generation, SealedDocument},
    id::ServerId,
    message::{Health, Held, Phase},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// What every agent says that it runs.
pub(super) const OPENCLAW: &str = "2026.9.6";

const MACHINE: &str = "bench";

/// An identity for each server, from the authority itself: enrolment is not what is measured.
pub(super) fn identities(
    authority: &Authority,
    servers: Vec<ServerId>,
) -> anyhow::Result<Vec<(Identity, Door)>> {
    tokio::task::block_in_place(|| {
        let issued = servers
            .into_iter()
            .map(|server| identity(authority, server));
        issued.collect()
    })
}

/// With the door that such a server has had since its first link.
fn identity(authority: &Authority, server: ServerId) -> anyhow::Result<(Identity, Door)> {
    let key = AgentKey::generate()?;
    let request = CheckedRequest::check(&key.request()?)?;
    let door = Door::new(
        server,
        &key,
        &authority.door(&request, server, super::now())?,
    )?;
    let chain = authority.issue(&request, server, LEAF_LIFE, super::now())?;
    let identity = Identity::new(server, MACHINE.into(), key, chain)?;
    Ok((identity, door))
}

/// Every agent's link and desk.
pub(super) struct Fleet {
    root: CertificateDer<'static>,
    coordinator: SocketAddr,
    taken_in: watch::Sender<usize>,
    tasks: JoinSet<()>,
    cancel: CancellationToken,
}

impl Fleet {
    pub(super) fn new(root: CertificateDer<'static>, coordinator: SocketAddr) -> Self {
        Self {
            root,
            coordinator,
            taken_in: watch::Sender::new(0),
            tasks: JoinSet::new(),
            cancel: CancellationToken::new(),
        }
    }

    /// Starts one agent, with the usual pace.
    pub(super) fn start(&mut self, (identity, door): (Identity, Door), local: IpAddr, data: &Path) {
        let (desk, requests) = mpsc::channel(QUEUE);
        let (view, seen) = watch::channel(view(Phase::Warm, Generation(0)));
        let config = link::Config {
            door_file: DoorFile {
                path: data.join(identity.server.to_string()).join("door.pem"),
                owner: None,
            },
            identity_dir: data.join(identity.server.to_string()),
            identity,
            door: Some(door),
            root: self.root.clone(),
            coordinators: self.coordinator.into(),
            local,
            boot: 1,
            agent_version: env!("CARGO_PKG_VERSION").into(),
            pace: Pace::default(),
            // They have no machine of their own to tell of.
            stats: watch::Sender::new(None).subscribe(),
            status: watch::Sender::new(Status::default()),
            line: watch::Sender::new(None),
            updates: Updates {
                wanted: watch::Sender::new(None),
                outcome: watch::channel(None).1,
            },
        };
        let cancel = self.cancel.clone();
        self.tasks.spawn(link::run(config, desk, seen, cancel));
        let taken_in = self.taken_in.clone();
        self.tasks.spawn(keep_desk(requests, view, taken_in));
    }

    /// Documents that were offered to any desk so far.
    pub(super) fn taken_in(&self) -> usize {
        *self.taken_in.borrow()
    }

    /// Waits until so many documents were offered.
    pub(super) async fn until_taken_in(
        &self,
        wanted: usize,
        patience: Duration,
    ) -> anyhow::Result<()> {
        let mut taken_in = self.taken_in.subscribe();
        let enough = taken_in.wait_for(|taken_in| *taken_in >= wanted);
        timeout(patience, enough)
            .await
            .context("not every agent was sent its document")??;
        Ok(())
    }

    /// Says goodbye for all of them.
    pub(super) async fn stop(mut self) {
        self.cancel.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Answers for one agent until its link is gone.
async fn keep_desk(
    mut requests: mpsc::Receiver<Request>,
    view: watch::Sender<View>,
    taken_in: watch::Sender<usize>,
) {
    let mut held: Option<Held> = None;
    // An answer that nobody waits for any more is dropped: the link went away and will ask again.
    while let Some(request) = requests.recv().await {
        match request {
            Request::Offer { document, reply } => {
                taken_in.send_modify(|count| *count += 1);
                view.send_replace(self::view(Phase::Claimed, document.generation));
                held = Some(holding(&document));
                drop(reply.send(Ok(())));
            }
            Request::Pulse { reply } => {
                let generation = held.as_ref().map_or(0, |held| held.generation);
                reply.send(Generation(generation)).ok();
            }
            Request::Held { reply } => drop(reply.send(held.clone())),
            Request::Logs { lines: _, reply } => drop(reply.send(Vec::new())),
        }
    }
}

fn holding(document: &SealedDocument) -> Held {
    Held {
        instance: document.instance.to_string(),
        generation: document.generation.0,
        digest: document.digest.0,
    }
}

fn view(phase: Phase, generation: Generation) -> View {
    View {
        phase,
        served: generation,
        observed: generation,
        health: Health::Ok,
        gateway_starts: 1,
        ..View::default()
    }
}
