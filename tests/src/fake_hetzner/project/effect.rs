//! What happens when something is due.

use super::{Place, Project, Step};
use crate::fake_hetzner::{
    action::{Disk, Effect, Status},
    books::Kind,
    firewall::State,
    id::{ActionId, FirewallId, ImageId, ServerId},
    image,
    machines::Power,
    primary_ip::Assignee,
    server,
};

impl Project {
    pub(super) fn take(&mut self, step: Step) {
        match step {
            Step::Finish(action) => self.finish(action),
            Step::Starting(server) => {
                if let Some(server) = self.servers.get_mut(&server)
                    && server.status == server::Status::Off
                    && !server.running.is_empty()
                {
                    server.status = server::Status::Starting;
                }
            }
            Step::Boot(id) => {
                let boots = |server: &&server::Server| {
                    server.status == server::Status::Running && !server.is_silent
                };
                if let Some(server) = self.servers.get(&id).filter(boots) {
                    self.wishes.push((id, Power::On(server.boots)));
                }
            }
            Step::Off(id) => self.set_off(id),
        }
    }

    fn finish(&mut self, id: ActionId) {
        let Some(action) = self.actions.get(&id) else {
            return;
        };
        if action.status != Status::Running {
            return;
        }
        let status_of = |before| self.actions.get(&before).map(|before| before.status);
        let before = action.after.and_then(status_of);
        let (effect, fails) = (action.effect.clone(), action.fails);
        match before {
            // It waits for ever: what it waits for is stuck.
            Some(Status::Running) => {}
            Some(Status::Error) => self.end(id, Some("an earlier action failed")),
            None | Some(Status::Success) if fails => {
                self.end(id, Some("Action failed"));
                self.undo(&effect);
            }
            None | Some(Status::Success) => {
                self.end(id, None);
                self.apply(effect);
            }
        }
    }

