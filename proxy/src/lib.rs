//! The model proxy: OpenClaw on a server asks here, known by nothing but its source address.
//!
//! Its own process, so that a restart of the coordinator never cuts a stream. It reads the store's
//! trust table and writes nothing. So far it has one provider, the built-in demo model, which lets a
//! person chat before any key is configured.

pub mod answer;
mod bodies;
pub mod demo;
pub mod lock;
pub mod prompt;
pub mod refusal;
pub mod server;
mod serving;
pub mod settings;
pub mod trust;
