//! The desk: the one task that owns the ledger, takes documents in and answers for the agent.
//!
//! The link talks to it by [`Request`]; it never waits for a convergence, so that a pulse is answered
//! while the gateway restarts. What the agent sees goes the other way as the latest [`View`].

use std::sync::Arc;

use tidepool_shared::{
    document::{DesiredDocument, Generation, SealedDocument},
    message::{Health, Held, OpenClawState, Phase, Rejected, Step},
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    converge::chain,
    ledger::{Accepted, Ledger, RejectedDocument},
};

/// Requests that may wait at the desk; the link has at most one of each kind under way.
pub const QUEUE: usize = 16;

/// What the link asks of the agent.
#[derive(Debug)]
pub enum Request {
    /// A document arrived. The answer is given once it is on disk, or says why it was refused.
    Offer {
        document: SealedDocument,
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// Is the program alive, and which generation does it hold?
    Pulse { reply: oneshot::Sender<Generation> },
    /// Which document is in the ledger?
    Held {
        reply: oneshot::Sender<Option<Held>>,
    },
    /// The last lines of the gateway's log, oldest first.
    Logs {
        lines: u32,
        reply: oneshot::Sender<Vec<String>>,
    },
}

/// What the agent sees: a report without its epoch, which only the link knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub phase: Phase,
    pub served: Generation,
    pub observed: Generation,
    pub health: Health,
    pub reasons: Vec<String>,
    pub steps: Vec<Step>,
    pub rejected: Option<Rejected>,
    pub gateway_starts: u64,
    pub openclaw: OpenClawState,
}

impl Default for View {
    fn default() -> Self {
        Self {
            phase: Phase::Starting,
            served: Generation(0),
            observed: Generation(0),
            health: Health::Unknown,
            reasons: Vec::new(),
            steps: Vec::new(),
            rejected: None,
            gateway_starts: 0,
            openclaw: OpenClawState::default(),
        }
    }
}

/// Where the end of the gateway's log comes from.
pub trait LogSource: Send + Sync {
    /// At most so many lines, oldest first.
    fn tail(&self, lines: u32) -> Vec<String>;
}

/// The desk itself.
pub struct Desk {
    ledger: Ledger,
    documents: watch::Sender<Option<Arc<DesiredDocument>>>,
    logs: Arc<dyn LogSource>,
}

impl Desk {
    pub fn new(ledger: Ledger, logs: Arc<dyn LogSource>) -> Self {
        let held = ledger.held().map(|entry| Arc::new(entry.document.clone()));
        Self {
            ledger,
            documents: watch::Sender::new(held),
            logs,
        }
    }

    /// The latest document, for the loops that make it true.
    pub fn documents(&self) -> watch::Receiver<Option<Arc<DesiredDocument>>> {
        self.documents.subscribe()
    }

    /// Answers until everybody who could ask is gone, or until it is told to stop.
    pub async fn run(mut self, mut requests: mpsc::Receiver<Request>, stop: CancellationToken) {
        loop {
            let request = tokio::select! {
                () = stop.cancelled() => return,
                request = requests.recv() => request,
            };
            let Some(request) = request else { return };
            self.answer(request);
        }
    }

    /// An answer that nobody waits for any more is dropped: the link went away and will ask again.
    fn answer(&mut self, request: Request) {
        match request {
            Request::Offer { document, reply } => drop(reply.send(self.take_in(document))),
            Request::Pulse { reply } => {
                let held = self.ledger.held();
                let generation = held.map_or(Generation(0), |entry| entry.sealed.generation);
                reply.send(generation).ok();
            }
            Request::Held { reply } => drop(reply.send(self.held())),
            Request::Logs { lines, reply } => drop(reply.send(self.logs.tail(lines))),
        }
    }

