//! The Hetzner client against a fake Hetzner over HTTP: everything that has gone wrong for others.

#[path = "hetzner/images.rs"]
mod images;
#[path = "hetzner/keeping.rs"]
mod keeping;
#[path = "hetzner/limits.rs"]
mod limits;
#[path = "hetzner/making.rs"]
mod making;
#[path = "hetzner/roll.rs"]
mod roll;
#[path = "hetzner/world.rs"]
mod world;
