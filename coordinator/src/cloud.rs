//! The cloud seam: where servers come from and go to.
//!
//! A server's unique name is the idempotency key: the name is committed to the store before the cloud
//! is asked, so that whatever happened in between can be found again by it. Local and real clouds run
//! the same agent; only this trait's implementations differ.
//!
//! An error says what to do about it ([`Fault`]), not what went wrong in the cloud's own words: the
//! pool decides by the former, people read the latter in the log.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    time::Duration,
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tidepool_shared::user_data::UserData;

use crate::ambient::Moment;

mod disk;
pub mod hetzner;
pub mod local;
#[cfg(any(test, feature = "test-util"))]
pub mod memory;
pub mod nspawn;
mod price;

pub use price::{Micros, Offer, Orderable, Price, PriceList};

/// What kind of server, and where.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Placement {
    /// In the cloud's own words, such as `cx23`.
    pub server_type: String,
    /// In the cloud's own words, such as `nbg1`.
    pub location: String,
}

/// A server to be made.
#[derive(Debug, Clone)]
pub struct Order {
    /// Unique for ever.
    pub name: String,
    pub placement: Placement,
    /// Beside those by which the cloud's client marks everything that is ours.
    pub labels: Labels,
    pub user_data: UserData,
    /// What it is made from, if not from what [`Cloud::image`] says.
    pub image: Option<String>,
}

/// Key to value, in the cloud's syntax.
pub type Labels = BTreeMap<String, String>;

/// A server as the cloud knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudServer {
    /// The cloud's own id.
    pub id: String,
    pub name: String,
    pub address: IpAddr,
    /// What it was made from: the id of a snapshot.
    pub image: Option<String>,
}

/// Something that servers can be made from.
#[derive(Debug, Clone, PartialEq)]
pub struct CloudImage {
    /// The cloud's own id.
    pub id: String,
    /// By the cloud's clock.
    pub created_at: Moment,
    /// As it is kept, compressed; unknown while it is being made.
    pub size_bytes: Option<u64>,
    /// As far as the cloud knows what is in it.
    pub openclaw_version: Option<String>,
    pub agent_version: Option<String>,
    /// New servers are made from it, where it fits.
    pub is_promoted: bool,
}

/// What a sweep may find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    Server,
    Firewall,
    Snapshot,
    PrimaryAddress,
}

impl ObjectKind {
    /// The word for people and events.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Firewall => "firewall",
            Self::Snapshot => "snapshot",
            Self::PrimaryAddress => "primary_address",
        }
    }
}

/// Something in the cloud that bears our labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudObject {
    pub kind: ObjectKind,
    /// The cloud's own id.
    pub id: String,
    pub name: String,
    pub labels: Labels,
    /// By the cloud's clock.
    pub created_at: Moment,
    /// Something else still needs it: a firewall that is applied, an address that is assigned.
    pub in_use: bool,
}

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No room for this placement: try another one, and this one after a while.
    NoCapacity,
    /// The account's own limit: make nothing for minutes, and tell a person.
    LimitReached,
    /// The credentials are refused: stop everything, and tell a person.
    Unauthorized,
    /// The request itself is wrong: repeating it cannot help.
    Invalid,
    /// It may or may not have happened: look by name before anything else.
    Unknown,
    /// Not now (rate limit, lock, outage): the same again later.
    Busy,
}

/// The cloud did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("cloud: {doing} `{object}`")]
pub struct CloudError {
    pub doing: &'static str,
    /// The name of the server, or the kind of thing.
    pub object: String,
    pub fault: Fault,
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// A cloud.
#[async_trait]
pub trait Cloud: Send + Sync + 'static {
    /// Asks for a server, or finds the one that an earlier try with this name made. Returns as soon
    /// as its id and address are known; it is not up by then.
    async fn create(&self, order: &Order) -> Result<CloudServer, CloudError>;
    /// Waits until all that the creation set off has ended and the server runs. An error means that
    /// it never will, unless its fault is [`Fault::Busy`] or [`Fault::Unknown`].
    async fn settle(&self, name: &str) -> Result<(), CloudError>;
    /// The server of this name, if there is one.
    async fn find(&self, name: &str) -> Result<Option<CloudServer>, CloudError>;
    /// How long after a creation was asked for its server may still appear.
    fn latest_appearance(&self) -> Duration;
    /// What a server of this type that is ordered now would be made from; idle servers of anything else
    /// are replaced. `None` if there is nothing that fits.
    async fn image(&self, server_type: &str) -> Result<Option<String>, CloudError>;
    /// Every image that servers could be made from, whoever made it, oldest first.
    async fn images(&self) -> Result<Vec<CloudImage>, CloudError>;
    /// Whether a server of this type can be made from an image.
    async fn fits(&self, image: &str, server_type: &str) -> Result<bool, CloudError>;
    /// From now on new servers are made from this image, where it fits, and not from the one before, which is
    /// kept. Repeating it is done. One at a time: two at once could leave none.
    async fn promote(&self, image: &str) -> Result<(), CloudError>;
    /// Deletes the server of this name and sees it gone. That it is gone already is success.
    async fn delete(&self, name: &str) -> Result<(), CloudError>;
    /// Everything that bears our labels. Whole or an error: a page that failed voids it, because what
    /// is missing from a list would be taken for gone.
    async fn inventory(&self) -> Result<Vec<CloudObject>, CloudError>;
    /// What the next creations need, put right if it drifted: the firewall, the snapshots. Nothing, where
    /// there are only servers.
    async fn needed(&self) -> Result<HashSet<(ObjectKind, String)>, CloudError> {
        Ok(HashSet::new())
    }
    /// What servers cost now, and where they can be ordered; `None` in a cloud that charges nothing.
    async fn prices(&self) -> Result<Option<PriceList>, CloudError> {
        Ok(None)
    }
    /// Removes something that [`Cloud::inventory`] listed, unless it does not bear our labels any
    /// more. That it is gone already is success.
    async fn remove(&self, object: &CloudObject) -> Result<(), CloudError>;
}
