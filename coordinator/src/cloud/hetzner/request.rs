//! What is sent. Hetzner refuses bodies with fields that it does not know, so these are exact.

use serde::Serialize;

use super::{super::Labels, wire::Rule};

/// `POST /servers`. Deliberately without `Debug`: the user data holds the enrolment token.
#[derive(Serialize)]
pub(super) struct CreateServer<'a> {
    pub(super) name: &'a str,
    pub(super) server_type: &'a str,
    pub(super) location: &'a str,
    pub(super) image: u64,
    pub(super) labels: &'a Labels,
    pub(super) user_data: &'a str,
    pub(super) firewalls: [FirewallRef; 1],
    pub(super) public_net: EnabledNet,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ssh_keys: Option<[&'a str; 1]>,
    pub(super) start_after_create: bool,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct FirewallRef {
    pub(super) firewall: u64,
}

/// Both versions are asked for in so many words, should a default ever change.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct EnabledNet {
    pub(super) enable_ipv4: bool,
    pub(super) enable_ipv6: bool,
}

/// `PUT` of anything: replaces the whole map.
#[derive(Debug, Serialize)]
pub(super) struct ReplaceLabels<'a> {
    pub(super) labels: &'a Labels,
}

/// `POST /servers/{id}/actions/change_protection`. Hetzner wants the same value twice.
#[derive(Debug, Serialize)]
pub(super) struct ChangeProtection {
    pub(super) delete: bool,
    pub(super) rebuild: bool,
}

/// `POST /firewalls`.
#[derive(Debug, Serialize)]
pub(super) struct CreateFirewall<'a> {
    pub(super) name: &'a str,
    pub(super) labels: &'a Labels,
    pub(super) rules: &'a [Rule],
}

/// `POST /firewalls/{id}/actions/set_rules`: replaces all of them.
#[derive(Debug, Serialize)]
pub(super) struct SetRules<'a> {
    pub(super) rules: &'a [Rule],
}
