//! Servers of the real image, booted: enrolment, packets, bans, power, copies, trials; and the image's own check.

#[path = "image/check.rs"]
mod check;
#[path = "image/copies.rs"]
mod copies;
#[path = "image/life.rs"]
mod life;
#[path = "image/packets.rs"]
mod packets;
#[path = "image/trial.rs"]
mod trial;
#[path = "image/twice.rs"]
mod twice;
#[path = "image/update.rs"]
mod update;
#[path = "image/visitors.rs"]
mod visitors;
#[path = "image/watchdog.rs"]
mod watchdog;
