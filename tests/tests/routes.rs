//! Routes in Redis with the real Traefik, the real Redis and a real nginx for all servers: what visitors meet
//! while parts die, hang, forget and change. What decides here is the edge; it is asked by Traefik.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "edge/fake.rs"]
mod fake;
#[path = "routes/rig.rs"]
mod rig;

#[path = "routes/faults.rs"]
mod faults;
#[path = "routes/sign_in.rs"]
mod sign_in;
#[path = "routes/storm.rs"]
mod storm;
