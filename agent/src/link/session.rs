//! One session: from dialling to the loss of the connection.
//!
//! One task reads the control stream, writes it and waits for everything else; nothing it does takes
//! time. What takes time (the desk's answers, renewals, log requests) is a chore of a set that dies with
//! the session.

use std::time::Duration;

use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use tidepool_certs::tls::{self, TlsError};
use tidepool_shared::{
    capability::{self, close},
    document::{Digest, Generation, SealedDocument},
    frame::{Frame, Kind},
    message::{
        AgentOutcome, Desired, Hello, Phase, Ping, Pong, Stats, Unsupported, Verdict, WantedAgent,
        Welcome,
    },
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::{
    Config, Dialled, Ended, Line, Memory, announce_certificate,
    dial::DialError,
    logs,
    renewal::{self, RenewError},
    report,
    wire::{self, FrameReader, WireError},
};
use crate::{
    desk::{Request, View},
    door::Door,
    identity::Identity,
};

mod door;

/// How long the desk may take to show that it lives, before a ping goes unanswered.
const PULSE_DEADLINE: Duration = Duration::from_secs(5);

/// Requests from the coordinator that may be under way at once; the rest of what QUIC permits waits.
const MAX_REQUESTS: usize = 4;

/// Silent ping intervals after which the coordinator's program counts as dead.
const SILENT_PINGS: u32 = 4;

/// No ping interval is taken for shorter than this.
const SHORTEST_SILENCE: Duration = Duration::from_secs(20);

/// The longest reconnect spread that a coordinator may ask for.
const LONGEST_SPREAD: Duration = Duration::from_mins(10);

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error("set up TLS")]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("open control stream")]
    Stream(#[from] ConnectionError),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("coordinator answered the hello with kind {0}")]
    NotWelcome(u16),
    #[error(
        "coordinator needs capability {needed}, this agent has {}",
        capability::CURRENT
    )]
    TooOld { needed: u32 },
    #[error("the agent's desk is gone")]
    Desk,
}

/// Dials, says hello and serves until the connection ends.
pub(super) async fn run(
    config: &mut Config,
    memory: &mut Memory,
    desk: &mpsc::Sender<Request>,
    view: &mut watch::Receiver<View>,
    cancel: &CancellationToken,
) -> Ended {
    let openclaw = view.borrow().openclaw.version.clone();
    let opened = tokio::select! {
        opened = timeout(config.pace.connect_deadline, open(config, memory, desk, &openclaw)) => opened,
        () = cancel.cancelled() => return Ended::Stopped,
    };
    let (dialled, send, reader, welcome) = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => return Ended::Refused { why: chain(&error) },
        Err(_) => {
            return Ended::Refused {
                why: "no welcome in time".into(),
            };
        }
    };
    memory.last_epoch = welcome.epoch;
    memory.spread = millis(welcome.reconnect_spread_ms).min(LONGEST_SPREAD);
    info!(link.epoch = welcome.epoch, "link is up");
    config.status.send_modify(|status| {
        status.epoch = Some(welcome.epoch);
        status.sessions += 1;
    });
    let line = Line(dialled.connection.clone());
    config.line.send_replace(Some(line));
    let silence = (welcome.ping_interval_ms > 0)
        .then(|| (millis(welcome.ping_interval_ms) * SILENT_PINGS).max(SHORTEST_SILENCE));
    let mut session = Session {
        config,
        memory,
        desk,
        connection: dialled.connection.clone(),
        send,
        epoch: welcome.epoch,
        chores: JoinSet::new(),
        offering: false,
        next_offer: None,
        pulsing: false,
        requests: 0,
        renewing: false,
        stats: Wish::Unknown,
        door: Question::None,
        silence,
    };
    let ended = session.serve(reader, view, cancel).await;
    drop(session);
    let (code, word) = match &ended {
        Ended::Stopped => (close::GOODBYE, "agent stops"),
        Ended::Lost { .. } | Ended::Refused { .. } => (close::BROKEN, "agent gave this link up"),
    };
    dialled.close(code, word).await;
    ended
}

