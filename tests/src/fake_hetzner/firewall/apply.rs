//! Bringing firewalls onto servers and off them.
//!
//! A firewall that follows a label selector gets to a server some time after the label does, and
//! until it has, the server is locked: the two traps that naming it in the creation avoids.

use serde::Deserialize;

use super::State;
use crate::fake_hetzner::{
    action::{Effect, Resource},
    id::{ActionId, FirewallId, ServerId},
    label::Selector,
    project::{Project, Work},
    refusal::Refusal,
    server::{Attached, AttachedBy, create::MAX_FIREWALLS},
};

/// What a firewall is applied to; its schema has been checked.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Target {
    Server { server: Named },
    LabelSelector { label_selector: Text },
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Named {
    id: ServerId,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Text {
    selector: String,
}

/// How a firewall is on a server, if it is.
fn attached(project: &Project, firewall: FirewallId, server: ServerId) -> Option<Attached> {
    let on = &project.servers.get(&server)?.firewalls;
    on.iter().find(|attached| attached.id == firewall).copied()
}

/// Whether all of these can have the firewall.
pub(super) fn check(
    project: &Project,
    firewall: FirewallId,
    targets: &[Target],
) -> Result<(), Refusal> {
    let already = || {
        let message = "firewall is already applied";
        Refusal::unprocessable("firewall_already_applied", message)
    };
    for target in targets {
        match target {
            Target::Server { server } => {
                let id = server.id;
                let server = project.servers.get(&id);
                let server = server.ok_or_else(Refusal::firewall_resource_not_found)?;
                if attached(project, firewall, id).is_some() {
                    return Err(already());
                }
                if server.is_locked() {
                    return Err(Refusal::locked("server"));
                }
                if server.firewalls.len() >= MAX_FIREWALLS {
                    return Err(Refusal::field("apply_to", "has 5 firewalls already"));
                }
            }
            Target::LabelSelector { label_selector } => {
                Selector::parse(&label_selector.selector)?;
                let own = project.firewalls.get(&firewall);
                if own.is_some_and(|own| own.selectors.contains(&label_selector.selector)) {
                    return Err(already());
                }
            }
        }
    }
    Ok(())
}

/// Brings the firewall to all of these; [`check`] has agreed.
pub(super) fn apply(
    project: &mut Project,
    firewall: FirewallId,
    targets: &[Target],
) -> Vec<ActionId> {
    let mut actions = Vec::new();
    for target in targets {
        match target {
            Target::Server { server } => {
                actions.push(attach(project, firewall, server.id, AttachedBy::Name));
            }
            Target::LabelSelector { label_selector } => {
                if let Some(own) = project.firewalls.get_mut(&firewall) {
                    own.selectors.push(label_selector.selector.clone());
                }
            }
        }
    }
    actions.extend(project.follow_selectors());
    actions
}

fn attach(
    project: &mut Project,
    firewall: FirewallId,
    server: ServerId,
    by: AttachedBy,
) -> ActionId {
    if let Some(server) = project.servers.get_mut(&server) {
        server.firewalls.push(Attached {
            id: firewall,
            state: State::Pending,
            by,
        });
    }
    begin_apply(project, firewall, server)
}

pub(super) fn begin_apply(
    project: &mut Project,
    firewall: FirewallId,
    server: ServerId,
) -> ActionId {
    let effect = Effect::FirewallApplied(firewall, server);
    begin(project, "apply_firewall", effect, firewall, server)
}

fn begin(
    project: &mut Project,
    command: &'static str,
    effect: Effect,
    firewall: FirewallId,
    server: ServerId,
) -> ActionId {
    let work = Work::new(command, project.settings.pace.action, effect);
    let work = work.on(Resource::Server(server));
    project.begin(work.on(Resource::Firewall(firewall)))
}

pub(super) fn set_state(
    project: &mut Project,
    firewall: FirewallId,
    server: ServerId,
    state: State,
) {
    if let Some(server) = project.servers.get_mut(&server) {
        for attached in &mut server.firewalls {
            if attached.id == firewall {
                attached.state = state;
            }
        }
    }
}

/// Whether the firewall can be taken off all of these.
pub(super) fn check_removal(
    project: &Project,
    firewall: FirewallId,
    targets: &[Target],
) -> Result<(), Refusal> {
    for target in targets {
        match target {
            Target::Server { server } => {
                let on = attached(project, firewall, server.id);
                let on = on.ok_or_else(Refusal::firewall_resource_not_found)?;
                if on.by == AttachedBy::Selector {
                    let code = "firewall_managed_by_label_selector";
                    return Err(Refusal::unprocessable(code, "firewall follows a selector"));
                }
                if project.server(server.id)?.is_locked() {
                    return Err(Refusal::locked("server"));
                }
            }
            Target::LabelSelector { label_selector } => {
                let own = project.firewall(firewall)?;
                if !own.selectors.contains(&label_selector.selector) {
                    return Err(Refusal::firewall_resource_not_found());
                }
            }
        }
    }
    Ok(())
}

/// Takes the firewall off all of these; [`check_removal`] has agreed.
pub(super) fn remove(
    project: &mut Project,
    firewall: FirewallId,
    targets: &[Target],
) -> Vec<ActionId> {
    let mut actions = Vec::new();
    for target in targets {
        match target {
            Target::Server { server } => actions.push(detach(project, firewall, server.id)),
            Target::LabelSelector { label_selector } => {
                if let Some(own) = project.firewalls.get_mut(&firewall) {
                    own.selectors
                        .retain(|text| *text != label_selector.selector);
                }
            }
        }
    }
    actions.extend(project.follow_selectors());
    actions
}

fn detach(project: &mut Project, firewall: FirewallId, server: ServerId) -> ActionId {
    set_state(project, firewall, server, State::Leaving);
    let effect = Effect::FirewallRemoved(firewall, server);
    begin(project, "remove_firewall", effect, firewall, server)
}

impl Project {
    /// Brings firewalls to the servers that their selectors now select, and takes them off the others.
    pub(in crate::fake_hetzner) fn follow_selectors(&mut self) -> Vec<ActionId> {
        let (mut come, mut go) = (Vec::new(), Vec::new());
        for firewall in self.firewalls.values() {
            let selectors: Vec<_> = firewall
                .selectors
                .iter()
                .filter_map(|text| Selector::parse(text).ok())
                .collect();
            for server in self.servers.values() {
                let wanted = selectors.iter().any(|s| s.matches(&server.labels));
                let pair = (firewall.id, server.id);
                match attached(self, firewall.id, server.id) {
                    None if wanted => come.push(pair),
                    Some(on) if !wanted && on.by == AttachedBy::Selector => {
                        if on.state != State::Leaving {
                            go.push(pair);
                        }
                    }
                    None | Some(_) => {}
                }
            }
        }
        let come = come.into_iter();
        let mut actions: Vec<_> = come
            .map(|(firewall, server)| attach(self, firewall, server, AttachedBy::Selector))
            .collect();
        let go = go.into_iter();
        actions.extend(go.map(|(firewall, server)| detach(self, firewall, server)));
        actions
    }
}
