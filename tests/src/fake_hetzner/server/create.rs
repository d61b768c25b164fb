//! Making a server: everything is checked first, so that a refusal leaves nothing behind.

use std::{collections::BTreeSet, net::Ipv4Addr};

use rand::Rng as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Attached, AttachedBy, Server, Status, check_name, view};
use crate::fake_hetzner::{
    action::{Effect, Protection, Resource},
    books::Kind,
    call::{Call, Outcome, Reply},
    catalogue::ServerType,
    fault::Fault,
    firewall::State,
    id::{ActionId, FirewallId, ImageId, PrimaryIpId, ServerId},
    image,
    label::{self, Labels},
    primary_ip::{self, Family},
    project::{Place, Project, Work},
    refusal::Refusal,
    ssh_key,
};

/// The longest user data, in bytes.
const MAX_USER_DATA: usize = 32 * 1024;

/// Firewalls that one server may have.
pub(in crate::fake_hetzner) const MAX_FIREWALLS: usize = 5;

#[derive(Deserialize)]
struct Body {
    name: String,
    server_type: Value,
    image: Value,
    location: Option<Value>,
    #[serde(default)]
    labels: Labels,
    #[serde(default)]
    ssh_keys: Vec<Value>,
    #[serde(default)]
    user_data: String,
    #[serde(default)]
    firewalls: Vec<NamedFirewall>,
    #[serde(default)]
    networks: Vec<u64>,
    #[serde(default)]
    volumes: Vec<u64>,
    placement_group: Option<u64>,
    #[serde(default = "yes")]
    start_after_create: bool,
    #[serde(default)]
    public_net: PublicNet,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
struct NamedFirewall {
    firewall: FirewallId,
}

#[derive(Deserialize)]
#[serde(default)]
struct PublicNet {
    enable_ipv4: bool,
    enable_ipv6: bool,
    ipv4: Option<PrimaryIpId>,
    ipv6: Option<PrimaryIpId>,
}

impl Default for PublicNet {
    fn default() -> Self {
        Self {
            enable_ipv4: true,
            enable_ipv6: true,
            ipv4: None,
            ipv6: None,
        }
    }
}

/// Where a server's address comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    None,
    New,
    Held(PrimaryIpId),
}

/// A creation that nothing speaks against.
pub(in crate::fake_hetzner) struct Plan {
    body: Body,
    server_type: ServerType,
    location: String,
    image: ImageId,
    ipv4: Source,
    ipv6: Source,
}

impl Plan {
    pub(in crate::fake_hetzner) fn user_data(&self) -> &str {
        &self.body.user_data
    }

    /// Whether the server is to have an address that existed before it.
    pub(in crate::fake_hetzner) fn brings_its_address(&self) -> bool {
        matches!(self.ipv4, Source::Held(_))
    }
}

/// What the switches say about a creation. Asked once a call, as a count is spent by it.
pub(in crate::fake_hetzner) fn refuse_by_switch(
    project: &Project,
    plan: &Plan,
) -> Result<(), Refusal> {
    let placement = format!("{} {}", plan.server_type.name, plan.location);
    let names = [project.operation, placement.as_str()];
    if project.faults.strikes(Fault::LimitReached, &names) {
        return Err(Refusal::limit("server"));
    }
    if project.faults.strikes(Fault::NoCapacity, &names) {
        return Err(Refusal::no_capacity());
    }
    Ok(())
}

/// Checks everything.
pub(in crate::fake_hetzner) fn plan(project: &Project, call: &Call) -> Result<Plan, Refusal> {
    let body: Body = call.body()?;
    check_name(project, &body.name, None)?;
    label::check(&body.labels)?;
    if body.user_data.len() > MAX_USER_DATA {
        return Err(Refusal::field("user_data", "is longer than 32 KiB"));
    }
    let server_type = project
        .catalogue
        .server_type(&image::key(&body.server_type))
        .ok_or_else(|| Refusal::not_found("server type"))?;
    let image = fitting_image(project, &body.image, &server_type)?;
    check_references(project, &body)?;
    let location = location(project, &body, &server_type)?;
    let net = &body.public_net;
    let ipv4 = address(project, net.enable_ipv4, net.ipv4, Family::V4, &location)?;
    let ipv6 = address(project, net.enable_ipv6, net.ipv6, Family::V6, &location)?;
    let new = [ipv4, ipv6].iter().filter(|s| **s == Source::New).count();
    let limits = &project.settings.limits;
    if project.servers.len() >= limits.servers {
        return Err(Refusal::limit("server"));
    }
    if project.primary_ips.len() + new > limits.primary_ips {
        return Err(Refusal::limit("Primary IP"));
    }
    if !project.has_room(&server_type.name, &location) {
        return Err(Refusal::no_capacity());
    }
    Ok(Plan {
        body,
        server_type,
        location,
        image,
        ipv4,
        ipv6,
    })
}

fn fitting_image(
    project: &Project,
    given: &Value,
    server_type: &ServerType,
) -> Result<ImageId, Refusal> {
    let found = image::find(project, &image::key(given), &server_type.architecture);
    let image = found.ok_or_else(|| Refusal::not_found("image"))?;
    if image.architecture != server_type.architecture {
        return Err(Refusal::invalid("image has incompatible architecture"));
    }
    if image.status != image::Status::Available {
        return Err(Refusal::field("image", "is not available"));
    }
    if image.disk_size_gb > server_type.disk_gb {
        return Err(Refusal::invalid(
            "image disk is bigger than server type disk",
        ));
    }
    Ok(image.id)
}

