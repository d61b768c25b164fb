//! One session with one agent: hello, welcome, and then whatever comes.
//!
//! A session is one task. It pushes the document when the store's is newer than the agent's, records
//! what the agent reports, pings the program behind the link, and reads the store again when the bell
//! rings for its server and, in case a ring was lost, on a slow timer. It trusts nothing from the agent
//! but what the certificate proved, and numbers every word with the epoch that the store gave it.

use std::{sync::Arc, time::Duration};

use quinn::{Connection, RecvStream, SendStream};
use tidepool_certs::leaf::Leaf;
use tidepool_shared::{
    capability::{self, close},
    document::{Generation, SealedDocument},
    frame::{Frame, Kind},
    id::ServerId,
    message::{Desired, Held, Hello, Ping, Pong, Report, Stats, Unsupported, Verdict, Welcome},
};
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tracing::{debug, error, info, warn};

use super::{
    Context,
    admission::Admission,
    agents::Told,
    allowance::Allowance,
    document::{self, Step},
    links::{Clones, Entered},
    pace::{Progress, Refusals},
    report::{self, News},
    requests,
    right::{self, Denied},
    wire::{self, FrameReader, WireError},
};
use crate::{causes::chain, model::Server, store::StoreError};

/// How soon the store is tried again after it failed.
const STORE_RETRY: Duration = Duration::from_secs(5);

/// Requests that an agent may have under way; QUIC makes the others wait.
const MAX_REQUESTS: usize = 2;

/// Why a session ended at this end; the peer is told the code and the words.
#[derive(Debug, thiserror::Error)]
enum End {
    /// The agent may not have this session.
    #[error("{0}")]
    Refused(&'static str),
    #[error("a newer session took over")]
    Superseded,
    #[error("agent broke the protocol")]
    Broken(#[from] WireError),
    #[error("agent sends too much")]
    Flood,
    #[error("agent did not answer a ping")]
    Silent,
    #[error("agent ended the session")]
    Finished,
    #[error("store is out of order")]
    Store(#[from] StoreError),
}

impl From<Denied> for End {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Refused(words) => Self::Refused(words),
            Denied::Store(failure) => Self::Store(failure),
        }
    }
}

impl End {
    fn code(&self) -> u32 {
        match self {
            Self::Refused(_) => close::REFUSED,
            Self::Superseded => close::SUPERSEDED,
            Self::Broken(_) | Self::Flood => close::BROKEN,
            Self::Silent => close::SILENT,
            Self::Finished => close::GOODBYE,
            Self::Store(_) => close::TROUBLE,
        }
    }
}

/// Serves a link whose certificate names `leaf`. The admission is given back with the welcome: until then the
/// connection counts as a handshake under way.
pub(super) async fn serve(
    context: Arc<Context>,
    connection: Connection,
    leaf: Leaf,
    admission: Admission,
) {
    let server = leaf.server;
    let from = connection.remote_address().ip();
    if let Err(wait) = context.paces.session(server, from) {
        // Not in the log: that would be what the pace is against.
        debug!(server.id = %server, "too many sessions");
        let hint = format!("too many sessions, come back in {} s", wait.as_secs() + 1);
        return connection.close(close::TROUBLE.into(), hint.as_bytes());
    }
    let hello = timeout(context.settings.hello_deadline, hello(&connection)).await;
    let hello = hello.unwrap_or(Err(End::Refused("no hello in time")));
    // Not under the deadline: cut off in its middle, it would leave the server a holder that has no link.
    let opened = match hello {
        Ok(hello) => open(&context, &connection, server, hello).await,
        Err(end) => Err(end),
    };
    let (mut session, reader) = match opened {
        Ok(opened) => opened,
        Err(end) => return finish(&connection, server, &end),
    };
    drop(admission);
    let epoch = session.epoch;
    let _place = Place {
        context: Arc::clone(&context),
        server,
        epoch,
    };
    info!(server.id = %server, link.epoch = epoch, certificate.serial = leaf.serial, "link is up");
    let end = session.run(reader).await;
    release(&context, &connection, server, epoch).await;
    finish(&connection, server, &end);
}

fn finish(connection: &Connection, server: ServerId, end: &End) {
    // A connection that is closed already keeps its first reason.
    if connection.close_reason().is_none() {
        connection.close(end.code().into(), end.to_string().as_bytes());
    }
    info!(server.id = %server, reason = %chain(end), "link ended");
}

/// Nobody holds the server's link any more, unless a newer session does. When the endpoint was closed the
/// whole coordinator stops: then its heart stops beating, which says it for all its links at once, while
/// a write for each would outlast the time it has.
async fn release(context: &Context, connection: &Connection, server: ServerId, epoch: u64) {
    if connection.close_reason() == Some(quinn::ConnectionError::LocallyClosed) {
        return;
    }
    if let Err(failure) = context.store.close_session(server, epoch).await {
        warn!(server.id = %server, error = %chain(&failure), "link's holder not cleared");
    }
}

/// The session's place among the links; given up however the session ends.
struct Place {
    context: Arc<Context>,
    server: ServerId,
    epoch: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.context.links.leave(self.server, self.epoch);
    }
}