    fn take_in(&mut self, offered: SealedDocument) -> Result<(), String> {
        let (instance, generation) = (offered.instance, offered.generation);
        match self.ledger.accept(offered) {
            Ok(Accepted::Same) => Ok(()),
            Ok(Accepted::New) => {
                tracing::info!(instance.id = %instance, %generation, "document accepted");
                let held = self.ledger.held();
                let document = held.map(|entry| Arc::new(entry.document.clone()));
                self.documents.send_replace(document);
                Ok(())
            }
            Err(error) => {
                let reason = chain(&error);
                match error {
                    // Late or repeated messages are part of life.
                    RejectedDocument::Stale { .. } => {
                        tracing::info!(%generation, reason, "document refused");
                    }
                    RejectedDocument::Foreign { .. }
                    | RejectedDocument::Altered(_)
                    | RejectedDocument::TooLarge(_)
                    | RejectedDocument::Unreadable(_)
                    | RejectedDocument::Persist { .. } => {
                        tracing::error!(instance.id = %instance, %generation, reason, "document refused");
                    }
                }
                Err(reason)
            }
        }
    }

    fn held(&self) -> Option<Held> {
        self.ledger.held().map(|entry| Held {
            instance: entry.sealed.instance.to_string(),
            generation: entry.sealed.generation.0,
            digest: entry.sealed.digest.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use tidepool_shared::{
        document::{EdgeProof, GatewayLimits, Power},
        id::InstanceId,
        networks::Networks,
    };
    use uuid::Uuid;

    use super::*;

    struct NoLogs;

    impl LogSource for NoLogs {
        fn tail(&self, _lines: u32) -> Vec<String> {
            Vec::new()
        }
    }

    fn sealed(generation: u64) -> SealedDocument {
        SealedDocument::seal(&DesiredDocument {
            instance: InstanceId::new(Uuid::from_u128(1)),
            generation: Generation(generation),
            hosts: Vec::new(),
            origins: Vec::new(),
            edge_proof: EdgeProof(String::new()),
            config: serde_json::Value::Null,
            restarts: 0,
            limits: GatewayLimits::default(),
            power: Power::On,
            evictions: 0,
            max_body_bytes: None,
            openclaw: None,
            networks: Networks::default(),
        })
    }

    fn offer(desk: &mut Desk, document: SealedDocument) -> Result<(), String> {
        let (reply, mut answer) = oneshot::channel();
        desk.answer(Request::Offer { document, reply });
        answer.try_recv().unwrap()
    }

    #[test]
    fn the_loops_hear_of_a_document_once_and_after_it_is_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let mut desk = Desk::new(Ledger::open(dir.path()).unwrap(), Arc::new(NoLogs));
        let mut documents = desk.documents();
        offer(&mut desk, sealed(2)).unwrap();
        assert!(documents.has_changed().unwrap());
        let heard = documents.borrow_and_update().clone().unwrap();
        assert_eq!(heard.generation, Generation(2));
        let on_disk = Ledger::open(dir.path()).unwrap();
        assert_eq!(on_disk.held().unwrap().document, *heard);

        offer(&mut desk, sealed(2)).unwrap();
        offer(&mut desk, sealed(1)).unwrap_err();
        assert!(!documents.has_changed().unwrap());
    }

    #[test]
    fn a_new_desk_starts_with_what_the_ledger_holds() {
        let dir = tempfile::tempdir().unwrap();
        let mut desk = Desk::new(Ledger::open(dir.path()).unwrap(), Arc::new(NoLogs));
        offer(&mut desk, sealed(3)).unwrap();
        let mut again = Desk::new(Ledger::open(dir.path()).unwrap(), Arc::new(NoLogs));
        assert!(again.documents().borrow().is_some());
        let (reply, mut answer) = oneshot::channel();
        again.answer(Request::Pulse { reply });
        assert_eq!(answer.try_recv().unwrap(), Generation(3));
        let (reply, mut answer) = oneshot::channel();
        again.answer(Request::Held { reply });
        assert_eq!(
            answer.try_recv().unwrap().unwrap().digest,
            sealed(3).digest.0
        );
    }
}
