//! Answers from a later version of the API: values and fields that nobody has heard of yet.

use serde_json::{Value, json};

/// Enums that describe; none on which the end of a wait depends.
const DESCRIPTIVE: [&str; 8] = [
    "type",
    "architecture",
    "os_flavor",
    "cpu_type",
    "category",
    "storage_type",
    "assignee_type",
    "network_zone",
];

/// Maps whose keys are the caller's own.
const NOT_OBJECTS: [&str; 1] = ["labels"];

/// What is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Values,
    Statuses,
    Fields,
}

pub(super) fn mangle(value: &mut Value, change: Change) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| mangle(item, change)),
        Value::Object(fields) => {
            // Actions say what they do; their status is what everybody waits for.
            let is_action = fields.contains_key("command");
            for (name, field) in fields.iter_mut() {
                let is_changed = match change {
                    Change::Values => DESCRIPTIVE.contains(&name.as_str()),
                    Change::Statuses => name == "status" && !is_action,
                    Change::Fields => false,
                };
                if is_changed && field.is_string() {
                    *field = json!("never_heard_of");
                } else if !NOT_OBJECTS.contains(&name.as_str()) {
                    mangle(field, change);
                }
            }
            if change == Change::Fields {
                fields.insert("never_heard_of".to_owned(), json!({ "nested": [1, null] }));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_the_status_of_actions_stay() {
        let answer = json!({
            "server": { "status": "off", "labels": { "type": "a" }, "image": { "type": "snapshot" } },
            "action": { "command": "create_server", "status": "running" },
        });
        let changed = |change| {
            let mut changed = answer.clone();
            mangle(&mut changed, change);
            changed
        };
        let values = changed(Change::Values);
        assert_eq!(values["server"]["image"]["type"], "never_heard_of");
        assert_eq!(values["server"]["labels"]["type"], "a");
        let statuses = changed(Change::Statuses);
        assert_eq!(statuses["server"]["status"], "never_heard_of");
        assert_eq!(statuses["action"]["status"], "running");
        let fields = changed(Change::Fields);
        assert!(fields["server"]["image"].get("never_heard_of").is_some());
        assert!(fields["server"]["labels"].get("never_heard_of").is_none());
    }
}
