//! Firewalls: rules, and the servers that they are on, by name or by a label selector.

use serde::Deserialize;
use serde_json::{Value, json};
use tidepool_coordinator::ambient::Moment;

use super::{
    action::{Effect, Resource},
    books::Kind,
    call::{Call, Outcome, Reply},
    clock::rfc3339,
    fault::Fault,
    id::{ActionId, FirewallId, ServerId},
    label::{self, Labels, Selector},
    page,
    project::{Project, Work},
    refusal::Refusal,
    server::{Attached, AttachedBy},
};

pub(super) mod apply;
mod rule;

use self::{apply::Target, rule::Rule};

/// The longest name, in characters.
const MAX_NAME: usize = 128;

/// Whether a firewall is in force on a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Pending,
    Applied,
    /// Shown as pending too.
    Leaving,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Pending | Self::Leaving => "pending",
        }
    }
}

/// One firewall. Which servers it is on, the servers know.
#[derive(Debug, Clone)]
pub(super) struct Firewall {
    pub(super) id: FirewallId,
    pub(super) name: String,
    pub(super) labels: Labels,
    pub(super) created: Moment,
    rules: Vec<Rule>,
    /// As they were written.
    selectors: Vec<String>,
}

fn view(project: &Project, firewall: &Firewall) -> Value {
    let on = |by: AttachedBy| {
        let attached = move |attached: &Attached| attached.id == firewall.id && attached.by == by;
        let servers = project.servers.values();
        servers
            .filter(move |server| server.firewalls.iter().any(attached))
            .map(|server| json!({ "type": "server", "server": { "id": server.id } }))
    };
    let selected: Vec<_> = on(AttachedBy::Selector).collect();
    let by_selector = firewall.selectors.iter().map(|selector| {
        json!({
            "type": "label_selector",
            "label_selector": { "selector": selector },
            "applied_to_resources": selected,
        })
    });
    json!({
        "id": firewall.id,
        "name": firewall.name,
        "labels": firewall.labels,
        "created": rfc3339(firewall.created),
        "rules": firewall.rules.iter().map(Rule::view).collect::<Vec<_>>(),
        "applied_to": on(AttachedBy::Name).chain(by_selector).collect::<Vec<_>>(),
    })
}

pub(super) fn list(project: &mut Project, call: &Call) -> Outcome {
    let selector = call.query("label_selector").map(Selector::parse);
    let selector = selector.transpose()?;
    let rows = project
        .firewalls
        .values()
        .filter(|firewall| call.admits("name", &firewall.name))
        .filter(|firewall| {
            selector
                .as_ref()
                .is_none_or(|s| s.matches(&firewall.labels))
        })
        .map(|firewall| view(project, firewall))
        .collect();
    let sortable = ["id", "name", "created"];
    page::answer("firewalls", rows, &sortable, &project.settings, call)
}

pub(super) fn show(project: &mut Project, call: &Call) -> Outcome {
    let firewall = project.firewall(FirewallId(call.id("firewall")?))?;
    Ok(Reply::ok(json!({ "firewall": view(project, firewall) })))
}

#[derive(Deserialize)]
struct Create {
    name: String,
    #[serde(default)]
    labels: Labels,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    apply_to: Vec<Target>,
}

pub(super) fn create(project: &mut Project, call: &Call) -> Outcome {
    let body: Create = call.body()?;
    check_name(project, &body.name, None)?;
    label::check(&body.labels)?;
    rule::check(&body.rules)?;
    let is_full = project.firewalls.len() >= project.settings.limits.firewalls;
    if is_full
        || project
            .faults
            .strikes(Fault::LimitReached, &[project.operation])
    {
        return Err(Refusal::limit("firewall"));
    }
    let id = FirewallId(project.next_id());
    // Checked first: a refusal leaves nothing behind.
    apply::check(project, id, &body.apply_to)?;
    project.enter(
        Kind::Firewall,
        id.0,
        &body.name,
        String::new(),
        &body.labels,
    );
    let firewall = Firewall {
        id,
        name: body.name,
        labels: body.labels,
        created: project.now,
        rules: body.rules,
        selectors: Vec::new(),
    };
    project.firewalls.insert(id, firewall);
    let mut actions = vec![rules_set(project, id)];
    actions.extend(apply::apply(project, id, &body.apply_to));
    let firewall = view(project, project.firewall(id)?);
    Ok(Reply::created(json!({
        "firewall": firewall,
        "actions": views(project, &actions),
    })))
}

