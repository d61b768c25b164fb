//! Checking a configuration against the schema that this version of OpenClaw printed itself.
//!
//! The schema is the first gate, not the last: it does not see that a channel's plugin is missing,
//! or rules that OpenClaw keeps in code. The gateway's own word decides.

use std::{fmt, fs, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidepool_shared::config_schema::repair;

/// Violations that are told of one configuration; a person fixes the first ones first.
const MAX_VIOLATIONS: usize = 8;
/// The longest text kept of one violation; the schema's unions make it very long ones.
const MAX_TEXT: usize = 300;

/// A compiled schema. Compiling takes about a tenth of a second, so it is made once.
pub struct Schema(jsonschema::Validator);

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Schema")
    }
}

/// Why the image's schema cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UnusableSchema {
    #[error("read the configuration schema")]
    Read(#[source] std::io::Error),
    #[error("parse the configuration schema")]
    Parse(#[source] serde_json::Error),
    #[error("compile the configuration schema: {0}")]
    Compile(String),
}

/// What is wrong with a configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    pub pointer: String,
    pub message: String,
}

/// Everything that is told of a configuration that the schema does not allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violations(pub Vec<Violation>);

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, violation) in self.0.iter().enumerate() {
            let gap = if place == 0 { "" } else { "; " };
            write!(f, "{gap}`{}`: {}", violation.pointer, violation.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Violations {}

impl Schema {
    /// Reads and compiles the manifest's `config_schema`.
    pub fn load(path: &Path) -> Result<Self, UnusableSchema> {
        let bytes = fs::read(path).map_err(UnusableSchema::Read)?;
        let mut schema = serde_json::from_slice(&bytes).map_err(UnusableSchema::Parse)?;
        repair(&mut schema, |pattern| {
            jsonschema::validator_for(&json!({ "pattern": pattern })).is_ok()
        });
        Self::compile(&schema)
    }

    /// Compiles a schema that is at hand.
    pub fn compile(schema: &Value) -> Result<Self, UnusableSchema> {
        jsonschema::validator_for(schema)
            .map(Self)
            .map_err(|error| UnusableSchema::Compile(error.to_string()))
    }

    /// Checks a configuration. Values are not repeated in the errors: they may be secrets.
    pub fn check(&self, config: &Value) -> Result<(), Violations> {
        let found: Vec<_> = self
            .0
            .iter_errors(config)
            .take(MAX_VIOLATIONS)
            .map(|error| Violation {
                pointer: error.instance_path().to_string(),
                message: error.masked().to_string().chars().take(MAX_TEXT).collect(),
            })
            .collect();
        if found.is_empty() {
            Ok(())
        } else {
            Err(Violations(found))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_in_javascripts_spelling_are_still_checked() {
        for (pattern, good, bad) in [
            (r"^\/(?!\/)[^\0]*[^/\0]$", "/a/b", "//a"),
            (r"^(?!\s)[^\p{Cs}]{1,3}$", "abc", "abcd"),
            (r"^[^\p{Cc}\p{Cs}/\\]{1,9}$", "abc", "a/b"),
        ] {
            let mut schema = json!({"items": {"pattern": pattern}});
            repair(&mut schema, |_| true);
            let schema = Schema::compile(&schema).unwrap();
            assert_eq!(schema.check(&json!([good])), Ok(()), "{pattern}");
            assert!(schema.check(&json!([bad])).is_err(), "{pattern}");
        }
    }

    #[test]
    fn a_reference_means_the_nearest_definitions() {
        let mut schema = json!({"properties": {"a/b": {
            "$defs": {"account": {"type": "string"}},
            "items": {"$ref": "#/$defs/account"},
        }}});
        repair(&mut schema, |_| true);
        let schema = Schema::compile(&schema).unwrap();
        assert_eq!(schema.check(&json!({"a/b": ["x"]})), Ok(()));
        assert!(schema.check(&json!({"a/b": [1]})).is_err());
    }

    #[test]
    fn an_error_says_where_and_never_repeats_the_value() {
        let schema = Schema::compile(&json!({
            "type": "object",
            "properties": {"channels": {"properties": {"botToken": {"type": "string", "maxLength": 3}}}},
        }))
        .unwrap();
        let secret = json!({"channels": {"botToken": "very-secret"}});
        let Violations(found) = schema.check(&secret).unwrap_err();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].pointer, "/channels/botToken");
        assert!(!found[0].message.contains("very-secret"));
    }
}
