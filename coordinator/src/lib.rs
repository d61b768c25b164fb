//! The coordinator: the control plane of Tidepool and its operator's command line.
//!
//! The store is the only truth; every other module is a cache of it or an effect. Parts talk through
//! the store and the doorbell, never to each other's state.

pub mod agent_rollouts;
pub mod ambient;
pub mod api;
pub mod artefacts;
mod causes;
pub mod cli;
pub mod cloud;
pub mod config;
pub mod doctor;
pub mod domains;
pub mod doorbell;
pub mod edge;
pub mod files;
pub mod fleet;
pub mod image;
pub mod instance;
pub mod lead;
pub mod link;
pub mod model;
pub mod parts;
pub mod pool;
pub mod presence;
mod process;
pub mod purge;
pub mod ready;
pub mod restless;
pub mod retention;
pub mod routes;
pub mod serve;
mod signals;
pub mod store;
pub mod sweep;
mod two_secrets;
pub mod up;
pub mod upgrades;
