//! The fake provider's machines, whole ones.

use std::{
    collections::BTreeMap,
    io,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use anyhow::Context as _;
use async_trait::async_trait;

use super::{Accelerator, disk::Disk, network::Network, vm::Vm};
use crate::fake_hetzner::{Machines, ServerId};

/// Places at the switch; DHCP knows as many.
const NUMBERS: std::ops::RangeInclusive<u8> = 2..=9;

/// Machines by their servers.
#[derive(Debug)]
pub(super) struct Vms {
    dir: PathBuf,
    disk: Disk,
    accelerator: Accelerator,
    /// The switch, whose metadata service needs the provider, which needs this.
    network: OnceLock<Arc<Network>>,
    all: Mutex<BTreeMap<ServerId, Arc<Vm>>>,
    /// Held while a place is looked for and taken.
    making: tokio::sync::Mutex<()>,
}

impl Vms {
    pub(super) fn new(dir: PathBuf, disk: Disk, accelerator: Accelerator) -> Self {
        Self {
            dir,
            disk,
            accelerator,
            network: OnceLock::new(),
            all: Mutex::default(),
            making: tokio::sync::Mutex::default(),
        }
    }

    /// Plugs them in, once, before the first is made.
    pub(super) fn plug_into(&self, network: Arc<Network>) {
        self.network.get_or_init(|| network);
    }

    /// All there are, off ones included, in the order of their making.
    pub(super) fn all(&self) -> Vec<Arc<Vm>> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ServerId, Arc<Vm>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn network(&self) -> anyhow::Result<&Arc<Network>> {
        self.network.get().context("no switch yet")
    }

    fn vm(&self, server: ServerId) -> anyhow::Result<Arc<Vm>> {
        self.lock().get(&server).cloned().context("no such machine")
    }

    async fn make(&self, server: ServerId) -> anyhow::Result<Ipv4Addr> {
        let _making = self.making.lock().await;
        let taken: Vec<_> = self.lock().values().map(|vm| vm.number).collect();
        let number = NUMBERS
            .into_iter()
            .find(|number| !taken.contains(number))
            .context("all places are taken")?;
        let dir = self.dir.join(format!("server-{server}"));
        let (disk, accelerator) = (self.disk.clone(), self.accelerator);
        let vm = Vm::make(dir, server.0, number, disk, accelerator).await?;
        self.lock().insert(server, Arc::new(vm));
        Ok(self.network()?.address(number))
    }
}

#[async_trait]
impl Machines for Vms {
    async fn reserve(&self, server: ServerId, _user_data: &str) -> io::Result<Option<Ipv4Addr>> {
        self.make(server).await.map(Some).map_err(io::Error::other)
    }

    async fn power_on(&self, server: ServerId) -> io::Result<()> {
        let started = async { self.vm(server)?.start(self.network()?).await };
        started.await.map_err(io::Error::other)
    }

    async fn power_off(&self, server: ServerId) -> io::Result<()> {
        let cut = async { self.vm(server)?.cut_power().await };
        cut.await.map_err(io::Error::other)
    }

    async fn remove(&self, server: ServerId) -> io::Result<()> {
        let removed = self.lock().remove(&server);
        match removed {
            Some(vm) => vm.cut_power().await.map_err(io::Error::other),
            None => Ok(()),
        }
    }

    async fn end(&self) -> io::Result<()> {
        for vm in self.all() {
            vm.cut_power().await.map_err(io::Error::other)?;
        }
        self.lock().clear();
        Ok(())
    }
}
