//! What two Tidepool programs must agree on, and nothing else: ids, link frames and messages, the
//! desired-state document, the image manifest. Two parts are no agreements but tools that several
//! programs need alike: [`hops`] and [`quota`].
//!
//! There is no I/O and no runtime here, so that both ends of the link, and any test of either, can
//! use it. Whatever is added is a compatibility promise: see [`capability`] for how it may change.

pub mod admission;
pub mod artefact;
pub mod capability;
pub mod config_schema;
pub mod database_url;
pub mod document;
pub mod frame;
pub mod hops;
pub mod id;
pub mod limits;
pub mod manifest;
pub mod merge_patch;
pub mod message;
pub mod networks;
pub mod openclaw;
pub mod openclaw_version;
pub mod quota;
pub mod release_artefact;
pub mod sealed_place;
pub mod user_data;
