//! Which keys of OpenClaw's configuration are the platform's, so that the coordinator refuses a
//! customer's patch in the API by the very rule by which the agent would refuse it on the server.
//!
//! These keys carry the isolation of the server (who is let in, where models are asked, what leaves
//! the machine). Everything else is the customer's, including what costs them money, such as the
//! heartbeat: turning that on is their right.

use serde_json::Value;

/// JSON pointers of the subtrees that a customer's patch must not touch. A step `*` is any one name.
pub const PLATFORM_OWNED: &[&str] = &[
    "/$schema",
    "/meta",
    "/gateway",
    "/models/mode",
    "/models/catalogRefresh",
    "/models/providers/managed",
    "/discovery",
    "/telemetry",
    "/update",
    "/logging/file",
    "/logging/maxFileBytes",
    // `commands.restart: false` would make the gateway deaf to the restart signal.
    "/commands/restart",
    "/wizard",
    "/env",
    "/secrets",
    "/proxy",
    "/nodeHost",
    "/cloudWorkers",
    "/plugins/load",
    "/agents/defaults/sandbox",
    "/agents/entries/*/sandbox",
];

/// The step of an owned key that any name matches.
pub const ANY_NAME: &str = "*";

/// The key that pulls in another file; it would carry any other key past this check.
const INCLUDE: &str = "$include";

/// The deepest patch that is looked into; OpenClaw's own configuration is not half as deep.
const MAX_DEPTH: usize = 32;

/// Why a customer's patch is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusedPatch {
    #[error("a configuration is a JSON object")]
    NotAnObject,
    #[error("`{0}` belongs to the platform")]
    PlatformOwned(String),
    #[error("`{0}` would include another file")]
    Include(String),
    #[error("deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

impl RefusedPatch {
    /// Where in the patch, as a JSON pointer; empty for the whole.
    pub fn pointer(&self) -> &str {
        match self {
            Self::PlatformOwned(pointer) | Self::Include(pointer) => pointer,
            Self::NotAnObject | Self::TooDeep => "",
        }
    }
}

/// Checks that a JSON merge patch touches no key of the platform's.
///
/// `null` and scalars count as touching all that lies below: `{"models": null}` would delete a
/// provider of the platform's. Below a `*` the platform sets nothing, it only forbids, so deleting an
/// agent of one's own is allowed.
pub fn check_patch(patch: &Value) -> Result<(), RefusedPatch> {
    if !patch.is_object() {
        return Err(RefusedPatch::NotAnObject);
    }
    walk(patch, "", 0)
}

fn walk(value: &Value, pointer: &str, depth: usize) -> Result<(), RefusedPatch> {
    if depth > MAX_DEPTH {
        return Err(RefusedPatch::TooDeep);
    }
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                if key == INCLUDE {
                    return Err(RefusedPatch::Include(child(pointer, key)));
                }
                let below = child(pointer, key);
                if owns(&below) || (!member.is_object() && owns_something_below(&below, member)) {
                    return Err(RefusedPatch::PlatformOwned(below));
                }
                walk(member, &below, depth.saturating_add(1))?;
            }
            Ok(())
        }
        Value::Array(items) => items.iter().enumerate().try_for_each(|(place, item)| {
            let below = child(pointer, &place.to_string());
            walk(item, &below, depth.saturating_add(1))
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

/// The pointer one step down, escaped as RFC 6901 wants.
fn child(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// Whether `pointer` is an owned key. What lies below one is never reached.
fn owns(pointer: &str) -> bool {
    PLATFORM_OWNED
        .iter()
        .any(|owned| steps_below(owned, pointer) == Some(0))
}

/// Whether putting `value`, which is no object, at `pointer` touches an owned key below it.
fn owns_something_below(pointer: &str, value: &Value) -> bool {
    PLATFORM_OWNED
        .iter()
        .filter(|owned| !value.is_null() || !owned.split('/').any(|step| step == ANY_NAME))
        .any(|owned| steps_below(owned, pointer).is_some_and(|steps| steps > 0))
}

/// How many steps an owned key lies below `pointer`, if it does.
fn steps_below(owned: &str, pointer: &str) -> Option<usize> {
    let mut steps = owned.split('/');
    let leads_there = pointer.split('/').all(|name| {
        steps
            .next()
            .is_some_and(|step| step == ANY_NAME || step == name)
    });
    leads_there.then(|| steps.count())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused_at(patch: &Value) -> Option<String> {
        check_patch(patch)
            .err()
            .map(|refused| refused.pointer().to_owned())
    }

    #[test]
    fn a_customers_own_keys_pass() {
        let patch = json!({
            "agents": {"entries": {"main": {"identity": {"name": "Ada"}}}},
            "models": {"providers": {"mine": {"baseUrl": "https://x"}}},
            "logging": {"level": "warn"},
            "channels": null,
        });
        assert_eq!(check_patch(&patch), Ok(()));
    }

    #[test]
    fn a_key_of_the_platforms_is_refused_at_any_depth() {
        let patch = json!({"gateway": {"auth": {"mode": "none"}}});
        assert_eq!(refused_at(&patch).as_deref(), Some("/gateway"));
        let patch = json!({"models": {"providers": {"managed": {"baseUrl": "https://evil"}}}});
        assert_eq!(
            refused_at(&patch).as_deref(),
            Some("/models/providers/managed")
        );
    }

    #[test]
    fn deleting_what_holds_a_key_of_the_platforms_is_refused() {
        assert_eq!(
            refused_at(&json!({"models": null})).as_deref(),
            Some("/models")
        );
        assert_eq!(
            refused_at(&json!({"models": {"providers": 1}})).as_deref(),
            Some("/models/providers")
        );
        assert_eq!(
            refused_at(&json!({"logging": []})).as_deref(),
            Some("/logging")
        );
    }

    #[test]
    fn the_sandbox_of_any_agent_is_the_platforms_and_the_agent_the_customers() {
        let sandbox = json!({"agents": {"entries": {"ada": {"sandbox": {"mode": "off"}}}}});
        assert_eq!(
            refused_at(&sandbox).as_deref(),
            Some("/agents/entries/ada/sandbox")
        );
        let removed = json!({"agents": {"entries": {"ada": {"sandbox": null}}}});
        assert_eq!(
            refused_at(&removed).as_deref(),
            Some("/agents/entries/ada/sandbox")
        );
        for own in [
            json!({"agents": {"entries": {"ada": {"name": "Ada"}}}}),
            json!({"agents": {"entries": {"ada": null}}}),
            json!({"agents": {"entries": null}}),
            json!({"agents": {"entries": {"ada": {"tools": {"sandbox": {}}}}}}),
        ] {
            assert_eq!(check_patch(&own), Ok(()), "{own}");
        }
        let list = json!({"agents": {"entries": [{"sandbox": {}}]}});
        assert_eq!(refused_at(&list).as_deref(), Some("/agents/entries"));
    }

    #[test]
    fn an_include_is_refused_wherever_it_hides() {
        let patch = json!({"agents": {"list": [{"$include": "/etc/x.json"}]}});
        assert_eq!(
            refused_at(&patch).as_deref(),
            Some("/agents/list/0/$include")
        );
    }

    #[test]
    fn a_pointer_is_escaped() {
        let patch = json!({"a/b": {"c~d": {"$include": 1}}});
        assert_eq!(refused_at(&patch).as_deref(), Some("/a~1b/c~0d/$include"));
    }

    #[test]
    fn only_an_object_is_a_configuration() {
        assert_eq!(check_patch(&json!(null)), Err(RefusedPatch::NotAnObject));
    }
}