fn check_references(project: &Project, body: &Body) -> Result<(), Refusal> {
    for named in &body.firewalls {
        project.firewall(named.firewall)?;
    }
    if body.firewalls.len() > MAX_FIREWALLS {
        return Err(Refusal::field("firewalls", "are more than 5"));
    }
    for key in &body.ssh_keys {
        ssh_key::find(project, &image::key(key)).ok_or_else(|| Refusal::not_found("ssh key"))?;
    }
    // This fake has none of these, so none can be named.
    if !body.networks.is_empty() {
        return Err(Refusal::not_found("network"));
    }
    if !body.volumes.is_empty() {
        return Err(Refusal::not_found("volume"));
    }
    if body.placement_group.is_some() {
        return Err(Refusal::not_found("placement group"));
    }
    Ok(())
}

/// The location asked for, or the first with room.
fn location(project: &Project, body: &Body, server_type: &ServerType) -> Result<String, Refusal> {
    let places = &server_type.locations;
    let Some(asked) = &body.location else {
        let has_room = |place: &&String| project.has_room(&server_type.name, place);
        let first = places.iter().find(has_room).cloned();
        return first.ok_or_else(Refusal::no_capacity);
    };
    let name = project.catalogue.location_name(&image::key(asked));
    let name = name.ok_or_else(|| Refusal::not_found("location"))?;
    if places.contains(&name) {
        Ok(name)
    } else {
        Err(Refusal::invalid("unsupported location for server type"))
    }
}

fn address(
    project: &Project,
    enabled: bool,
    given: Option<PrimaryIpId>,
    family: Family,
    location: &str,
) -> Result<Source, Refusal> {
    match given {
        _ if !enabled => Ok(Source::None),
        None => Ok(Source::New),
        Some(id) => {
            primary_ip::check_assignable(project, id, family, location)?;
            Ok(Source::Held(id))
        }
    }
}

/// Makes the server. `machine` is the address of the machine behind it, if that has one.
pub(in crate::fake_hetzner) fn make(
    project: &mut Project,
    id: ServerId,
    plan: Plan,
    machine: Option<Ipv4Addr>,
) -> Outcome {
    let root_password = plan.body.ssh_keys.is_empty().then(|| password(project));
    let starts = plan.body.start_after_create;
    let server = record(project, id, plan, machine);
    project.occupy(&server.server_type, &server.location, Place::Taken);
    let detail = format!("{} {}", server.server_type, server.location);
    project.enter(Kind::Server, id.0, &server.name, detail, &server.labels);
    project.servers.insert(id, server);
    let (action, next_actions) = begin(project, id, starts);
    project.follow_selectors();
    let next: Vec<_> = next_actions
        .iter()
        .map(|a| project.action_view(*a))
        .collect();
    Ok(Reply::created(json!({
        "server": view(project, project.server(id)?),
        "action": project.action_view(action),
        "next_actions": next,
        "root_password": root_password,
    })))
}

fn record(project: &mut Project, id: ServerId, plan: Plan, machine: Option<Ipv4Addr>) -> Server {
    let mut assign = |source, family, own: Option<Ipv4Addr>| match source {
        Source::None => None,
        Source::Held(held) => {
            primary_ip::assign(project, held, id);
            Some(held)
        }
        Source::New => {
            let made = primary_ip::make_with_server(project, family, &plan.location, id, own);
            Some(made)
        }
    };
    let ipv4 = assign(plan.ipv4, Family::V4, machine);
    let ipv6 = assign(plan.ipv6, Family::V6, None);
    let attached = |named: &NamedFirewall| Attached {
        id: named.firewall,
        state: State::Pending,
        by: AttachedBy::Name,
    };
    let image = project.images.get(&plan.image).map(image::Image::view);
    Server {
        id,
        name: plan.body.name,
        status: Status::Initializing,
        created: project.now,
        server_type: plan.server_type.name,
        location: plan.location,
        disk_gb: plan.server_type.disk_gb,
        image: image.unwrap_or_default(),
        labels: plan.body.labels,
        ipv4,
        ipv6,
        firewalls: plan.body.firewalls.iter().map(attached).collect(),
        protection: Protection::Off,
        user_data: plan.body.user_data,
        creation: BTreeSet::new(),
        running: BTreeSet::new(),
        is_on: false,
        boots: 0,
        is_silent: project
            .faults
            .strikes(Fault::NeverCallsHome, &[project.operation]),
    }
}

/// Begins `create_server`, and `start_server` behind it.
fn begin(project: &mut Project, id: ServerId, starts: bool) -> (ActionId, Vec<ActionId>) {
    let pace = project.settings.pace.clone();
    let create = Work::new("create_server", pace.create, Effect::ServerMade(id));
    let create = project.begin(create.on(Resource::Server(id)));
    let mut next = Vec::new();
    if starts {
        let takes = pace.create + pace.start;
        let start = Work::new("start_server", takes, Effect::ServerStarted(id)).after(create);
        next.push(project.begin(start.on(Resource::Server(id))));
        project.plan_starting(id, pace.create + pace.start / 2);
    }
    if let Some(server) = project.servers.get_mut(&id) {
        server.creation = server.running.clone();
    }
    (create, next)
}

pub(super) fn password(project: &mut Project) -> String {
    let letters = &mut project.rng;
    std::iter::repeat_with(|| char::from(letters.sample(rand::distr::Alphanumeric)))
        .take(20)
        .collect()
}
