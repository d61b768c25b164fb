//! Servers: what they are and how they are shown; the modules below make and change them.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Value, json};
use tidepool_coordinator::ambient::Moment;

use super::{
    action::{Effect, Protection, Resource},
    books::Kind,
    call::{Call, Outcome, Reply},
    catalogue,
    clock::rfc3339,
    firewall::State,
    id::{ActionId, FirewallId, PrimaryIpId, ServerId},
    label::{self, Labels, Selector},
    page,
    primary_ip::PrimaryIp,
    project::{Project, Work},
    refusal::Refusal,
};

pub(super) mod change;
pub(super) mod create;

/// The states of a server that this fake has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Initializing,
    Off,
    Starting,
    Running,
    Stopping,
    Rebuilding,
    Deleting,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Self::Initializing => "initializing",
            Self::Off => "off",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Rebuilding => "rebuilding",
            Self::Deleting => "deleting",
        }
    }
}

/// A firewall on a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attached {
    pub(super) id: FirewallId,
    pub(super) state: State,
    pub(super) by: AttachedBy,
}

/// Why a firewall is on a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AttachedBy {
    Name,
    Selector,
}

/// One server. No `Debug`: its user data holds a token.
#[derive(Clone)]
#[expect(clippy::struct_field_names, reason = "as the API says it")]
pub(super) struct Server {
    pub(super) id: ServerId,
    pub(super) name: String,
    pub(super) status: Status,
    pub(super) created: Moment,
    pub(super) server_type: String,
    pub(super) location: String,
    pub(super) disk_gb: u64,
    /// As it was shown when the server was made: deleting the image changes nothing here.
    pub(super) image: Value,
    pub(super) labels: Labels,
    pub(super) ipv4: Option<PrimaryIpId>,
    pub(super) ipv6: Option<PrimaryIpId>,
    pub(super) firewalls: Vec<Attached>,
    pub(super) protection: Protection,
    pub(super) user_data: String,
    /// The actions of its creation. While one of them runs it may be deleted all the same.
    pub(super) creation: BTreeSet<ActionId>,
    /// The actions that run on it, and lock it.
    pub(super) running: BTreeSet<ActionId>,
    pub(super) is_on: bool,
    /// How often it has been booted.
    pub(super) boots: u32,
    /// A switch said that nothing on it ever starts.
    pub(super) is_silent: bool,
}

impl Server {
    pub(super) fn is_locked(&self) -> bool {
        !self.running.is_empty()
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = PrimaryIpId> {
        self.ipv4.into_iter().chain(self.ipv6)
    }

    /// Locked by nothing but its own creation.
    fn is_being_made(&self) -> bool {
        self.status != Status::Deleting && self.running.is_subset(&self.creation)
    }
}

/// A server as the API shows it.
pub(super) fn view(project: &Project, server: &Server) -> Value {
    let address = |id: Option<PrimaryIpId>| id.and_then(|id| project.primary_ips.get(&id));
    let firewalls: Vec<_> = server
        .firewalls
        .iter()
        .map(|attached| json!({ "id": attached.id, "status": attached.state.name() }))
        .collect();
    let is_protected = server.protection == Protection::On;
    json!({
        "id": server.id,
        "name": server.name,
        "status": server.status.name(),
        "created": rfc3339(server.created),
        "public_net": {
            "ipv4": address(server.ipv4).map(PrimaryIp::view_on_server),
            "ipv6": address(server.ipv6).map(PrimaryIp::view_on_server),
            "floating_ips": [],
            "firewalls": firewalls,
        },
        "private_net": [],
        "server_type": catalogue::server_type_view(project, &server.server_type),
        "location": project.catalogue.location(&server.location),
        "image": server.image,
        "iso": null,
        "rescue_enabled": false,
        "locked": server.is_locked(),
        "backup_window": null,
        "outgoing_traffic": 0,
        "ingoing_traffic": 0,
        "included_traffic": 21_990_232_555_520_u64,
        "protection": { "delete": is_protected, "rebuild": is_protected },
        "labels": server.labels,
        "volumes": [],
        "load_balancers": [],
        "primary_disk_size": server.disk_gb,
        "placement_group": null,
    })
}

pub(super) fn list(project: &mut Project, call: &Call) -> Outcome {
    let selector = call.query("label_selector").map(Selector::parse);
    let selector = selector.transpose()?;
    let rows = project
        .servers
        .values()
        .filter(|server| call.admits("name", &server.name))
        .filter(|server| call.admits("status", server.status.name()))
        .filter(|server| selector.as_ref().is_none_or(|s| s.matches(&server.labels)))
        .map(|server| view(project, server))
        .collect();
    let sortable = ["id", "name", "created"];
    page::answer("servers", rows, &sortable, &project.settings, call)
}

pub(super) fn show(project: &mut Project, call: &Call) -> Outcome {
    let server = project.server(ServerId(call.id("server")?))?;
    Ok(Reply::ok(json!({ "server": view(project, server) })))
}

#[derive(Deserialize)]
struct Update {
    name: Option<String>,
    labels: Option<Labels>,
}

/// Name and labels may change while an action runs; the firewalls that follow then lock the server.
pub(super) fn update(project: &mut Project, call: &Call) -> Outcome {
    let id = ServerId(call.id("server")?);
    let update: Update = call.body()?;
    let former = project.server(id)?.clone();
    if let Some(name) = &update.name {
        check_name(project, name, Some(id))?;
    }
    if let Some(labels) = &update.labels {
        label::check(labels)?;
    }
    let name = update.name.unwrap_or(former.name);
    let labels = update.labels.unwrap_or(former.labels);
    project.ledger.relabel(Kind::Server, id.0, &name, &labels);
    if let Some(server) = project.servers.get_mut(&id) {
        server.name = name;
        server.labels = labels;
    }
    project.follow_selectors();
    show(project, call)
}

/// A host name of RFC 1123 that no other server has.
pub(super) fn check_name(
    project: &Project,
    name: &str,
    own: Option<ServerId>,
) -> Result<(), Refusal> {
    if !is_host_name(name) {
        return Err(Refusal::field("name", "is not a valid hostname"));
    }
    let taken = |server: &Server| server.name == name && Some(server.id) != own;
    if project.servers.values().any(taken) {
        return Err(Refusal::taken("server name", "name"));
    }
    Ok(())
}

fn is_host_name(name: &str) -> bool {
    name.len() <= 253
        && name.split('.').all(|part| {
            (1..=63).contains(&part.len())
                && !part.starts_with('-')
                && !part.ends_with('-')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        })
}

pub(super) fn delete(project: &mut Project, call: &Call) -> Outcome {
    let id = ServerId(call.id("server")?);
    let takes = project.settings.pace.action;
    let server = project.servers.get_mut(&id);
    let server = server.ok_or_else(|| Refusal::not_found("server"))?;
    if server.protection == Protection::On {
        return Err(Refusal::protected("server"));
    }
    if server.is_locked() && !server.is_being_made() {
        return Err(Refusal::locked("server"));
    }
    server.status = Status::Deleting;
    let work = Work::new("delete_server", takes, Effect::ServerGone(id));
    let action = project.begin(work.on(Resource::Server(id)));
    Ok(Reply::ok(json!({ "action": project.action_view(action) })))
}

#[cfg(test)]
mod tests {
    use super::is_host_name;

    #[test]
    fn host_names_are_those_of_rfc_1123() {
        for good in ["a", "my-server", "prod-01j8.example.com", "9"] {
            assert!(is_host_name(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a_b", "a..b", "ä", &"a".repeat(64)] {
            assert!(!is_host_name(bad), "{bad}");
        }
    }
}
