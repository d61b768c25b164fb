//! Another version of OpenClaw on a server that has a customer, and the way back.
//!
//! A new version changes the state that it finds when it starts, and an older one refuses what it has
//! made of it. So the state is copied while nothing runs, and goes back together with the version: a server
//! has one of the two with what belongs to it, never a mixture. Stages, each begun by a line in a
//! [`Journal`] that is on disk before anything is done about it:
//!
//! ```text
//! (nothing)  the version is fetched and made ready while the old one runs; a refusal ends it
//! saving     the gateway is stopped, its state copied aside
//! trying     the new version runs, and must prove itself within a time
//! restoring  it did not: it is stopped, the copy takes the place of the state
//! ```
//!
//! An agent that dies, or a machine that loses its power, goes on at the stage that the journal names, and
//! each can be begun again. One that was cut off too often goes back. An order that failed is not tried
//! again: its number is settled, and only a higher one is an order.
//!
//! The copy stays for some days, because a new version's faults may show late, and an order for its version puts it
//! back. Whatever it takes the place of, be it after a trial or after days, is put aside for as long: nothing that a
//! customer wrote is removed at once, unless the disk is full.

mod journal;
mod saved;
mod trial;

use std::time::Duration;

pub use self::{
    journal::{Discarded, Journal, JournalFile, Kept, UnderWay, UnreadableJournal, UpgradeStage},
    saved::{Amount, Keep, NoRoom, NotSaved, Saved},
    trial::{Failing, Trial},
};

/// How long the state of before is kept.
pub const KEPT_FOR: Duration = Duration::from_hours(3 * 24);
/// How often a stage may be begun again after it was cut off.
pub const MOST_TRIES: u32 = 3;
