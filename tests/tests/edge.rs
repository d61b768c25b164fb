//! The built-in edge as visitors, servers and the coordinator meet it: over real sockets.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "edge/fake.rs"]
mod fake;
#[path = "edge/upstream.rs"]
mod upstream;
#[path = "edge/world.rs"]
mod world;

#[path = "edge/access.rs"]
mod access;
#[path = "edge/closed.rs"]
mod closed;
#[path = "edge/crossing.rs"]
mod crossing;
#[path = "edge/doors.rs"]
mod doors;
#[path = "edge/ends.rs"]
mod ends;
#[path = "edge/latency.rs"]
mod latency;
#[path = "edge/limits.rs"]
mod limits;
#[path = "edge/questions.rs"]
mod questions;
#[path = "edge/real.rs"]
mod real;
#[path = "edge/sign_in.rs"]
mod sign_in;
#[path = "edge/streams.rs"]
mod streams;
