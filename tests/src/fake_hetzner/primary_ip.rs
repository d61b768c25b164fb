//! Primary IPs: made with a server and gone with it, or held on their own.
//!
//! An address that is given back is the next one to be handed out, as hostile as the real service.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde::Deserialize;
use serde_json::{Value, json};
use tidepool_coordinator::ambient::Moment;

use super::{
    action::{Effect, Protection, Resource},
    books::Kind,
    call::{Call, Outcome, Reply},
    clock::rfc3339,
    fault::Fault,
    id::{PrimaryIpId, ServerId},
    image,
    label::{self, Labels, Selector},
    page,
    project::{Project, Work},
    refusal::Refusal,
};

/// Where addresses that lead nowhere come from.
const IPV4_NETWORK: u32 = u32::from_be_bytes([10, 77, 0, 0]);

/// 2001:db8:77::/48, a /64 each.
const IPV6_NETWORK: u128 = 0x2001_0db8_0077 << 80;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum Family {
    #[serde(rename = "ipv4")]
    V4,
    #[serde(rename = "ipv6")]
    V6,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }
}

/// Who has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Assignee {
    Nobody,
    Server(ServerId),
}

/// One primary IP.
#[derive(Debug, Clone)]
pub(super) struct PrimaryIp {
    pub(super) id: PrimaryIpId,
    name: String,
    labels: Labels,
    created: Moment,
    family: Family,
    location: String,
    /// The first of a network, for IPv6.
    pub(super) address: IpAddr,
    pub(super) auto_delete: bool,
    pub(super) assignee: Assignee,
    protection: Protection,
}

impl PrimaryIp {
    fn shown_address(&self) -> String {
        match self.address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("{address}/64"),
        }
    }

    fn reverse_name(&self) -> String {
        let digits = self.address.to_string().replace(['.', ':'], "-");
        format!("static.{digits}.clients.fake.invalid")
    }

    /// Inside `public_net`. A network has no reverse names until somebody sets them.
    pub(super) fn view_on_server(&self) -> Value {
        json!({
            "id": self.id,
            "ip": self.shown_address(),
            "blocked": false,
            "dns_ptr": match self.family {
                Family::V4 => json!(self.reverse_name()),
                Family::V6 => json!([]),
            },
        })
    }
}

fn view(project: &Project, held: &PrimaryIp) -> Value {
    let (assignee_type, assignee_id) = match held.assignee {
        Assignee::Nobody => ("unassigned", None),
        Assignee::Server(server) => ("server", Some(server)),
    };
    let dns_ptr = match held.family {
        Family::V4 => json!([{ "ip": held.shown_address(), "dns_ptr": held.reverse_name() }]),
        Family::V6 => json!([]),
    };
    json!({
        "id": held.id,
        "name": held.name,
        "labels": held.labels,
        "created": rfc3339(held.created),
        "blocked": false,
        "location": project.catalogue.location(&held.location),
        "ip": held.shown_address(),
        "dns_ptr": dns_ptr,
        "protection": { "delete": held.protection == Protection::On },
        "type": held.family.name(),
        "auto_delete": held.auto_delete,
        "assignee_type": assignee_type,
        "assignee_id": assignee_id,
    })
}

/// The lowest address that nobody has.
fn free_address(project: &Project, family: Family) -> IpAddr {
    let taken: BTreeSet<_> = project.primary_ips.values().map(|ip| ip.address).collect();
    let nth = |n: u32| match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(IPV4_NETWORK + n)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(IPV6_NETWORK + (u128::from(n) << 64))),
    };
    let free = (1..u32::from(u16::MAX))
        .map(nth)
        .find(|ip| !taken.contains(ip));
    free.unwrap_or_else(|| nth(u32::from(u16::MAX)))
}

struct New {
    name: Option<String>,
    labels: Labels,
    family: Family,
    location: String,
    address: Option<IpAddr>,
    auto_delete: bool,
    assignee: Assignee,
}

fn add(project: &mut Project, new: New) -> PrimaryIpId {
    let id = PrimaryIpId(project.next_id());
    let name = new.name.unwrap_or_else(|| format!("primary_ip-{id}"));
    let detail = new.family.name().to_owned();
    project.enter(Kind::PrimaryIp, id.0, &name, detail, &new.labels);
    let address = new
        .address
        .unwrap_or_else(|| free_address(project, new.family));
    let held = PrimaryIp {
        id,
        name,
        labels: new.labels,
        created: project.now,
        family: new.family,
        location: new.location,
        address,
        auto_delete: new.auto_delete,
        assignee: new.assignee,
        protection: Protection::Off,
    };
    project.primary_ips.insert(id, held);
    id
}

/// The address that a server gets when it names none: without labels, and gone with the server.
pub(super) fn make_with_server(
    project: &mut Project,
    family: Family,
    location: &str,
    server: ServerId,
    address: Option<Ipv4Addr>,
) -> PrimaryIpId {
    let new = New {
        name: None,
        labels: Labels::new(),
        family,
        location: location.to_owned(),
        address: address.map(IpAddr::V4),
        auto_delete: true,
        assignee: Assignee::Server(server),
    };
    add(project, new)
}

/// Whether a new server in this location may have this address.
pub(super) fn check_assignable(
    project: &Project,
    id: PrimaryIpId,
    family: Family,
    location: &str,
) -> Result<(), Refusal> {
    let held = project.primary_ips.get(&id);
    let held = held.ok_or_else(|| Refusal::not_found("primary ip"))?;
    if held.family != family {
        return Err(Refusal::version_mismatch());
    }
    if held.location != location {
        return Err(Refusal::field("public_net", "is in another location"));
    }
    match held.assignee {
        Assignee::Nobody => Ok(()),
        Assignee::Server(_) => {
            let message = "primary ip is already assigned";
            Err(Refusal::unprocessable("primary_ip_assigned", message))
        }
    }
}

