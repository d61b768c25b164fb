//! The words about artefacts: which agent is wanted, what became of it, and the fetching.

use minicbor::{Decode, Encode};

/// Which version of itself the agent should be. Said after the welcome and whenever it changes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct WantedAgent {
    #[n(0)]
    pub epoch: u64,
    /// The rollout that wants it. What failed is tried again only by a later one.
    #[n(1)]
    pub rollout: u64,
    /// A [`crate::artefact::SignedArtefact`] as JSON.
    #[n(2)]
    pub signed: String,
    /// How long the new agent has to bring up its link and to be well, in seconds.
    #[n(3)]
    pub trial_s: u32,
}

/// How an agent's update ended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AgentOutcome {
    #[n(0)]
    pub rollout: u64,
    #[n(1)]
    pub ending: Ending,
    /// Why it was refused or taken back, in words for a person.
    #[n(2)]
    pub reason: Option<String>,
}

/// What became of the wanted agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Ending {
    /// It runs, and has passed its trial.
    #[n(0)]
    Kept,
    /// It was never started.
    #[n(1)]
    Refused,
    /// It was started, failed its trial, and the one before it is back.
    #[n(2)]
    RolledBack,
}

/// Agent to coordinator on a stream of its own: an artefact's bytes are wanted from `offset` on.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct FetchArtefact {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub sha256: [u8; 32],
    #[n(1)]
    pub offset: u64,
}

/// Answer to [`FetchArtefact`]: what comes on the stream after this frame are the bytes themselves, from
/// the offset to the end.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ArtefactFollows {
    /// Of the whole artefact, in bytes.
    #[n(0)]
    pub size: u64,
}