struct Session {
    context: Arc<Context>,
    connection: Connection,
    send: SendStream,
    epoch: u64,
    wake: Arc<Notify>,
    /// The row as this session last saw it.
    server: Server,
    /// What the agent says it holds, or was sent in this session.
    held: Option<Held>,
    /// What it held before the last document was sent.
    held_before: Option<Held>,
    /// The document that the store has for it.
    wanted: Generation,
    /// An alarm is raised once in a session.
    alarmed: Option<&'static str>,
    last_report: Option<Report>,
    progress: Progress,
    refusals: Refusals,
    /// About the agent's own version.
    told: Told,
    /// A report that the store did not take, or that came too soon after others.
    unrecorded: Option<Report>,
    pinged: u64,
    allowance: Allowance,
    requests: JoinSet<()>,
}

/// The first frame of the first stream.
async fn hello(connection: &Connection) -> Result<(SendStream, FrameReader, Hello), End> {
    let broken = |error: quinn::ConnectionError| End::Broken(quinn::ReadError::from(error).into());
    let (send, recv) = connection.accept_bi().await.map_err(broken)?;
    let mut reader = FrameReader::control(recv);
    let frame = reader.expect().await?;
    if frame.kind != Kind::HELLO {
        return Err(End::Refused("a hello comes first"));
    }
    let hello = frame.message().map_err(WireError::from)?;
    Ok((send, reader, hello))
}

/// From the hello to the welcome. Not cancel-safe.
async fn open(
    context: &Arc<Context>,
    connection: &Connection,
    server: ServerId,
    (send, reader, hello): (SendStream, FrameReader, Hello),
) -> Result<(Session, FrameReader), End> {
    let from = connection.remote_address().ip().to_canonical();
    right::to_open(context, &hello, server, from).await?;
    let now = context.clock.now();
    let opened = context
        .store
        .open_session(
            server,
            &hello.openclaw_version,
            context.settings.coordinator,
            now,
        )
        .await?;
    let (epoch, row) = opened.ok_or(right::NOT_SERVED)?;
    context.store.agent_is(server, &hello.agent_version).await?;
    let entered = context.links.enter(server, epoch, connection.clone());
    let Entered::In { wake, clones } = entered else {
        return Err(End::Superseded);
    };
    let mut session = Session {
        context: Arc::clone(context),
        connection: connection.clone(),
        send,
        epoch,
        wake,
        server: row,
        held: hello.held,
        held_before: None,
        wanted: Generation::default(),
        alarmed: None,
        last_report: None,
        progress: Progress::default(),
        refusals: Refusals::default(),
        told: Told::default(),
        unrecorded: None,
        pinged: 0,
        allowance: Allowance::default(),
        requests: JoinSet::new(),
    };
    if let Err(end) = session.welcome(clones).await {
        context.links.leave(server, epoch);
        release(context, connection, server, epoch).await;
        return Err(end);
    }
    Ok((session, reader))
}

impl Session {
    /// Says welcome and sends the document, if there is a newer one.
    async fn welcome(&mut self, clones: Clones) -> Result<(), End> {
        if clones == Clones::Suspected {
            warn!(server.id = %self.server.id, "two machines seem to use one identity");
            let data = serde_json::json!({ "epoch": self.epoch });
            self.context
                .audit("clone_suspected", self.server.id, data)
                .await;
        }
        // Read after the place among the links was taken: from then on a ring is heard, so nothing that
        // was committed before or after this read is missed.
        let wanted = self.context.store.document_for(self.server.id).await?;
        let settings = &self.context.settings;
        let welcome = Welcome {
            epoch: self.epoch,
            time_us: u64::try_from(self.context.clock.now().0).unwrap_or(0),
            ping_interval_ms: millis(settings.ping_interval),
            reconnect_spread_ms: millis(settings.reconnect_spread),
            minimum: capability::MINIMUM,
            current_generation: wanted.as_ref().map_or(0, |wanted| wanted.generation.0),
        };
        wire::write(&mut self.send, &welcome).await?;
        if let Some(wanted) = wanted {
            self.push(wanted).await?;
        }
        self.want().await
    }

