//! What a server is told about itself, without a token: `/hetzner/v1/metadata` and `/userdata`.

use super::{primary_ip::PrimaryIp, project::Project, server::Server};

/// The answer at this path for the server of this address; an empty one means "none".
pub(super) fn answer(project: &Project, address: &str, path: &str) -> Option<String> {
    let has_it = |server: &&Server| {
        let held = server.ipv4.and_then(|id| project.primary_ips.get(&id));
        held.is_some_and(|held: &PrimaryIp| held.address.to_string() == address)
    };
    let server = project.servers.values().find(has_it)?;
    let location = project.catalogue.location(&server.location);
    let zone = location.get("network_zone").and_then(|zone| zone.as_str());
    let zone = zone.unwrap_or_default();
    let fields = [
        ("availability-zone", server.location.clone()),
        ("hostname", server.name.clone()),
        ("instance-id", server.id.to_string()),
        ("public-ipv4", address.to_owned()),
        ("region", zone.to_owned()),
    ];
    match path {
        "userdata" => Some(server.user_data.clone()),
        "metadata" => {
            let lines = fields.map(|(name, value)| format!("{name}: {value}\n"));
            Some(lines.concat())
        }
        "metadata/private-networks" => Some(String::new()),
        _ => {
            let wanted = path.strip_prefix("metadata/")?;
            let found = fields.into_iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| value)
        }
    }
}
