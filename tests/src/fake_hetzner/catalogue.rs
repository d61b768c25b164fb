//! Server types, locations and prices, as they stood on the day of the data file.

use serde_json::{Value, json};

use super::{
    call::{Call, Outcome, Reply},
    page,
    project::Project,
    refusal::Refusal,
};

const FILE: &str = include_str!("../../data/hetzner/catalog-2026-09-29.json");

/// The catalogue.
pub(super) struct Catalogue {
    locations: Vec<Value>,
    server_types: Vec<Value>,
    pricing: Value,
}

/// What the checks of a creation need of a server type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServerType {
    pub(super) name: String,
    pub(super) architecture: String,
    pub(super) disk_gb: u64,
    /// Where it exists, whether or not there is room.
    pub(super) locations: Vec<String>,
}

impl Catalogue {
    pub(super) fn load() -> Self {
        let file: Value = serde_json::from_str(FILE).expect("the data file is JSON");
        let list = |name: &str| file.get(name).and_then(Value::as_array).cloned();
        let server_types = list("server_types").unwrap_or_default();
        Self {
            locations: list("locations").unwrap_or_default(),
            pricing: pricing(file.get("pricing").unwrap_or(&Value::Null), &server_types),
            server_types,
        }
    }

    /// A server type by name or id.
    pub(super) fn server_type(&self, key: &str) -> Option<ServerType> {
        let found = find(&self.server_types, key)?;
        Some(ServerType {
            name: text(found, "name").to_owned(),
            architecture: text(found, "architecture").to_owned(),
            disk_gb: found.get("disk").and_then(Value::as_u64)?,
            locations: places(found)
                .map(|place| text(place, "name").to_owned())
                .collect(),
        })
    }

    pub(super) fn disk_gb(&self, server_type: &str) -> Option<u64> {
        self.server_type(server_type).map(|found| found.disk_gb)
    }

    /// A location's name by name or id.
    pub(super) fn location_name(&self, key: &str) -> Option<String> {
        find(&self.locations, key).map(|found| text(found, "name").to_owned())
    }

    /// A location as objects show it.
    pub(super) fn location(&self, name: &str) -> Value {
        find(&self.locations, name).cloned().unwrap_or_default()
    }

    /// What the catalogue itself says.
    pub(super) fn is_available(&self, server_type: &str, location: &str) -> bool {
        let available = |place: &Value| place.get("available") == Some(&Value::Bool(true));
        find(&self.server_types, server_type)
            .is_some_and(|found| places(found).any(|p| text(p, "name") == location && available(p)))
    }
}

/// A server type as objects show it: what has room is available.
pub(super) fn server_type_view(project: &Project, name: &str) -> Value {
    let Some(mut shown) = find(&project.catalogue.server_types, name).cloned() else {
        return Value::Null;
    };
    for place in shown["locations"].as_array_mut().into_iter().flatten() {
        let has_room = project.has_room(name, text(place, "name"));
        place["available"] = Value::Bool(has_room);
    }
    shown
}

fn find<'a>(rows: &'a [Value], key: &str) -> Option<&'a Value> {
    let id = key.parse::<u64>().ok();
    let is_it = |row: &&Value| {
        text(row, "name") == key || (id.is_some() && row.get("id").and_then(Value::as_u64) == id)
    };
    rows.iter().find(is_it)
}

fn places(server_type: &Value) -> impl Iterator<Item = &Value> {
    let places = server_type.get("locations").and_then(Value::as_array);
    places.into_iter().flatten()
}

fn text<'a>(row: &'a Value, field: &str) -> &'a str {
    row.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The parts that the file leaves out are lists without entries and a price of nothing.
fn pricing(known: &Value, server_types: &[Value]) -> Value {
    let mut pricing = known.clone();
    let prices = server_types.iter().map(|server_type| {
        json!({
            "id": server_type.get("id"),
            "name": server_type.get("name"),
            "prices": server_type.get("prices"),
        })
    });
    pricing["server_types"] = prices.collect();
    pricing["floating_ips"] = json!([]);
    pricing["load_balancer_types"] = json!([]);
    pricing["floating_ip"] = json!({
        "price_monthly": { "net": "0.0000000000", "gross": "0.0000000000000000" }
    });
    pricing
}

pub(super) fn list_server_types(project: &mut Project, call: &Call) -> Outcome {
    let names: Vec<_> = project
        .catalogue
        .server_types
        .iter()
        .map(|row| text(row, "name").to_owned())
        .filter(|name| call.admits("name", name))
        .collect();
    let rows = names.iter().map(|name| server_type_view(project, name));
    let rows = rows.collect();
    page::answer(
        "server_types",
        rows,
        &["id", "name"],
        &project.settings,
        call,
    )
}

pub(super) fn show_server_type(project: &mut Project, call: &Call) -> Outcome {
    let id = call.id("server type")?.to_string();
    let found = project.catalogue.server_type(&id);
    let name = found.ok_or_else(|| Refusal::not_found("server type"))?.name;
    Ok(Reply::ok(
        json!({ "server_type": server_type_view(project, &name) }),
    ))
}

pub(super) fn list_locations(project: &mut Project, call: &Call) -> Outcome {
    let rows = project.catalogue.locations.iter();
    let rows = rows.filter(|row| call.admits("name", text(row, "name")));
    let rows = rows.cloned().collect();
    page::answer("locations", rows, &["id", "name"], &project.settings, call)
}

pub(super) fn show_location(project: &mut Project, call: &Call) -> Outcome {
    let id = call.id("location")?.to_string();
    let found = find(&project.catalogue.locations, &id).cloned();
    let location = found.ok_or_else(|| Refusal::not_found("location"))?;
    Ok(Reply::ok(json!({ "location": location })))
}

#[expect(clippy::unnecessary_wraps, reason = "an operation among others")]
pub(super) fn show_pricing(project: &mut Project, _call: &Call) -> Outcome {
    Ok(Reply::ok(json!({ "pricing": project.catalogue.pricing })))
}
