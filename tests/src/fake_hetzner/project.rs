//! The Project: everything that exists, and what is going to happen to it. A plain struct; nothing
//! in it waits, and its time is whatever it was last told.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rand::{SeedableRng as _, rngs::StdRng};
use serde_json::Value;
use tidepool_coordinator::ambient::Moment;

use super::{
    action::{Action, Effect, Resource, Status},
    books::{Entry, Kind, Ledger},
    catalogue::Catalogue,
    fault::{Fault, Faults},
    firewall::Firewall,
    id::{ActionId, FirewallId, ImageId, PrimaryIpId, ServerId, SshKeyId},
    image::{self, Image},
    label::Labels,
    machines::Power,
    primary_ip::PrimaryIp,
    rate::Bucket,
    refusal::Refusal,
    server::Server,
    settings::Settings,
    ssh_key::SshKey,
};

mod effect;

/// The state behind one API token.
pub(super) struct Project {
    pub(super) settings: Arc<Settings>,
    pub(super) faults: Arc<Faults>,
    pub(super) catalogue: Catalogue,
    /// How many more servers fit, where that is not the catalogue's to say.
    pub(super) room: BTreeMap<(String, String), u32>,
    pub(super) servers: BTreeMap<ServerId, Server>,
    pub(super) actions: BTreeMap<ActionId, Action>,
    pub(super) firewalls: BTreeMap<FirewallId, Firewall>,
    pub(super) images: BTreeMap<ImageId, Image>,
    pub(super) primary_ips: BTreeMap<PrimaryIpId, PrimaryIp>,
    pub(super) ssh_keys: BTreeMap<SshKeyId, SshKey>,
    pub(super) ledger: Ledger,
    pub(super) bucket: Bucket,
    /// Answers that did not fit their schemas.
    pub(super) violations: Vec<String>,
    pub(super) now: Moment,
    /// The operation that runs, for switches that name it.
    pub(super) operation: &'static str,
    /// What machines are to be told, in order; whoever holds the lock takes it away.
    pub(super) wishes: Vec<(ServerId, Power)>,
    pub(super) rng: StdRng,
    agenda: BTreeMap<(Moment, u64), Step>,
    last_id: u64,
}

/// Something that is going to happen.
#[derive(Debug, Clone, Copy)]
enum Step {
    Finish(ActionId),
    /// The server of a creation is being started.
    Starting(ServerId),
    /// The machine's own programs start.
    Boot(ServerId),
    /// A server that heard its shutdown is off.
    Off(ServerId),
}

/// An action to be begun.
pub(super) struct Work {
    pub(super) command: &'static str,
    pub(super) resources: Vec<Resource>,
    pub(super) takes: Duration,
    pub(super) effect: Effect,
    pub(super) after: Option<ActionId>,
}

impl Work {
    pub(super) fn new(command: &'static str, takes: Duration, effect: Effect) -> Self {
        Self {
            command,
            resources: Vec::new(),
            takes,
            effect,
            after: None,
        }
    }

    pub(super) fn on(mut self, resource: Resource) -> Self {
        self.resources.push(resource);
        self
    }

    /// Cannot succeed before that one has.
    pub(super) fn after(mut self, action: ActionId) -> Self {
        self.after = Some(action);
        self
    }
}

impl Project {
    pub(super) fn new(settings: Arc<Settings>, faults: Arc<Faults>, now: Moment) -> Self {
        let rng = StdRng::seed_from_u64(settings.seed);
        Self {
            room: settings.room.clone(),
            faults,
            catalogue: Catalogue::load(),
            servers: BTreeMap::new(),
            actions: BTreeMap::new(),
            firewalls: BTreeMap::new(),
            images: image::system_images(now),
            primary_ips: BTreeMap::new(),
            ssh_keys: BTreeMap::new(),
            ledger: Ledger::default(),
            bucket: Bucket::new(settings.rate.clone(), now),
            violations: Vec::new(),
            now,
            operation: "",
            wishes: Vec::new(),
            rng,
            agenda: BTreeMap::new(),
            // Past the system images.
            last_id: 1000,
            settings,
        }
    }

