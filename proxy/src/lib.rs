//! The model proxy: OpenClaw on a server asks here, known by nothing but its source address.
//!
//! Its own process, so that a restart of the coordinator never cuts a stream. It keeps the few tables
//! it needs in memory ([`directory`]), passes requests and answers through ([`forward`], [`sse`]), reads along
//! what they cost ([`usage`], [`price`]) and writes one row an attempt ([`ledger`]). As long as no provider is
//! configured the built-in demo model answers, so that a person can chat at once.

mod account;
pub mod answer;
mod asked;
mod bodies;
mod breaker;
pub mod budget;
pub mod catalog;
mod database;
pub mod demo;
pub mod dialect;
pub mod directory;
pub mod files;
pub mod forward;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod generation;
mod headers;
pub mod ledger;
pub mod limits;
pub mod lock;
pub mod metrics;
mod models;
pub mod price;
pub mod prompt;
pub mod rates;
pub mod refusal;
mod relay;
pub mod server;
mod serving;
pub mod settings;
pub mod splice;
pub mod sse;
pub mod tail;
mod tokens;
pub mod upstream;
pub mod usage;
pub mod workers;
