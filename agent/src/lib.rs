//! The agent: baked into the image, the only program of ours on a customer's server.
//!
//! It enrols once, keeps a link to the coordinator, writes the desired-state document to its disk
//! before acting on it, makes it true, and keeps it true while the coordinator is away.

pub mod agent;
pub mod applied;
pub mod artefact;
pub mod converge;
pub mod desk;
mod disk;
pub mod door;
pub mod enrol;
pub mod gateway;
pub mod identity;
pub mod ledger;
pub mod link;
pub mod lock;
mod machine;
pub mod manifest;
pub mod metadata;
pub mod networks;
pub mod nginx;
pub mod observe;
pub mod openclaw;
mod plain_http;
pub mod program;
pub mod release;
pub mod reload;
pub mod runtime;
pub mod settings;
pub mod slots;
pub mod stats;
pub mod update;
pub mod upgrade;
pub mod watchdog;
