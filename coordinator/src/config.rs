//! A customer's configuration: what may be in it, and whether OpenClaw would take it.
//!
//! A gateway refuses to start on a configuration it does not know, so nothing reaches a server that
//! the schema of its own version has not passed. The answer names each fault by JSON pointer and
//! never repeats a value: values may be secrets.
//!
//! Ceilings come first and the schema last, so that nothing large is ever walked by the validator.

pub mod ceiling;
pub mod channels;
pub mod redact;
pub mod schema;

use serde_json::Value;
use tidepool_shared::{
    merge_patch,
    openclaw::{RefusedPatch, check_patch},
};

pub use self::schema::{ConfigSchema, UnreadableSchema};

/// One fault of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// JSON pointer into the configuration.
    pub pointer: String,
    /// A stable word.
    pub code: &'static str,
    /// For a person; holds no value.
    pub detail: String,
}

impl Finding {
    fn new(pointer: impl Into<String>, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            code,
            detail: detail.into(),
        }
    }
}

/// Lays a customer's patch over their present configuration and checks the outcome.
pub fn apply(schema: &ConfigSchema, present: &Value, patch: &Value) -> Result<Value, Vec<Finding>> {
    ceiling::check(patch).map_err(|finding| vec![finding])?;
    check_patch(patch).map_err(|refused| vec![refused.into()])?;
    let mut wanted = present.clone();
    merge_patch::apply(&mut wanted, patch);
    ceiling::check(&wanted).map_err(|finding| vec![finding])?;
    let faults = schema.faults(&wanted);
    if faults.is_empty() {
        Ok(wanted)
    } else {
        Err(faults)
    }
}

impl From<RefusedPatch> for Finding {
    fn from(refused: RefusedPatch) -> Self {
        let (code, detail) = match refused {
            RefusedPatch::NotAnObject => ("not_an_object", "a configuration is an object"),
            RefusedPatch::PlatformOwned(_) => ("platform_owned", "set by the platform, not by you"),
            RefusedPatch::Include(_) => ("include", "other files cannot be included"),
            RefusedPatch::TooDeep => ("too_deep", "nested too deep"),
        };
        Self::new(refused.pointer(), code, detail)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> ConfigSchema {
        ConfigSchema::of(&json!({
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "gateway": {}, "discovery": {}, "telemetry": {}, "update": {}, "models": {}, "agents": {}, "plugins": {},
                "ui": {"type": "object", "additionalProperties": false, "properties": {"seamColor": {"type": "string"}}},
            },
        }))
        .unwrap()
    }

    fn pointers(present: &Value, patch: &Value) -> Vec<(String, &'static str)> {
        apply(&schema(), present, patch)
            .unwrap_err()
            .into_iter()
            .map(|finding| (finding.pointer, finding.code))
            .collect()
    }

    #[test]
    fn a_good_patch_is_laid_over_the_present_configuration() {
        let present = json!({"agents": {"a": 1}});
        let wanted = apply(&schema(), &present, &json!({"ui": {"seamColor": "red"}})).unwrap();
        assert_eq!(
            wanted,
            json!({"agents": {"a": 1}, "ui": {"seamColor": "red"}})
        );
    }

    #[test]
    fn a_key_of_the_platform_is_refused_even_to_remove_it() {
        assert_eq!(
            pointers(&json!({}), &json!({"gateway": null})),
            [("/gateway".to_owned(), "platform_owned")]
        );
    }

    #[test]
    fn what_the_agent_would_refuse_is_refused_here() {
        assert_eq!(
            pointers(&json!({}), &json!({"models": null})),
            [("/models".to_owned(), "platform_owned")]
        );
        let include = json!({"agents": {"list": [{"$include": "/etc/x.json"}]}});
        assert_eq!(
            pointers(&json!({}), &include),
            [("/agents/list/0/$include".to_owned(), "include")]
        );
        let sandbox = json!({"agents": {"entries": {"main": {"sandbox": {"mode": "off"}}}}});
        assert_eq!(
            pointers(&json!({}), &sandbox),
            [("/agents/entries/main/sandbox".to_owned(), "platform_owned")]
        );
    }

    #[test]
    fn an_unknown_key_is_pointed_at() {
        assert_eq!(
            pointers(&json!({}), &json!({"ui": {"nope": 1}})),
            [("/ui/nope".to_owned(), "unknown_field")]
        );
    }

    #[test]
    fn a_wrong_value_is_pointed_at_but_not_repeated() {
        let findings =
            apply(&schema(), &json!({}), &json!({"ui": {"seamColor": 4711}})).unwrap_err();
        assert_eq!(findings[0].pointer, "/ui/seamColor");
        assert!(!findings[0].detail.contains("4711"), "{:?}", findings[0]);
    }

    #[test]
    fn a_patch_that_is_no_object_is_refused() {
        assert_eq!(
            pointers(&json!({}), &json!([])),
            [(String::new(), "not_an_object")]
        );
    }

    #[test]
    fn growing_by_small_patches_ends_at_the_ceiling() {
        let present = json!({"agents": {"a": "x".repeat(200 * 1024)}});
        let patch = json!({"agents": {"b": "x".repeat(60 * 1024)}});
        assert_eq!(pointers(&present, &patch), [(String::new(), "too_large")]);
    }
}
