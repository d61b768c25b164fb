//! The Hetzner client against a fake Hetzner over HTTP: everything that has gone wrong for others.

#[path = "hetzner/keeping.rs"]
mod keeping;
#[path = "hetzner/limits.rs"]
mod limits;
#[path = "hetzner/making.rs"]
mod making;
#[path = "hetzner/world.rs"]
mod world;