    /// The next number; one sequence for everything, so that no id of one kind passes for another's.
    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Lets everything happen that is due.
    pub(super) fn advance(&mut self, now: Moment) {
        while let Some(entry) = self.agenda.first_entry()
            && entry.key().0 <= now
        {
            let ((at, _), step) = entry.remove_entry();
            self.now = self.now.max(at);
            self.take(step);
        }
        self.now = self.now.max(now);
    }

    /// When something is due next.
    pub(super) fn next_due(&self) -> Option<Moment> {
        self.agenda.keys().next().map(|(at, _)| *at)
    }

    fn plan(&mut self, at: Moment, step: Step) {
        let order = self.next_id();
        self.agenda.insert((at, order), step);
    }

    /// Begins an action, unless a switch has other plans for it.
    pub(super) fn begin(&mut self, work: Work) -> ActionId {
        let id = ActionId(self.next_id());
        let names = [work.command, self.operation];
        let stuck = self.faults.strikes(Fault::ActionStuck, &names);
        let start_fails = work.command == "start_server"
            && work.after.is_some()
            && self.faults.strikes(Fault::StartFails, &[self.operation]);
        let fails = start_fails || self.faults.strikes(Fault::ActionFails, &names);
        let due = (!stuck).then(|| self.now.plus(work.takes));
        if let Some(due) = due {
            self.plan(due, Step::Finish(id));
        }
        let action = Action {
            id,
            command: work.command,
            status: Status::Running,
            started: self.now,
            due,
            finished: None,
            resources: work.resources,
            effect: work.effect,
            after: work.after,
            fails,
            error: None,
        };
        if let Some(server) = action.server().and_then(|id| self.servers.get_mut(&id)) {
            server.running.insert(id);
        }
        self.actions.insert(id, action);
        id
    }

    /// Shows `starting` half way through the start of a new server.
    pub(super) fn plan_starting(&mut self, server: ServerId, later: Duration) {
        self.plan(self.now.plus(later), Step::Starting(server));
    }

    pub(super) fn server(&self, id: ServerId) -> Result<&Server, Refusal> {
        self.servers
            .get(&id)
            .ok_or_else(|| Refusal::not_found("server"))
    }

    /// A server for a change: refused while an action runs on it.
    pub(super) fn unlocked(&mut self, id: ServerId) -> Result<&mut Server, Refusal> {
        let server = self
            .servers
            .get_mut(&id)
            .ok_or_else(|| Refusal::not_found("server"))?;
        if server.is_locked() {
            return Err(Refusal::locked("server"));
        }
        Ok(server)
    }

    pub(super) fn firewall(&self, id: FirewallId) -> Result<&Firewall, Refusal> {
        self.firewalls
            .get(&id)
            .ok_or_else(|| Refusal::not_found("firewall"))
    }

    pub(super) fn image(&self, id: ImageId) -> Result<&Image, Refusal> {
        self.images
            .get(&id)
            .ok_or_else(|| Refusal::not_found("image"))
    }

    /// An action as the API shows it.
    pub(super) fn action_view(&self, id: ActionId) -> Value {
        self.actions
            .get(&id)
            .map(|action| action.view(self.now))
            .unwrap_or_default()
    }

    /// Writes something new into the books.
    pub(super) fn enter(
        &mut self,
        kind: Kind,
        id: u64,
        name: &str,
        detail: String,
        labels: &Labels,
    ) {
        self.ledger.enter(Entry {
            kind,
            id,
            name: name.to_owned(),
            detail,
            labels: labels.clone(),
            created: self.now,
            deleted: None,
        });
    }

    /// Frees or takes a place, where places are counted.
    pub(super) fn occupy(&mut self, server_type: &str, location: &str, place: Place) {
        let key = (server_type.to_owned(), location.to_owned());
        if let Some(left) = self.room.get_mut(&key) {
            *left = match place {
                Place::Taken => left.saturating_sub(1),
                Place::Freed => left.saturating_add(1),
            };
        }
    }

    /// Whether one more server of this type fits in this location.
    pub(super) fn has_room(&self, server_type: &str, location: &str) -> bool {
        let key = (server_type.to_owned(), location.to_owned());
        match self.room.get(&key) {
            Some(left) => *left > 0,
            None => self.catalogue.is_available(server_type, location),
        }
    }
}

/// What happens to a counted place.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    Taken,
    Freed,
}
