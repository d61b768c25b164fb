//! Machines that are real agents: the local cloud's, started when the server is.
//!
//! A server's user data is what its agent is given, as the local cloud gives it: the JSON of
//! `tidepool_shared::user_data::UserData`. With anything else the agent ends at once and is started
//! again every second, as systemd would on a real server.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use async_trait::async_trait;
use futures_util::future::try_join_all;
use tidepool_coordinator::cloud::{
    Cloud as _,
    local::{LocalCloud, LocalSettings},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Machines;
use crate::{
    deployment::{end_processes_of, processes_of},
    fake_hetzner::id::ServerId,
};

/// What local machines are made of.
pub type LocalMachinesSettings = LocalSettings;

/// Agents on this machine. Dropping it kills every one of them and what they run.
#[derive(Debug)]
pub struct LocalMachines {
    cloud: LocalCloud,
    directory: PathBuf,
    cancel: CancellationToken,
    supervision: TaskTracker,
}

impl LocalMachines {
    /// Opens the directory and keeps the agents in it running.
    pub fn start(settings: LocalMachinesSettings) -> io::Result<Self> {
        let directory = settings.directory.clone();
        let cloud = LocalCloud::open(settings)?;
        let cancel = CancellationToken::new();
        let supervision = TaskTracker::new();
        let (supervised, until) = (cloud.clone(), cancel.clone());
        supervision.spawn(async move { supervised.supervise(until).await });
        Ok(Self {
            cloud,
            directory,
            cancel,
            supervision,
        })
    }

    /// The directory of a server's machine.
    pub fn directory(&self, server: ServerId) -> PathBuf {
        self.directory.join(name(server))
    }

    /// Ids of the processes of all machines.
    pub fn processes(&self) -> Vec<i32> {
        processes_of(&self.directory)
    }
}

/// By its id: the name of a server may be used again while the former machine still ends.
fn name(server: ServerId) -> String {
    format!("server-{server}")
}

#[async_trait]
impl Machines for LocalMachines {
    async fn reserve(&self, server: ServerId, user_data: &str) -> io::Result<Option<Ipv4Addr>> {
        let name = name(server);
        let made = self.cloud.reserve(&name, user_data.as_bytes()).await?;
        match made.address {
            IpAddr::V4(address) => Ok(Some(address)),
            IpAddr::V6(_) => Ok(None),
        }
    }

    async fn power_on(&self, server: ServerId) -> io::Result<()> {
        self.cloud.boot(&name(server)).await
    }

    async fn power_off(&self, server: ServerId) -> io::Result<()> {
        self.cloud.shut_down(&name(server)).await
    }

    async fn remove(&self, server: ServerId) -> io::Result<()> {
        let deleted = self.cloud.delete(&name(server)).await;
        deleted.map_err(io::Error::other)
    }

    async fn end(&self) -> io::Result<()> {
        self.cancel.cancel();
        self.supervision.close();
        self.supervision.wait().await;
        let left = self.cloud.inventory().await.map_err(io::Error::other)?;
        let deletions = left.iter().map(|server| self.cloud.delete(&server.name));
        try_join_all(deletions).await.map_err(io::Error::other)?;
        Ok(())
    }
}

impl Drop for LocalMachines {
    fn drop(&mut self) {
        self.cancel.cancel();
        end_processes_of(&self.directory);
    }
}
