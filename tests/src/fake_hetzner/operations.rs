//! The table of operations: what this fake answers. Everything else is 404, as an unknown route is.

use super::{
    action,
    call::{Call, Outcome},
    catalogue, firewall, image, primary_ip,
    project::Project,
    refusal::Refusal,
    server::{self, change},
    ssh_key,
};

/// What an operation does with the Project, at once and whole.
type Run = fn(&mut Project, &Call) -> Outcome;

/// One operation.
pub(super) struct Operation {
    /// Method and path, as in the published description.
    pub(super) key: &'static str,
    pub(super) run: Run,
}

const fn operation(key: &'static str, run: Run) -> Operation {
    Operation { key, run }
}

/// Not in the table: it asks for a machine between looking and making.
pub(super) const CREATE_SERVER: &str = "POST /servers";

pub(super) static OPERATIONS: &[Operation] = &[
    operation(CREATE_SERVER, |_, _| Err(Refusal::server_error())),
    operation("GET /servers", server::list),
    operation("GET /servers/{id}", server::show),
    operation("PUT /servers/{id}", server::update),
    operation("DELETE /servers/{id}", server::delete),
    operation("GET /servers/actions", action::list_of_servers),
    operation("GET /servers/actions/{id}", action::show),
    operation("GET /servers/{id}/actions", action::list_of_server),
    operation("GET /servers/{id}/actions/{action_id}", action::show),
    operation("POST /servers/{id}/actions/poweron", change::power_on),
    operation("POST /servers/{id}/actions/poweroff", change::power_off),
    operation("POST /servers/{id}/actions/shutdown", change::shut_down),
    operation("POST /servers/{id}/actions/reboot", change::reboot),
    operation("POST /servers/{id}/actions/reset", change::reset),
    operation("POST /servers/{id}/actions/rebuild", change::rebuild),
    operation(
        "POST /servers/{id}/actions/change_type",
        change::change_type,
    ),
    operation(
        "POST /servers/{id}/actions/create_image",
        change::create_image,
    ),
    operation(
        "POST /servers/{id}/actions/change_protection",
        change::protect,
    ),
    operation("GET /actions", action::list_by_id),
    operation("GET /actions/{id}", action::show),
    operation("GET /firewalls", firewall::list),
    operation("POST /firewalls", firewall::create),
    operation("GET /firewalls/{id}", firewall::show),
    operation("PUT /firewalls/{id}", firewall::update),
    operation("DELETE /firewalls/{id}", firewall::delete),
    operation("GET /firewalls/{id}/actions", action::list_of_firewall),
    operation(
        "POST /firewalls/{id}/actions/set_rules",
        firewall::set_rules,
    ),
    operation(
        "POST /firewalls/{id}/actions/apply_to_resources",
        firewall::apply_to_resources,
    ),
    operation(
        "POST /firewalls/{id}/actions/remove_from_resources",
        firewall::remove_from_resources,
    ),
    operation("GET /images", image::list),
    operation("GET /images/{id}", image::show),
    operation("PUT /images/{id}", image::update),
    operation("DELETE /images/{id}", image::delete),
    operation("GET /images/{id}/actions", action::list_of_image),
    operation(
        "POST /images/{id}/actions/change_protection",
        image::protect,
    ),
    operation("GET /primary_ips", primary_ip::list),
    operation("POST /primary_ips", primary_ip::create),
    operation("GET /primary_ips/{id}", primary_ip::show),
    operation("PUT /primary_ips/{id}", primary_ip::update),
    operation("DELETE /primary_ips/{id}", primary_ip::delete),
    operation(
        "POST /primary_ips/{id}/actions/change_protection",
        primary_ip::protect,
    ),
    operation("GET /ssh_keys", ssh_key::list),
    operation("POST /ssh_keys", ssh_key::create),
    operation("GET /ssh_keys/{id}", ssh_key::show),
    operation("PUT /ssh_keys/{id}", ssh_key::update),
    operation("DELETE /ssh_keys/{id}", ssh_key::delete),
    operation("GET /server_types", catalogue::list_server_types),
    operation("GET /server_types/{id}", catalogue::show_server_type),
    operation("GET /locations", catalogue::list_locations),
    operation("GET /locations/{id}", catalogue::show_location),
    operation("GET /pricing", catalogue::show_pricing),
];