    /// Says which version the agent should be.
    async fn want(&mut self) -> Result<(), End> {
        let wanted = self.context.store.wanted_agent(self.server.id).await?;
        Ok(self.told.tell(wanted, self.epoch, &mut self.send).await?)
    }

    async fn run(&mut self, mut reader: FrameReader) -> End {
        match self.turn(&mut reader).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    /// Every branch of the `select!` is cancel-safe; the bodies run to their end.
    async fn turn(&mut self, reader: &mut FrameReader) -> Result<std::convert::Infallible, End> {
        let wake = Arc::clone(&self.wake);
        let interval = self.context.settings.ping_interval;
        // The first of each is spread, so that a fleet that came back together does not beat together.
        let mut ping_at = Instant::now() + self.within(interval);
        let mut recheck_at = Instant::now() + self.within(self.context.settings.recheck_interval);
        let mut pong_due = None;
        loop {
            tokio::select! {
                frame = reader.next() => match frame? {
                    Some(frame) => {
                        if !self.allowance.take(Instant::now()) {
                            return Err(End::Flood);
                        }
                        if self.handle(&frame).await? == Heard::Pong {
                            pong_due = None;
                        }
                        if self.unrecorded.is_some() {
                            recheck_at = recheck_at.min(Instant::now() + STORE_RETRY);
                        }
                    }
                    None => return Err(End::Finished),
                },
                () = wake.notified() => recheck_at = self.recheck().await?,
                () = sleep_until(recheck_at) => recheck_at = self.recheck().await?,
                () = sleep_until(pong_due.unwrap_or(ping_at)) => {
                    if pong_due.is_some() {
                        return Err(End::Silent);
                    }
                    self.pinged += 1;
                    wire::write(&mut self.send, &Ping { sequence: self.pinged }).await?;
                    ping_at = Instant::now() + interval;
                    pong_due = Some(Instant::now() + self.context.settings.ping_deadline);
                }
                stream = self.connection.accept_bi(), if self.requests.len() < MAX_REQUESTS => {
                    let (send, recv) = stream
                        .map_err(|error| WireError::from(quinn::ReadError::from(error)))?;
                    self.answer(send, recv);
                }
                Some(done) = self.requests.join_next() => {
                    if let Err(failure) = done {
                        error!(error = %failure, "a request's task failed");
                    }
                }
            }
        }
    }

    async fn handle(&mut self, frame: &Frame) -> Result<Heard, End> {
        match frame.kind {
            Kind::REPORT => {
                let report: Report = frame.message().map_err(WireError::from)?;
                if report.epoch == self.epoch {
                    self.record(report).await?;
                }
            }
            Kind::STATS => {
                let stats: Stats = frame.message().map_err(WireError::from)?;
                if stats.epoch == self.epoch {
                    self.context.stats.note(self.server.id, &stats);
                }
            }
            Kind::VERDICT => {
                let Verdict {
                    generation,
                    refused,
                } = frame.message().map_err(WireError::from)?;
                let server = self.server.id;
                match refused {
                    None => debug!(server.id = %server, generation, "document is on its server"),
                    Some(reason) => {
                        if let Some(reason) = self.refusals.told(&reason) {
                            error!(server.id = %server, generation, reason, "agent refused a document");
                        }
                        // A full disk may have room later: the next look sends the document again.
                        if self
                            .held
                            .as_ref()
                            .is_some_and(|held| held.generation == generation)
                        {
                            self.held = self.held_before.take();
                        }
                    }
                }
            }
            Kind::PONG => {
                let Pong { sequence, .. } = frame.message().map_err(WireError::from)?;
                if sequence == self.pinged {
                    return Ok(Heard::Pong);
                }
            }
            Kind::AGENT_OUTCOME => {
                let outcome = frame.message().map_err(WireError::from)?;
                let heard = self.told.hear(&self.context, self.server.id, outcome).await;
                if let Err(failure) = heard {
                    // The agent says it again in the next session.
                    warn!(server.id = %self.server.id, error = %chain(&failure), "what became of an agent is not recorded");
                }
            }
            Kind::UNSUPPORTED => {
                let Unsupported { kind } = frame.message().map_err(WireError::from)?;
                debug!(server.id = %self.server.id, frame.kind = kind, "agent does not know a kind");
            }
            Kind(kind) => wire::write(&mut self.send, &Unsupported { kind }).await?,
        }
        Ok(Heard::Other)
    }

    /// Records a report that says something new, and rings for whom it concerns.
    async fn record(&mut self, report: Report) -> Result<(), End> {
        if self.last_report.as_ref() == Some(&report) && self.unrecorded.is_none() {
            return Ok(());
        }
        let is_further = self.progress.advance(&report, self.wanted);
        if !self.context.paces.report(self.server.id) && !is_further {
            debug!(server.id = %self.server.id, "a report waits: there were many");
            self.unrecorded = Some(report);
            return Ok(());
        }
        let store = &self.context.store;
        let now = self.context.clock.now();
        let for_store = report::for_store(&report);
        match store.record_report(self.server.id, &for_store, now).await {
            Ok(Some(after)) => {
                let news = News::of(&report, self.last_report.as_ref());
                for ring in report::rings(&self.server, &after, news) {
                    self.context.doorbell.ring(ring);
                }
                self.server = after;
                self.last_report = Some(report);
                self.unrecorded = None;
                Ok(())
            }
            // The epoch is not the store's any more, or the server is gone: the next look says which.
            Ok(None) => {
                self.wake.notify_one();
                Ok(())
            }
            Err(failure) => {
                warn!(server.id = %self.server.id, error = %chain(&failure), "report not recorded yet");
                self.unrecorded = Some(report);
                Ok(())
            }
        }
    }

    /// Reads the store: may this session go on, and does the agent hold what it should? Returns when to
    /// look again. A store that is out of order ends no session.
    async fn recheck(&mut self) -> Result<Instant, End> {
        match self.look().await {
            Ok(()) => Ok(Instant::now() + self.context.settings.recheck_interval),
            Err(End::Store(failure)) => {
                warn!(server.id = %self.server.id, error = %chain(&failure), "store not read");
                Ok(Instant::now() + STORE_RETRY + self.within(STORE_RETRY))
            }
            Err(end) => Err(end),
        }
    }

    async fn look(&mut self) -> Result<(), End> {
        let id = self.server.id;
        let row = right::served(&self.context, id, right::Occasion::Live).await?;
        if row.epoch > self.epoch {
            return Err(End::Superseded);
        }
        if let Some(report) = self.unrecorded.take() {
            self.record(report).await?;
        }
        if row.instance.is_some()
            && let Some(wanted) = self.context.store.document_for(id).await?
        {
            self.push(wanted).await?;
        }
        self.want().await
    }

    async fn push(&mut self, wanted: SealedDocument) -> Result<(), End> {
        self.wanted = wanted.generation;
        match document::step(self.held.as_ref(), &wanted) {
            Step::Nothing => {}
            Step::Send => {
                self.held_before = self.held.replace(document::holding(&wanted));
                let desired = Desired {
                    epoch: self.epoch,
                    instance: wanted.instance.to_string(),
                    generation: wanted.generation.0,
                    digest: wanted.digest.0,
                    bytes: wanted.bytes,
                };
                wire::write(&mut self.send, &desired).await?;
            }
            Step::Alarm(what) if self.alarmed == Some(what) => {}
            Step::Alarm(what) => {
                self.alarmed = Some(what);
                error!(server.id = %self.server.id, alarm = what, "the agent's document and the store's do not agree");
                let data = serde_json::json!({ "generation": wanted.generation.0 });
                self.context.audit(what, self.server.id, data).await;
            }
        }
        Ok(())
    }

    fn answer(&mut self, send: SendStream, recv: RecvStream) {
        let context = Arc::clone(&self.context);
        let server = self.server.id;
        self.requests.spawn(async move {
            if let Err(failure) = requests::answer(&context, server, send, recv).await {
                debug!(server.id = %server, error = %chain(&failure), "request not answered");
            }
        });
    }

    /// Uniform between nothing and `limit`.
    fn within(&self, limit: Duration) -> Duration {
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.context.chance.below(limit_ms.max(1)))
    }
}

/// What a frame was, as far as the loop needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    Pong,
    Other,
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
