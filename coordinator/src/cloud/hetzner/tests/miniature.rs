//! Just enough of Hetzner to talk to: servers, their actions, firewalls, and lists of one page.

use serde_json::{Value, json};

use super::{Method, Reply, Seen, refusal};

#[derive(Default)]
pub(super) struct Miniature {
    pub(super) servers: Vec<Value>,
    pub(super) firewalls: Vec<Value>,
    pub(super) images: Vec<Value>,
    pub(super) addresses: Vec<Value>,
    /// Whatever server they belong to.
    pub(super) actions: Vec<Value>,
}

pub(super) fn server(id: u64, name: &str, labels: &Value) -> Value {
    json!({
        "id": id,
        "name": name,
        "status": "running",
        "created": "2026-10-01T12:00:00Z",
        "public_net": {"ipv4": {"ip": "198.51.100.9"}, "ipv6": {"ip": "2001:db8::/64"}},
        "labels": labels,
        "protection": {"delete": false, "rebuild": false},
    })
}

pub(super) fn action(id: u64, command: &str, status: &str) -> Value {
    json!({
        "id": id,
        "command": command,
        "status": status,
        "progress": 100,
        // As in Hetzner's own examples, whatever the status.
        "error": {"code": "action_failed", "message": "Action failed"},
    })
}

pub(super) fn image(id: u64, labels: &Value) -> Value {
    json!({
        "id": id,
        "description": "tidepool",
        "created": "2026-10-01T12:00:00Z",
        "architecture": "x86",
        "disk_size": 40,
        "labels": labels,
    })
}

/// A list as its only page.
pub(super) fn page(kind: &str, items: &[Value]) -> Reply {
    let meta = json!({"pagination": {"next_page": null, "total_entries": items.len()}});
    Reply::Json(200, json!({kind: items, "meta": meta}))
}

fn has_id(thing: &Value, id: &str) -> bool {
    id.parse().is_ok_and(|id: u64| thing["id"] == id)
}

impl Miniature {
    pub(super) fn reply(&mut self, seen: &Seen) -> Reply {
        let parts: Vec<&str> = seen.path.split('/').collect();
        match (&seen.method, parts.as_slice()) {
            (&Method::GET, ["server_types"]) => page("server_types", &[cx23()]),
            (&Method::GET, ["images"]) if seen.query("status") == Some("available") => {
                page("images", &[image(77, &json!({}))])
            }
            (&Method::GET, [kind]) if *kind != "actions" => page(kind, &self.listed(kind, seen)),
            (&Method::GET, ["actions"]) => {
                let wanted = |action: &&Value| {
                    let id = action["id"].to_string();
                    seen.query.iter().any(|(_, wanted)| *wanted == id)
                };
                let found: Vec<&Value> = self.actions.iter().filter(wanted).collect();
                Reply::Json(200, json!({"actions": found}))
            }
            (&Method::GET, ["servers", _, "actions"]) => page("actions", &self.actions),
            (&Method::POST, ["servers"]) => self.make_server(&seen.body),
            (&Method::POST, ["firewalls"]) => {
                let mut firewall = seen.body.clone();
                firewall["id"] = json!(5);
                firewall["created"] = json!("2026-10-01T12:00:00Z");
                self.firewalls.push(firewall.clone());
                Reply::Json(201, json!({"firewall": firewall, "actions": []}))
            }
            (&Method::POST, ["firewalls", _, "actions", "set_rules"]) => {
                self.firewalls[0]["rules"] = seen.body["rules"].clone();
                Reply::Json(201, json!({"actions": []}))
            }
            (_, ["servers", id, rest @ ..]) => self.about_server(id, rest, seen),
            (&Method::DELETE, [kind, id]) => {
                let before = self.of_kind(kind).len();
                self.of_kind(kind).retain(|thing| !has_id(thing, id));
                match before - self.of_kind(kind).len() {
                    0 => refusal(404, "not_found"),
                    _ => Reply::Json(204, Value::Null),
                }
            }
            (&Method::GET, [kind, id]) => self.one(kind, id),
            _ => panic!("the miniature does not know {} {}", seen.method, seen.path),
        }
    }

    fn of_kind(&mut self, kind: &str) -> &mut Vec<Value> {
        match kind {
            "servers" => &mut self.servers,
            "firewalls" => &mut self.firewalls,
            "images" => &mut self.images,
            "primary_ips" => &mut self.addresses,
            _ => panic!("the miniature has no {kind}"),
        }
    }

    fn listed(&mut self, kind: &str, seen: &Seen) -> Vec<Value> {
        let name = seen.query("name");
        let mut found = self.of_kind(kind).clone();
        found.retain(|thing| name.is_none_or(|name| thing["name"] == name));
        found
    }

    fn one(&mut self, kind: &str, id: &str) -> Reply {
        let singular = kind.trim_end_matches('s');
        let found = self.of_kind(kind).iter().find(|thing| has_id(thing, id));
        found.map_or_else(
            || refusal(404, "not_found"),
            |thing| Reply::Json(200, json!({singular: thing})),
        )
    }

    pub(super) fn make_server(&mut self, body: &Value) -> Reply {
        let name = body["name"].as_str().unwrap();
        if self.servers.iter().any(|server| server["name"] == name) {
            return refusal(409, "uniqueness_error");
        }
        let made = server(40 + self.servers.len() as u64, name, &body["labels"]);
        self.servers.push(made.clone());
        let answer = json!({
            "server": made,
            "action": action(1, "create_server", "running"),
            "next_actions": [action(2, "start_server", "running")],
            "root_password": "hunter2",
        });
        Reply::Json(201, answer)
    }

    fn about_server(&mut self, id: &str, rest: &[&str], seen: &Seen) -> Reply {
        let place = self.servers.iter().position(|server| has_id(server, id));
        let Some(place) = place else {
            return refusal(404, "not_found");
        };
        match (&seen.method, rest) {
            (&Method::GET, []) => Reply::Json(200, json!({"server": self.servers[place]})),
            (&Method::PUT, []) => {
                self.servers[place]["labels"] = seen.body["labels"].clone();
                Reply::Json(200, json!({"server": self.servers[place]}))
            }
            (&Method::DELETE, []) if self.servers[place]["protection"]["delete"] == true => {
                refusal(423, "protected")
            }
            (&Method::DELETE, []) => {
                self.servers.remove(place);
                self.done("delete_server", 200)
            }
            (&Method::POST, ["actions", "change_protection"]) => {
                self.servers[place]["protection"] = seen.body.clone();
                self.done("change_protection", 201)
            }
            _ => panic!("the miniature does not know {} {}", seen.method, seen.path),
        }
    }

    fn done(&mut self, command: &str, status: u16) -> Reply {
        let done = action(100 + self.actions.len() as u64, command, "success");
        self.actions.push(done.clone());
        Reply::Json(status, json!({"action": done}))
    }
}

fn cx23() -> Value {
    json!({"id": 1, "name": "cx23", "architecture": "x86", "disk": 40, "locations": []})
}