async fn open(
    config: &Config,
    memory: &Memory,
    desk: &mpsc::Sender<Request>,
    openclaw: &str,
) -> Result<(Dialled, SendStream, FrameReader, Welcome), OpenError> {
    let identity = &config.identity;
    let tls = tls::client_link(&config.root, identity.chain.clone(), &identity.key)?;
    let dialled = super::dial(config.local, config.coordinators.at(memory.attempts), tls).await?;
    let (reply, held) = oneshot::channel();
    desk.send(Request::Held { reply })
        .await
        .map_err(|_| OpenError::Desk)?;
    let hello = Hello {
        capability: capability::CURRENT,
        minimum: capability::MINIMUM,
        server: identity.server.to_string(),
        boot: config.boot,
        agent_version: config.agent_version.clone(),
        openclaw_version: openclaw.to_owned(),
        held: held.await.map_err(|_| OpenError::Desk)?,
        last_epoch: memory.last_epoch,
    };
    let (mut send, recv) = dialled.connection.open_bi().await?;
    wire::write(&mut send, &hello).await?;
    let mut reader = FrameReader::new(recv);
    let frame = reader.answer().await?;
    if frame.kind != Kind::WELCOME {
        return Err(OpenError::NotWelcome(frame.kind.0));
    }
    let welcome: Welcome = frame.message().map_err(WireError::from)?;
    if welcome.minimum > capability::CURRENT {
        return Err(OpenError::TooOld {
            needed: welcome.minimum,
        });
    }
    Ok((dialled, send, reader, welcome))
}

/// What a chore brought.
enum Chore {
    Offered(Verdict),
    /// `None`: the desk did not answer in time.
    Pulsed(Option<Pong>),
    Answered,
    Renewed(Box<Result<Identity, RenewError>>),
    Door(Result<Door, RenewError>),
}

/// What the coordinator is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    None,
    Asked,
}

/// Whether the coordinator wants to be told what the server takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// It has not said that it does not.
    Unknown,
    /// It is older than such frames.
    None,
}

struct Session<'a> {
    config: &'a mut Config,
    memory: &'a mut Memory,
    desk: &'a mpsc::Sender<Request>,
    connection: Connection,
    send: SendStream,
    epoch: u64,
    chores: JoinSet<Chore>,
    /// A document is at the desk; only the newest of those that came meanwhile is kept.
    offering: bool,
    next_offer: Option<Desired>,
    pulsing: bool,
    requests: usize,
    renewing: bool,
    stats: Wish,
    door: Question,
    /// How long the coordinator's program may be silent, if it promised to speak.
    silence: Option<Duration>,
}

