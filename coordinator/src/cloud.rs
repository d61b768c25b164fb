//! The cloud seam: where servers come from and go to.
//!
//! A server's unique name is the idempotency key: the name is committed to the store before the cloud
//! is asked, so that whatever happened in between can be found again by it. Local and real clouds run
//! the same agent; only this trait's implementations differ.

use std::net::IpAddr;

use async_trait::async_trait;
use tidepool_shared::user_data::UserData;

pub mod local;

/// A server to be made.
#[derive(Debug, Clone)]
pub struct Order {
    /// Unique for ever.
    pub name: String,
    pub user_data: UserData,
}

/// A server as the cloud knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudServer {
    /// The cloud's own id.
    pub id: String,
    pub name: String,
    pub address: IpAddr,
}

/// The cloud did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("cloud: {doing} `{server}`")]
pub struct CloudError {
    pub doing: &'static str,
    pub server: String,
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// A cloud.
#[async_trait]
pub trait Cloud: Send + Sync + 'static {
    /// Makes a server, or finds the one that an earlier try with this name made.
    async fn create(&self, order: &Order) -> Result<CloudServer, CloudError>;
    /// The server of this name, if there is one.
    async fn find(&self, name: &str) -> Result<Option<CloudServer>, CloudError>;
    /// Deletes the server of this name. That it is gone already is success.
    async fn delete(&self, name: &str) -> Result<(), CloudError>;
}
