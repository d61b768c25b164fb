//! Hetzner Cloud: a small client of exactly the calls that Tidepool makes.
//!
//! It exists because the ready-made clients lack what matters here: a create that leaks nothing, errors
//! told apart by code, a request budget, and one poller for all actions. Hetzner has no idempotency key,
//! so the server's unique name is it: whatever is in doubt is looked up by name, and adopted if it bears
//! our two labels. A thing without them is never touched, whatever it is called.
//!
//! The parts, from the wire up: `transport` and `api` make calls, `limiter` keeps the budget,
//! `code` knows what errors mean, `wire` and `request` are the bodies, `waiter` waits for
//! actions; on them stand `create`, `settle`, `delete`, `firewall`, `inventory`, `prices`.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::{Mutex, Semaphore};

use super::{
    Cloud, CloudError, CloudImage, CloudObject, CloudServer, Labels, ObjectKind, Order, PriceList,
};
use crate::ambient::{Chance, Clock};

mod api;
mod call;
mod code;
mod create;
mod delete;
mod firewall;
mod image;
mod inventory;
mod labels;
mod limiter;
mod pace;
mod prices;
mod request;
mod settings;
mod settle;
#[cfg(test)]
mod tests;
mod transport;
mod trouble;
mod waiter;
mod wire;

use api::{Api, Twice};
use call::Call;
pub use labels::BadLabel;
use labels::Mark;
pub use pace::Pace;
pub use settings::{BadSettings, HetznerSettings, Token};
use transport::Transport;
use trouble::Trouble;
use waiter::ActionWaiter;
use wire::Server;

/// Creations on their way at once. A loop of many more once got somebody's account closed.
const CREATIONS_AT_ONCE: usize = 5;

/// The client of one Project, for one deployment.
pub struct HetznerCloud {
    api: Api,
    settings: HetznerSettings,
    mark: Mark,
    clock: Arc<dyn Clock>,
    waiter: ActionWaiter,
    creations: Semaphore,
    /// The firewall, once it is known to be there and right; also the lock under which it is made.
    firewall: Mutex<Option<u64>>,
    /// By name. What is read of a type does not change.
    types: Mutex<HashMap<String, image::Fit>>,
}

impl HetznerCloud {
    /// Sets the client up; nothing is asked of Hetzner yet.
    pub fn open(
        settings: HetznerSettings,
        clock: Arc<dyn Clock>,
        chance: Arc<Chance>,
    ) -> Result<Self, BadSettings> {
        Self::paced(settings, Pace::REAL, clock, chance)
    }

    /// As [`HetznerCloud::open`], with seconds of another length.
    pub fn paced(
        settings: HetznerSettings,
        pace: Pace,
        clock: Arc<dyn Clock>,
        chance: Arc<Chance>,
    ) -> Result<Self, BadSettings> {
        let endpoint = settings.checked()?;
        let token = settings.token()?;
        let transport = Transport::network(&endpoint, pace).map_err(BadSettings::Client)?;
        let api = Api::new(transport, endpoint, token, pace, chance);
        Ok(Self::over(api, settings, clock))
    }

    fn over(api: Api, settings: HetznerSettings, clock: Arc<dyn Clock>) -> Self {
        Self {
            api,
            mark: Mark::new(&settings.env),
            settings,
            clock,
            waiter: ActionWaiter::default(),
            creations: Semaphore::new(CREATIONS_AT_ONCE),
            firewall: Mutex::new(None),
            types: Mutex::default(),
        }
    }

    /// Makes sure that the firewall is there and admits what it should and nothing else. The first
    /// creation does so too; afterwards it is for the caller to do from time to time.
    pub async fn ensure_firewall(&self) -> Result<(), CloudError> {
        self.firewall_made_right()
            .await
            .map_err(|trouble| trouble.during("ensure", "firewall"))
    }

