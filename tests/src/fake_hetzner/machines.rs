//! The machines behind the servers: none at all, or real agents on this one.
//!
//! What is wanted of a machine is a level ([`Power`]), not an order: whoever brings it about looks at
//! the latest only, so that a server that is started and deleted at once is never started too late.

use std::{collections::HashMap, io, net::Ipv4Addr, sync::Arc};

use async_trait::async_trait;
use tokio::sync::{Mutex, watch};
use tokio_util::task::TaskTracker;

use super::id::ServerId;

mod local;

pub use self::local::{LocalMachines, LocalMachinesSettings};

/// What is wanted of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Power {
    Off,
    /// The number of the boot: another one is a restart.
    On(u32),
    Gone,
}

/// Where machines come from.
#[async_trait]
pub trait Machines: Send + Sync + 'static {
    /// Sets a machine aside, off. Its address, if it has one of its own.
    async fn reserve(&self, server: ServerId, user_data: &str) -> io::Result<Option<Ipv4Addr>>;
    async fn power_on(&self, server: ServerId) -> io::Result<()>;
    async fn power_off(&self, server: ServerId) -> io::Result<()>;
    /// With its disk. That it is gone already is success.
    async fn remove(&self, server: ServerId) -> io::Result<()>;
    /// Removes all there are, and ends all that serves them.
    async fn end(&self) -> io::Result<()>;
}

/// Servers without machines, with addresses that lead nowhere.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoMachines;

#[async_trait]
impl Machines for NoMachines {
    async fn reserve(&self, _server: ServerId, _user_data: &str) -> io::Result<Option<Ipv4Addr>> {
        Ok(None)
    }

    async fn power_on(&self, _server: ServerId) -> io::Result<()> {
        Ok(())
    }

    async fn power_off(&self, _server: ServerId) -> io::Result<()> {
        Ok(())
    }

    async fn remove(&self, _server: ServerId) -> io::Result<()> {
        Ok(())
    }

    async fn end(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Brings wishes about, one task a machine, so that a slow one delays no other.
pub(super) struct Keeper {
    machines: Arc<dyn Machines>,
    wishes: Mutex<HashMap<ServerId, watch::Sender<Power>>>,
    tasks: TaskTracker,
}

impl Keeper {
    pub(super) fn new(machines: Arc<dyn Machines>) -> Self {
        Self {
            machines,
            wishes: Mutex::default(),
            tasks: TaskTracker::new(),
        }
    }

    pub(super) async fn reserve(
        &self,
        server: ServerId,
        user_data: &str,
    ) -> io::Result<Option<Ipv4Addr>> {
        self.machines.reserve(server, user_data).await
    }

    /// Takes back a reservation that became no server.
    pub(super) async fn release(&self, server: ServerId) {
        report(server, self.machines.remove(server).await);
    }

    pub(super) async fn want(&self, server: ServerId, power: Power) {
        let mut wishes = self.wishes.lock().await;
        let wish = wishes.entry(server).or_insert_with(|| {
            let (wish, wanted) = watch::channel(Power::Off);
            self.tasks
                .spawn(keep(self.machines.clone(), server, wanted));
            wish
        });
        wish.send_replace(power);
        if power == Power::Gone {
            wishes.remove(&server);
        }
    }

    /// Waits for what is under way, then ends every machine.
    pub(super) async fn end(&self) -> io::Result<()> {
        self.wishes.lock().await.clear();
        self.tasks.close();
        self.tasks.wait().await;
        self.machines.end().await
    }
}

/// Makes the latest wish true, until it is the last.
async fn keep(machines: Arc<dyn Machines>, server: ServerId, mut wanted: watch::Receiver<Power>) {
    let mut booted = None;
    while wanted.changed().await.is_ok() {
        let power = *wanted.borrow_and_update();
        let is_restart = matches!(power, Power::On(boot) if booted.is_some_and(|b| b != boot));
        if is_restart || power == Power::Off {
            report(server, machines.power_off(server).await);
            booted = None;
        }
        match power {
            Power::On(boot) => {
                report(server, machines.power_on(server).await);
                booted = Some(boot);
            }
            Power::Off => {}
            Power::Gone => report(server, machines.remove(server).await),
        }
        if power == Power::Gone {
            return;
        }
    }
}

fn report(server: ServerId, done: io::Result<()>) {
    if let Err(error) = done {
        tracing::error!(server.id = server.0, %error, "a machine did not obey");
    }
}