fn views(project: &Project, actions: &[ActionId]) -> Vec<Value> {
    actions.iter().map(|id| project.action_view(*id)).collect()
}

fn check_name(project: &Project, name: &str, own: Option<FirewallId>) -> Result<(), Refusal> {
    if name.is_empty() || name.chars().count() > MAX_NAME {
        return Err(Refusal::field("name", "must have 1 to 128 characters"));
    }
    let taken = |firewall: &Firewall| firewall.name == name && Some(firewall.id) != own;
    if project.firewalls.values().any(taken) {
        return Err(Refusal::taken("firewall name", "name"));
    }
    Ok(())
}

#[derive(Deserialize)]
struct Update {
    name: Option<String>,
    labels: Option<Labels>,
}

pub(super) fn update(project: &mut Project, call: &Call) -> Outcome {
    let id = FirewallId(call.id("firewall")?);
    let update: Update = call.body()?;
    let mut firewall = project.firewall(id)?.clone();
    if let Some(name) = update.name {
        check_name(project, &name, Some(id))?;
        firewall.name = name;
    }
    if let Some(labels) = update.labels {
        label::check(&labels)?;
        firewall.labels = labels;
    }
    let (name, labels) = (firewall.name.clone(), firewall.labels.clone());
    project.ledger.relabel(Kind::Firewall, id.0, &name, &labels);
    project.firewalls.insert(id, firewall);
    show(project, call)
}

pub(super) fn delete(project: &mut Project, call: &Call) -> Outcome {
    let id = FirewallId(call.id("firewall")?);
    let firewall = project.firewall(id)?;
    let is_applied = project
        .servers
        .values()
        .any(|server| server.firewalls.iter().any(|attached| attached.id == id));
    if is_applied || !firewall.selectors.is_empty() {
        let message = "firewall is still in use";
        return Err(Refusal::unprocessable("resource_in_use", message));
    }
    project.firewalls.remove(&id);
    project.ledger.end(Kind::Firewall, id.0, project.now);
    Ok(Reply::empty())
}

#[derive(Deserialize)]
struct SetRules {
    rules: Vec<Rule>,
}

/// Replaces every rule, and brings the new ones to every server.
pub(super) fn set_rules(project: &mut Project, call: &Call) -> Outcome {
    let id = FirewallId(call.id("firewall")?);
    let body: SetRules = call.body()?;
    project.firewall(id)?;
    rule::check(&body.rules)?;
    if let Some(firewall) = project.firewalls.get_mut(&id) {
        firewall.rules = body.rules;
    }
    let mut actions = vec![rules_set(project, id)];
    let on: Vec<ServerId> = project
        .servers
        .values()
        .filter(|server| server.firewalls.iter().any(|attached| attached.id == id))
        .map(|server| server.id)
        .collect();
    for server in on {
        apply::set_state(project, id, server, State::Pending);
        actions.push(apply::begin_apply(project, id, server));
    }
    Ok(Reply::created(
        json!({ "actions": views(project, &actions) }),
    ))
}

fn rules_set(project: &mut Project, id: FirewallId) -> ActionId {
    let takes = project.settings.pace.action;
    let work = Work::new("set_firewall_rules", takes, Effect::Nothing);
    project.begin(work.on(Resource::Firewall(id)))
}

#[derive(Deserialize)]
struct ApplyTo {
    apply_to: Vec<Target>,
}

pub(super) fn apply_to_resources(project: &mut Project, call: &Call) -> Outcome {
    let id = FirewallId(call.id("firewall")?);
    let body: ApplyTo = call.body()?;
    project.firewall(id)?;
    apply::check(project, id, &body.apply_to)?;
    let actions = apply::apply(project, id, &body.apply_to);
    Ok(Reply::created(
        json!({ "actions": views(project, &actions) }),
    ))
}

#[derive(Deserialize)]
struct RemoveFrom {
    remove_from: Vec<Target>,
}

pub(super) fn remove_from_resources(project: &mut Project, call: &Call) -> Outcome {
    let id = FirewallId(call.id("firewall")?);
    let body: RemoveFrom = call.body()?;
    project.firewall(id)?;
    apply::check_removal(project, id, &body.remove_from)?;
    let actions = apply::remove(project, id, &body.remove_from);
    Ok(Reply::created(
        json!({ "actions": views(project, &actions) }),
    ))
}