    /// Replaces a server's labels, beside the two that make it ours. Labels follow the store.
    pub async fn relabel(&self, name: &str, labels: &Labels) -> Result<(), CloudError> {
        self.replace_labels(name, labels)
            .await
            .map_err(|trouble| trouble.during("relabel", name))
    }

    async fn replace_labels(&self, name: &str, labels: &Labels) -> Result<(), Trouble> {
        let labels = self.mark.with(labels)?;
        let server = self.our_server(name).await?.ok_or(Trouble::Absent)?;
        let body = request::ReplaceLabels { labels: &labels };
        let call = Call::put(format!("servers/{}", server.id), &body)?;
        self.api.call(&call, Twice::IsHarmless).await?;
        Ok(())
    }

    /// The server of this name. One that is not ours is trouble: ours cannot exist beside it.
    async fn our_server(&self, name: &str) -> Result<Option<Server>, Trouble> {
        let found: Vec<Server> = self.api.list(&[("name", name)]).await?;
        match found.into_iter().find(|server| server.name == name) {
            Some(server) if !self.mark.is_on(&server.labels) => {
                Err(Trouble::NotOurs(name.to_owned()))
            }
            found => Ok(found),
        }
    }

    async fn find_server(&self, name: &str) -> Result<Option<CloudServer>, Trouble> {
        let found = self.our_server(name).await?;
        found
            .map(|server| server.seen().ok_or(Trouble::NoAddress))
            .transpose()
    }
}

#[async_trait]
impl Cloud for HetznerCloud {
    async fn create(&self, order: &Order) -> Result<CloudServer, CloudError> {
        self.make(order)
            .await
            .map_err(|trouble| trouble.during("create", &order.name))
    }

    async fn settle(&self, name: &str) -> Result<(), CloudError> {
        self.see_it_run(name)
            .await
            .map_err(|trouble| trouble.during("settle", name))
    }

    async fn find(&self, name: &str) -> Result<Option<CloudServer>, CloudError> {
        self.find_server(name)
            .await
            .map_err(|trouble| trouble.during("find", name))
    }

    async fn delete(&self, name: &str) -> Result<(), CloudError> {
        self.unmake(name)
            .await
            .map_err(|trouble| trouble.during("delete", name))
    }

    async fn inventory(&self) -> Result<Vec<CloudObject>, CloudError> {
        self.everything_of_ours()
            .await
            .map_err(|trouble| trouble.during("list", "everything"))
    }

    fn latest_appearance(&self) -> Duration {
        self.api.pace().seconds(create::LATEST_APPEARANCE)
    }

    async fn image(&self, server_type: &str) -> Result<Option<String>, CloudError> {
        match self.image_for(server_type).await {
            Ok(id) => Ok(Some(id.to_string())),
            Err(Trouble::NoImage { .. }) => Ok(None),
            Err(trouble) => Err(trouble.during("find", "image")),
        }
    }

    async fn images(&self) -> Result<Vec<CloudImage>, CloudError> {
        self.all_images()
            .await
            .map_err(|trouble| trouble.during("list", "images"))
    }

    async fn fits(&self, image: &str, server_type: &str) -> Result<bool, CloudError> {
        self.image_fits(image, server_type)
            .await
            .map_err(|trouble| trouble.during("look at", image))
    }

    async fn promote(&self, image: &str) -> Result<(), CloudError> {
        self.promote_image(image)
            .await
            .map_err(|trouble| trouble.during("promote", image))
    }

    async fn needed(&self) -> Result<HashSet<(ObjectKind, String)>, CloudError> {
        self.all_that_is_needed()
            .await
            .map_err(|trouble| trouble.during("list", "what is needed"))
    }

    async fn prices(&self) -> Result<Option<PriceList>, CloudError> {
        let prices = self.read_prices().await;
        prices
            .map(Some)
            .map_err(|trouble| trouble.during("read", "prices"))
    }

    async fn remove(&self, object: &CloudObject) -> Result<(), CloudError> {
        self.sweep(object)
            .await
            .map_err(|trouble| trouble.during("remove", &object.name))
    }
}
