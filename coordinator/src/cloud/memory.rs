//! A cloud in memory, for tests: small, and as unreliable as it is told to be.
//!
//! It keeps books of everything it ever made, so that a test can say at the end whether anything is left
//! over. A server in it runs nothing: whoever needs an agent reports in its name.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use super::{Cloud, CloudError, CloudImage, CloudObject, CloudServer, Fault, ObjectKind, Order};
use crate::ambient::Moment;

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    /// Nothing is done, and the caller is told so.
    Refused(Fault),
    /// It is done, and the caller is told that nobody knows.
    Lost,
}

/// The calls that can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    Create,
    Settle,
    Find,
    Delete,
    Inventory,
}

/// What servers can be made from; the first, until another one is promoted.
const IMAGES: [&str; 2] = ["image-1", "image-2"];

#[derive(Debug, Default)]
struct State {
    promoted: Option<String>,
    servers: BTreeMap<String, CloudServer>,
    made: Vec<String>,
    mishaps: BTreeMap<Call, VecDeque<Mishap>>,
    latest_appearance: Duration,
}

/// The cloud. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct MemoryCloud(Arc<Mutex<State>>);

impl MemoryCloud {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The next call of this kind goes wrong; several are queued.
    pub fn mishap(&self, call: Call, mishap: Mishap) {
        self.with(|state| state.mishaps.entry(call).or_default().push_back(mishap));
    }

    /// Names of what exists.
    pub fn names(&self) -> Vec<String> {
        self.with(|state| state.servers.keys().cloned().collect())
    }

    /// Names of everything that was ever made, once for each time.
    pub fn made(&self) -> Vec<String> {
        self.with(|state| state.made.clone())
    }

    /// A server disappears without anybody having asked for it.
    pub fn lose(&self, name: &str) {
        self.with(|state| state.servers.remove(name));
    }

    /// A server shows up on its own: somebody's creation, asked for long ago.
    pub fn appear(&self, name: &str) {
        self.with(|state| state.make(name, None));
    }

    /// How late a server may show up.
    pub fn appears_within(&self, latest: Duration) {
        self.with(|state| state.latest_appearance = latest);
    }

    /// Does it, unless a mishap is due; then does it or not, and fails.
    fn call<T>(
        &self,
        call: Call,
        doing: &'static str,
        object: &str,
        act: impl FnOnce(&mut State) -> T,
    ) -> Result<T, CloudError> {
        let failed = |fault| CloudError {
            doing,
            object: object.to_owned(),
            fault,
            source: "mishap".into(),
        };
        self.with(|state| {
            let due = state.mishaps.get_mut(&call).and_then(VecDeque::pop_front);
            match due {
                None => Ok(act(state)),
                Some(Mishap::Refused(fault)) => Err(failed(fault)),
                Some(Mishap::Lost) => {
                    act(state);
                    Err(failed(Fault::Unknown))
                }
            }
        })
    }
}

impl State {
    fn promoted(&self) -> String {
        let promoted = self.promoted.as_deref();
        promoted.unwrap_or(IMAGES[0]).to_owned()
    }

    fn make(&mut self, name: &str, image: Option<&String>) -> CloudServer {
        if let Some(server) = self.servers.get(name) {
            return server.clone();
        }
        self.made.push(name.to_owned());
        let number = u32::try_from(self.made.len()).unwrap_or(u32::MAX);
        let [_, b, c, d] = number.to_be_bytes();
        let server = CloudServer {
            id: number.to_string(),
            name: name.to_owned(),
            address: IpAddr::from([10, b, c, d]),
            image: Some(image.cloned().unwrap_or_else(|| self.promoted())),
        };
        self.servers.insert(name.to_owned(), server.clone());
        server
    }
}

#[async_trait]
impl Cloud for MemoryCloud {
    async fn create(&self, order: &Order) -> Result<CloudServer, CloudError> {
        self.call(Call::Create, "create", &order.name, |state| {
            state.make(&order.name, order.image.as_ref())
        })
    }

    async fn settle(&self, name: &str) -> Result<(), CloudError> {
        self.call(Call::Settle, "settle", name, |_| ())
    }

    async fn find(&self, name: &str) -> Result<Option<CloudServer>, CloudError> {
        self.call(Call::Find, "find", name, |state| {
            state.servers.get(name).cloned()
        })
    }

    fn latest_appearance(&self) -> Duration {
        self.with(|state| state.latest_appearance)
    }

    async fn image(&self, _server_type: &str) -> Result<Option<String>, CloudError> {
        Ok(Some(self.with(|state| state.promoted())))
    }

    async fn images(&self) -> Result<Vec<CloudImage>, CloudError> {
        let promoted = self.with(|state| state.promoted());
        let image = |id: &str| CloudImage {
            id: id.to_owned(),
            created_at: Moment(0),
            size_bytes: Some(2_300_000_000),
            openclaw_version: Some("2026.9.6".to_owned()),
            agent_version: None,
            is_promoted: id == promoted,
        };
        Ok(IMAGES.map(image).into())
    }

    async fn fits(&self, image: &str, _server_type: &str) -> Result<bool, CloudError> {
        Ok(IMAGES.contains(&image))
    }

    async fn promote(&self, image: &str) -> Result<(), CloudError> {
        self.with(|state| state.promoted = Some(image.to_owned()));
        Ok(())
    }

    async fn delete(&self, name: &str) -> Result<(), CloudError> {
        self.call(Call::Delete, "delete", name, |state| {
            state.servers.remove(name);
        })
    }

    async fn inventory(&self) -> Result<Vec<CloudObject>, CloudError> {
        self.call(Call::Inventory, "list", "servers", |state| {
            let object = |server: &CloudServer| CloudObject {
                kind: ObjectKind::Server,
                id: server.id.clone(),
                name: server.name.clone(),
                labels: super::Labels::new(),
                created_at: Moment(0),
                in_use: false,
            };
            state.servers.values().map(object).collect()
        })
    }

    async fn remove(&self, object: &CloudObject) -> Result<(), CloudError> {
        self.delete(&object.name).await
    }
}