impl Session<'_> {
    async fn serve(
        &mut self,
        mut reader: FrameReader,
        view: &mut watch::Receiver<View>,
        cancel: &CancellationToken,
    ) -> Ended {
        match self.turn(&mut reader, view, cancel).await {
            Ok(ended) => ended,
            Err(error) => match self.connection.close_reason() {
                Some(reason) => ended_by(&reason),
                None => Ended::Lost { why: chain(&error) },
            },
        }
    }

    /// Every branch of the `select!` is cancel-safe; the bodies run to their end.
    async fn turn(
        &mut self,
        reader: &mut FrameReader,
        view: &mut watch::Receiver<View>,
        cancel: &CancellationToken,
    ) -> Result<Ended, WireError> {
        self.report(view).await?;
        self.tell_stats().await?;
        let mut outcome = self.config.updates.outcome.clone();
        outcome.mark_changed();
        let mut heard = Instant::now();
        let mut renew_at = self.next_renewal();
        let mut door_at = self.next_door();
        loop {
            let silent_at = self.silence.map(|silence| heard + silence);
            tokio::select! {
                frame = reader.next() => {
                    heard = Instant::now();
                    match frame? {
                        Some(frame) => self.handle(&frame).await?,
                        None => return Ok(Ended::Lost { why: "control stream ended".into() }),
                    }
                }
                changed = view.changed() => match changed {
                    Ok(()) => self.report(view).await?,
                    Err(_) => return Ok(Ended::Stopped),
                },
                Ok(()) = self.config.stats.changed() => self.tell_stats().await?,
                Ok(()) = outcome.changed() => {
                    let ended = outcome.borrow_and_update().clone();
                    if let Some(ended) = ended {
                        wire::write(&mut self.send, &told(ended)).await?;
                    }
                }
                Some(done) = self.chores.join_next() => match done {
                    Ok(Chore::Renewed(renewed)) => {
                        self.renewed(*renewed);
                        renew_at = self.next_renewal();
                    }
                    Ok(Chore::Door(door)) => {
                        self.has_door(door);
                        door_at = self.next_door();
                        self.report(view).await?;
                    }
                    Ok(chore) => self.finish(chore).await?,
                    Err(failure) => {
                        error!(error = %failure, "a chore of the link failed");
                        return Ok(Ended::Lost { why: "chore failed".into() });
                    }
                },
                stream = self.connection.accept_bi(), if self.requests < MAX_REQUESTS => {
                    match stream {
                        Ok((send, recv)) => self.answer(send, recv),
                        Err(reason) => return Ok(ended_by(&reason)),
                    }
                }
                () = sleep_until(renew_at), if !self.renewing => self.renew(),
                () = sleep_until(door_at), if self.door == Question::None => self.ask_for_door(),
                () = sleep_until(silent_at.unwrap_or_else(Instant::now)), if silent_at.is_some() => {
                    return Ok(Ended::Lost { why: "coordinator is silent".into() });
                }
                () = cancel.cancelled() => return Ok(Ended::Stopped),
            }
        }
    }

    async fn report(&mut self, view: &mut watch::Receiver<View>) -> Result<(), WireError> {
        let mut report = report::of(&view.borrow_and_update(), self.epoch);
        // Nobody could be led here: an edge finds no certificate.
        if report.phase == Phase::Warm && self.config.door.is_none() {
            report.phase = Phase::WarmingUp;
        }
        wire::write(&mut self.send, &report).await
    }

    async fn tell_stats(&mut self) -> Result<(), WireError> {
        let look = *self.config.stats.borrow_and_update();
        match look {
            Some(look) if self.stats == Wish::Unknown => {
                let stats = Stats {
                    epoch: self.epoch,
                    gateway: look.gateway,
                    host: look.host,
                };
                wire::write(&mut self.send, &stats).await
            }
            Some(_) | None => Ok(()),
        }
    }

    async fn handle(&mut self, frame: &Frame) -> Result<(), WireError> {
        match frame.kind {
            Kind::DESIRED => {
                let desired: Desired = frame.message()?;
                if desired.epoch != self.epoch {
                    warn!(
                        link.epoch = desired.epoch,
                        "document of another session skipped"
                    );
                } else if self.offering {
                    self.next_offer = Some(desired);
                } else {
                    self.offer(desired);
                }
            }
            // One pulse at a time: a desk that is stuck is asked once, not once per ping.
            Kind::PING if !self.pulsing => {
                let Ping { sequence } = frame.message()?;
                self.pulsing = true;
                let desk = self.desk.clone();
                self.chores
                    .spawn(async move { Chore::Pulsed(pulse(&desk, sequence).await) });
            }
            Kind::PING => {}
            Kind::WANTED_AGENT => {
                let wanted: WantedAgent = frame.message()?;
                if wanted.epoch == self.epoch {
                    self.config.updates.want(wanted);
                }
            }
            Kind::UNSUPPORTED => {
                let Unsupported { kind } = frame.message()?;
                if Kind(kind) == Kind::STATS {
                    self.stats = Wish::None;
                }
                info!(
                    frame.kind = kind,
                    "coordinator does not know a kind of frame"
                );
            }
            Kind(kind) => wire::write(&mut self.send, &Unsupported { kind }).await?,
        }
        Ok(())
    }

    fn answer(&mut self, send: SendStream, recv: RecvStream) {
        self.requests += 1;
        let desk = self.desk.clone();
        self.chores.spawn(async move {
            if let Err(error) = logs::answer(send, recv, desk).await {
                debug!(error = %chain(&error), "request not answered");
            }
            Chore::Answered
        });
    }

    fn offer(&mut self, desired: Desired) {
        self.offering = true;
        let desk = self.desk.clone();
        self.chores.spawn(async move {
            let generation = desired.generation;
            let refused = offer(&desk, desired).await.err();
            Chore::Offered(Verdict {
                generation,
                refused: refused.map(|reason| report::cut(&reason)),
            })
        });
    }

    async fn finish(&mut self, chore: Chore) -> Result<(), WireError> {
        match chore {
            Chore::Offered(verdict) => {
                self.offering = false;
                if let Some(reason) = &verdict.refused {
                    let generation = verdict.generation;
                    warn!(document.generation = generation, %reason, "document refused");
                }
                wire::write(&mut self.send, &verdict).await?;
                if let Some(next) = self.next_offer.take() {
                    self.offer(next);
                }
            }
            Chore::Pulsed(pong) => {
                self.pulsing = false;
                if let Some(pong) = pong {
                    wire::write(&mut self.send, &pong).await?;
                } else {
                    warn!("the agent's desk does not answer; the ping goes unanswered");
                }
            }
            Chore::Answered => self.requests = self.requests.saturating_sub(1),
            Chore::Renewed(renewed) => self.renewed(*renewed),
            Chore::Door(door) => self.has_door(door),
        }
        Ok(())
    }

    fn next_renewal(&self) -> Instant {
        let due = renewal::due_in(self.config.identity.leaf.life, rand::random());
        (Instant::now() + due).max(self.memory.renew_not_before)
    }

    fn renew(&mut self) {
        self.renewing = true;
        self.memory.renew_not_before = Instant::now() + self.config.pace.renewal_pause;
        let connection = self.connection.clone();
        let server = self.config.identity.server;
        let machine_id = self.config.identity.machine_id.clone();
        let dir = self.config.identity_dir.clone();
        self.chores.spawn(async move {
            let renewed = match renewal::ask(connection, server, machine_id).await {
                Ok(identity) => tokio::task::spawn_blocking(move || {
                    identity.save(&dir).map_err(RenewError::from)?;
                    Ok(identity)
                })
                .await
                .unwrap_or(Err(RenewError::Cut)),
                Err(error) => Err(error),
            };
            Chore::Renewed(Box::new(renewed))
        });
    }

    fn renewed(&mut self, renewed: Result<Identity, RenewError>) {
        self.renewing = false;
        match renewed {
            Ok(identity) => {
                info!(
                    certificate.serial = identity.leaf.serial,
                    "certificate renewed"
                );
                self.config.identity = identity;
                announce_certificate(self.config);
            }
            Err(failure) if renewal::is_late(self.config.identity.leaf.life) => {
                error!(error = %chain(&failure), "certificate not renewed and nearly over");
            }
            Err(failure) => warn!(error = %chain(&failure), "certificate not renewed yet"),
        }
    }
}