    fn end(&mut self, id: ActionId, error: Option<&'static str>) {
        let now = self.now;
        let Some(action) = self.actions.get_mut(&id) else {
            return;
        };
        action.status = if error.is_none() {
            Status::Success
        } else {
            Status::Error
        };
        action.finished = Some(now);
        action.error = error;
        if let Some(server) = action.server().and_then(|id| self.servers.get_mut(&id)) {
            server.running.remove(&id);
        }
    }

    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Nothing => {}
            Effect::ServerMade(id) => self.made(id),
            Effect::ServerStarted(id) | Effect::ServerRestarted(id) => self.set_running(id),
            Effect::ServerStopped(id) => self.set_off(id),
            Effect::ShutdownHeard(id) => {
                self.set_status(id, server::Status::Stopping);
                self.plan(self.now.plus(self.settings.pace.shutdown), Step::Off(id));
            }
            Effect::ServerGone(id) => self.gone(id),
            Effect::ServerRebuilt(id, image) => self.rebuilt(id, image),
            Effect::TypeChanged(id, server_type, disk) => self.retyped(id, &server_type, disk),
            Effect::ServerProtected(id, protection) => {
                if let Some(server) = self.servers.get_mut(&id) {
                    server.protection = protection;
                }
            }
            Effect::SnapshotMade(id) => {
                if let Some(image) = self.images.get_mut(&id) {
                    image.status = image::Status::Available;
                }
            }
            Effect::FirewallApplied(firewall, server) => self.applied(firewall, server),
            Effect::FirewallRemoved(firewall, server) => {
                if let Some(server) = self.servers.get_mut(&server) {
                    server.firewalls.retain(|attached| attached.id != firewall);
                }
            }
        }
    }

    /// What is left when an action ends in an error.
    fn undo(&mut self, effect: &Effect) {
        match effect {
            Effect::ServerMade(id) | Effect::ServerStarted(id) => {
                self.set_status(*id, server::Status::Off);
            }
            Effect::ServerStopped(id)
            | Effect::ServerGone(id)
            | Effect::ServerRestarted(id)
            | Effect::ServerRebuilt(id, _) => {
                let is_on = self.servers.get(id).is_some_and(|server| server.is_on);
                let status = if is_on {
                    server::Status::Running
                } else {
                    server::Status::Off
                };
                self.set_status(*id, status);
            }
            Effect::SnapshotMade(id) => {
                self.images.remove(id);
                self.ledger.end(Kind::Image, id.0, self.now);
            }
            Effect::FirewallApplied(firewall, server) => {
                if let Some(server) = self.servers.get_mut(server) {
                    server.firewalls.retain(|attached| attached.id != *firewall);
                }
            }
            Effect::FirewallRemoved(firewall, server) => self.applied(*firewall, *server),
            Effect::Nothing
            | Effect::ShutdownHeard(_)
            | Effect::TypeChanged(..)
            | Effect::ServerProtected(..) => {}
        }
    }

    fn set_status(&mut self, id: ServerId, status: server::Status) {
        if let Some(server) = self.servers.get_mut(&id) {
            server.status = status;
        }
    }

    fn made(&mut self, id: ServerId) {
        let Some(server) = self.servers.get_mut(&id) else {
            return;
        };
        if server.status == server::Status::Initializing {
            server.status = server::Status::Off;
        }
        for attached in &mut server.firewalls {
            attached.state = State::Applied;
        }
    }

    fn set_running(&mut self, id: ServerId) {
        if let Some(server) = self.servers.get_mut(&id) {
            server.status = server::Status::Running;
            server.is_on = true;
            server.boots += 1;
            self.plan(self.now.plus(self.settings.pace.boot), Step::Boot(id));
        }
    }

    fn set_off(&mut self, id: ServerId) {
        if let Some(server) = self.servers.get_mut(&id) {
            server.status = server::Status::Off;
            server.is_on = false;
            self.wishes.push((id, Power::Off));
        }
    }

    /// The server is no more, and what lives and dies with it neither.
    fn gone(&mut self, id: ServerId) {
        let Some(server) = self.servers.remove(&id) else {
            return;
        };
        for action in &server.running {
            self.end(*action, Some("the server was deleted"));
        }
        self.occupy(&server.server_type, &server.location, Place::Freed);
        self.ledger.end(Kind::Server, id.0, self.now);
        self.wishes.push((id, Power::Gone));
        for address in server.addresses() {
            let Some(held) = self.primary_ips.get_mut(&address) else {
                continue;
            };
            if held.auto_delete {
                self.primary_ips.remove(&address);
                self.ledger.end(Kind::PrimaryIp, address.0, self.now);
            } else {
                held.assignee = Assignee::Nobody;
            }
        }
    }

    fn rebuilt(&mut self, id: ServerId, image: ImageId) {
        let view = self.images.get(&image).map(image::Image::view);
        if let Some(server) = self.servers.get_mut(&id) {
            server.image = view.unwrap_or_default();
        }
        self.set_running(id);
    }

    fn retyped(&mut self, id: ServerId, server_type: &str, disk: Disk) {
        let bigger = self.catalogue.disk_gb(server_type);
        let Some(server) = self.servers.get_mut(&id) else {
            return;
        };
        if let (Disk::Grows, Some(bigger)) = (disk, bigger) {
            server.disk_gb = bigger;
        }
        let location = server.location.clone();
        let former = std::mem::replace(&mut server.server_type, server_type.to_owned());
        self.occupy(&former, &location, Place::Freed);
        self.occupy(server_type, &location, Place::Taken);
    }

    fn applied(&mut self, firewall: FirewallId, server: ServerId) {
        let Some(server) = self.servers.get_mut(&server) else {
            return;
        };
        let here = |attached: &&mut server::Attached| attached.id == firewall;
        if let Some(attached) = server.firewalls.iter_mut().find(here) {
            attached.state = State::Applied;
        }
    }
}
