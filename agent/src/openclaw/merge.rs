//! Putting configurations together: a customer's merge patch (RFC 7396) over the neutral one, and
//! our wish over a file that the gateway has written to since.
//!
//! The gateway writes its own file: settings made in its UI, its `meta`, channel migrations. So what
//! is on disk is neither what we applied last nor what we want; a key that only the gateway
//! changed is the customer's own doing and stays, a key that we changed becomes ours.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use tidepool_shared::openclaw::{ANY_NAME, PLATFORM_OWNED};

/// Applies a JSON merge patch: objects merge, `null` deletes, anything else replaces.
pub fn apply_patch(target: &mut Value, patch: &Value) {
    let Value::Object(members) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(object) = target else {
        return;
    };
    for (key, member) in members {
        if member.is_null() {
            object.remove(key);
        } else {
            apply_patch(object.entry(key.clone()).or_insert(Value::Null), member);
        }
    }
}

/// What to write, from what we applied last, what is on disk now and what is wanted.
///
/// A key that both sides changed is ours: an API call is later and more deliberate than a click.
/// The platform's keys are always ours, whoever changed them.
pub fn three_way(applied: &Value, disk: &Value, wanted: &Value) -> Value {
    let mut merged = merge(Some(applied), Some(disk), Some(wanted)).unwrap_or(Value::Null);
    for owned in PLATFORM_OWNED {
        for path in paths(owned, [&merged, wanted]) {
            match (at(wanted, &path), *owned) {
                (Some(value), _) => set(&mut merged, &path, value),
                // The gateway's own book-keeping, which we never set.
                (None, "/meta" | "/$schema") => {}
                (None, _) => remove(&mut merged, &path),
            }
        }
    }
    merged
}

/// Where an owned key is: `*` becomes each name that is there on any side.
fn paths(owned: &str, sides: [&Value; 2]) -> Vec<Vec<String>> {
    owned
        .split('/')
        .skip(1)
        .fold(vec![Vec::new()], |paths, step| {
            let longer = |path: Vec<String>| {
                let names: BTreeSet<String> = match step {
                    ANY_NAME => names_at(sides, &path),
                    name => BTreeSet::from([name.to_owned()]),
                };
                names
                    .into_iter()
                    .map(move |name| path.iter().cloned().chain([name]).collect())
            };
            paths.into_iter().flat_map(longer).collect()
        })
}

fn names_at(sides: [&Value; 2], path: &[String]) -> BTreeSet<String> {
    sides
        .iter()
        .filter_map(|side| at(side, path)?.as_object())
        .flat_map(|object| object.keys().cloned())
        .collect()
}

fn at<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter()
        .try_fold(value, |value, key| value.as_object()?.get(key))
}

fn merge(applied: Option<&Value>, disk: Option<&Value>, wanted: Option<&Value>) -> Option<Value> {
    if disk == applied {
        return wanted.cloned();
    }
    if wanted == applied {
        return disk.cloned();
    }
    let (Some(Value::Object(ours)), Some(Value::Object(theirs))) = (wanted, disk) else {
        return wanted.cloned();
    };
    let empty = Map::new();
    let base = applied.and_then(Value::as_object).unwrap_or(&empty);
    let mut merged = Map::new();
    for key in ours
        .keys()
        .chain(theirs.keys().filter(|key| !ours.contains_key(*key)))
    {
        if let Some(value) = merge(base.get(key), theirs.get(key), ours.get(key)) {
            merged.insert(key.clone(), value);
        }
    }
    Some(Value::Object(merged))
}

/// Sets what a path leads to, making the objects on the way.
fn set(target: &mut Value, path: &[String], value: &Value) {
    let patch = path.iter().rev().fold(
        // A merge patch cannot replace an object by a smaller one: the old one goes first.
        value.clone(),
        |inner, key| Value::Object(Map::from_iter([(key.clone(), inner)])),
    );
    remove(target, path);
    apply_patch(target, &patch);
}

fn remove(target: &mut Value, path: &[String]) {
    let Some((key, parents)) = path.split_last() else {
        return;
    };
    let parent = parents
        .iter()
        .try_fold(target, |value, key| value.as_object_mut()?.get_mut(key));
    if let Some(Value::Object(object)) = parent {
        object.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_only_the_gateway_changed_survives() {
        let applied = json!({"agents": {"name": "a"}, "ui": {"theme": "light"}});
        let disk = json!({"agents": {"name": "a"}, "ui": {"theme": "dark"}, "meta": {"v": 1}});
        let wanted = json!({"agents": {"name": "b"}, "ui": {"theme": "light"}});
        assert_eq!(
            three_way(&applied, &disk, &wanted),
            json!({"agents": {"name": "b"}, "ui": {"theme": "dark"}, "meta": {"v": 1}})
        );
    }

    #[test]
    fn what_both_changed_is_ours() {
        let merged = three_way(&json!({"a": 1}), &json!({"a": 2}), &json!({"a": 3}));
        assert_eq!(merged, json!({"a": 3}));
    }

    #[test]
    fn what_we_no_longer_want_goes() {
        let merged = three_way(
            &json!({"a": 1, "b": 1}),
            &json!({"a": 1, "b": 1}),
            &json!({"a": 1}),
        );
        assert_eq!(merged, json!({"a": 1}));
    }

    #[test]
    fn the_platforms_keys_are_ours_even_when_only_the_gateway_changed_them() {
        let ours = json!({"gateway": {"port": 1}});
        let disk = json!({"gateway": {"port": 2, "tls": {}}, "telemetry": {"enabled": true}});
        assert_eq!(three_way(&ours, &disk, &ours), ours);
    }

    #[test]
    fn a_sandbox_that_only_the_gateway_gave_an_agent_goes_and_the_agent_stays() {
        let ours = json!({"agents": {"entries": {"main": {"name": "a"}}}});
        let disk = json!({"agents": {"entries": {
            "main": {"name": "a", "sandbox": {"mode": "off"}},
            "a/b~c": {"sandbox": {"mode": "off"}, "name": "b"},
        }}});
        assert_eq!(
            three_way(&ours, &disk, &ours),
            json!({"agents": {"entries": {"main": {"name": "a"}, "a/b~c": {"name": "b"}}}})
        );
    }

    #[test]
    fn a_merge_patch_deletes_by_null() {
        let mut config = json!({"a": {"b": 1, "c": 2}});
        apply_patch(
            &mut config,
            &json!({"a": {"b": null, "d": {"e": null, "f": 3}}}),
        );
        assert_eq!(config, json!({"a": {"c": 2, "d": {"f": 3}}}));
    }

    fn small() -> impl Strategy<Value = Value> {
        let leaf = (0..3_u8).prop_map(|number| json!(number));
        leaf.prop_recursive(3, 16, 3, |inner| {
            proptest::collection::btree_map("[abc]", inner, 0..3).prop_map(|members| json!(members))
        })
    }

    proptest! {
        #[test]
        fn an_untouched_file_becomes_exactly_what_is_wanted(applied in small(), wanted in small()) {
            prop_assert_eq!(three_way(&applied, &applied, &wanted), wanted);
        }

        #[test]
        fn wanting_nothing_new_leaves_the_gateways_changes(applied in small(), disk in small()) {
            prop_assert_eq!(three_way(&applied, &disk, &applied), disk);
        }
    }
}