/// An outcome that fits a frame, whatever a program has said.
fn told(outcome: AgentOutcome) -> AgentOutcome {
    AgentOutcome {
        reason: outcome.reason.map(|reason| report::cut(&reason)),
        ..outcome
    }
}

async fn pulse(desk: &mpsc::Sender<Request>, sequence: u64) -> Option<Pong> {
    let asked = async {
        let (reply, answer) = oneshot::channel();
        desk.send(Request::Pulse { reply }).await.ok()?;
        answer.await.ok()
    };
    let Generation(generation) = timeout(PULSE_DEADLINE, asked).await.ok().flatten()?;
    Some(Pong {
        sequence,
        generation,
    })
}

async fn offer(desk: &mpsc::Sender<Request>, desired: Desired) -> Result<(), String> {
    let instance = desired
        .instance
        .parse()
        .map_err(|_| "the instance's id is malformed".to_owned())?;
    let document = SealedDocument {
        instance,
        generation: Generation(desired.generation),
        digest: Digest(desired.digest),
        bytes: desired.bytes,
    };
    let (reply, answer) = oneshot::channel();
    let gone = || "the agent is stopping".to_owned();
    desk.send(Request::Offer { document, reply })
        .await
        .map_err(|_| gone())?;
    answer.await.map_err(|_| gone())?
}

fn ended_by(reason: &ConnectionError) -> Ended {
    let why = reason.to_string();
    match reason {
        ConnectionError::ApplicationClosed(closed)
            if [close::REFUSED, close::SUPERSEDED]
                .map(Into::into)
                .contains(&closed.error_code) =>
        {
            Ended::Refused { why }
        }
        _ => Ended::Lost { why },
    }
}

fn millis(ms: u32) -> Duration {
    Duration::from_millis(ms.into())
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