pub(super) fn assign(project: &mut Project, id: PrimaryIpId, server: ServerId) {
    if let Some(held) = project.primary_ips.get_mut(&id) {
        held.assignee = Assignee::Server(server);
    }
}

pub(super) fn list(project: &mut Project, call: &Call) -> Outcome {
    let selector = call.query("label_selector").map(Selector::parse);
    let selector = selector.transpose()?;
    let rows = project
        .primary_ips
        .values()
        .filter(|held| call.admits("name", &held.name))
        .filter(|held| {
            call.admits("ip", &held.shown_address()) || call.admits("ip", &held.address.to_string())
        })
        .filter(|held| selector.as_ref().is_none_or(|s| s.matches(&held.labels)))
        .map(|held| view(project, held))
        .collect();
    let sortable = ["id", "created"];
    page::answer("primary_ips", rows, &sortable, &project.settings, call)
}

fn get<'a>(project: &'a mut Project, call: &Call) -> Result<&'a mut PrimaryIp, Refusal> {
    let held = project
        .primary_ips
        .get_mut(&PrimaryIpId(call.id("primary ip")?));
    held.ok_or_else(|| Refusal::not_found("primary ip"))
}

pub(super) fn show(project: &mut Project, call: &Call) -> Outcome {
    let held = get(project, call)?.clone();
    Ok(Reply::ok(json!({ "primary_ip": view(project, &held) })))
}

#[derive(Deserialize)]
struct Create {
    name: String,
    #[serde(rename = "type")]
    family: Family,
    location: Option<Value>,
    assignee_type: String,
    assignee_id: Option<u64>,
    #[serde(default)]
    auto_delete: bool,
    #[serde(default)]
    labels: Labels,
}

/// Makes a free one. Assigning is for creations of servers to do: servers here keep their addresses.
pub(super) fn create(project: &mut Project, call: &Call) -> Outcome {
    let body: Create = call.body()?;
    label::check(&body.labels)?;
    check_name(project, &body.name, None)?;
    if body.assignee_type != "server" || body.assignee_id.is_some() {
        let message = "this fake assigns addresses when servers are made";
        return Err(Refusal::unprocessable("unsupported_error", message));
    }
    let is_full = project.primary_ips.len() >= project.settings.limits.primary_ips;
    if is_full
        || project
            .faults
            .strikes(Fault::LimitReached, &[project.operation])
    {
        return Err(Refusal::limit("Primary IP"));
    }
    let location = body.location.as_ref().map(image::key);
    let location = location.ok_or_else(|| Refusal::field("location", "is required"))?;
    let location = project.catalogue.location_name(&location);
    let new = New {
        name: Some(body.name),
        labels: body.labels,
        family: body.family,
        location: location.ok_or_else(|| Refusal::not_found("location"))?,
        address: None,
        auto_delete: body.auto_delete,
        assignee: Assignee::Nobody,
    };
    let id = add(project, new);
    let held = project.primary_ips.get(&id);
    let held = held.map(|held| view(project, held));
    Ok(Reply::created(json!({ "primary_ip": held })))
}

fn check_name(project: &Project, name: &str, own: Option<PrimaryIpId>) -> Result<(), Refusal> {
    let taken = |held: &PrimaryIp| held.name == name && Some(held.id) != own;
    if name.is_empty() {
        return Err(Refusal::field("name", "must not be empty"));
    }
    if project.primary_ips.values().any(taken) {
        return Err(Refusal::taken("primary ip name", "name"));
    }
    Ok(())
}

#[derive(Deserialize)]
struct Update {
    name: Option<String>,
    labels: Option<Labels>,
    auto_delete: Option<bool>,
}

pub(super) fn update(project: &mut Project, call: &Call) -> Outcome {
    let update: Update = call.body()?;
    let mut held = get(project, call)?.clone();
    if let Some(name) = update.name {
        check_name(project, &name, Some(held.id))?;
        held.name = name;
    }
    if let Some(labels) = update.labels {
        label::check(&labels)?;
        held.labels = labels;
    }
    held.auto_delete = update.auto_delete.unwrap_or(held.auto_delete);
    let (kind, id) = (Kind::PrimaryIp, held.id);
    project.ledger.relabel(kind, id.0, &held.name, &held.labels);
    project.primary_ips.insert(id, held);
    show(project, call)
}

pub(super) fn delete(project: &mut Project, call: &Call) -> Outcome {
    let held = get(project, call)?;
    let id = held.id;
    if held.protection == Protection::On {
        return Err(Refusal::protected("primary ip"));
    }
    if held.assignee != Assignee::Nobody {
        let message = "primary ip must be unassigned";
        return Err(Refusal::unprocessable("must_be_unassigned", message));
    }
    project.primary_ips.remove(&id);
    project.ledger.end(Kind::PrimaryIp, id.0, project.now);
    Ok(Reply::empty())
}

#[derive(Deserialize)]
struct Protect {
    delete: bool,
}

pub(super) fn protect(project: &mut Project, call: &Call) -> Outcome {
    let body: Protect = call.body()?;
    let held = get(project, call)?;
    held.protection = body.delete.into();
    let id = held.id;
    let takes = project.settings.pace.action;
    let work = Work::new("change_protection", takes, Effect::Nothing);
    let action = project.begin(work.on(Resource::PrimaryIp(id)));
    Ok(Reply::created(
        json!({ "action": project.action_view(action) }),
    ))
}
