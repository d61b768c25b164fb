//! OpenClaw's own JSON Schema, and what a customer's configuration violates of it.

use std::{fs, io, path::Path, path::PathBuf};

use jsonschema::{Validator, error::ValidationErrorKind};
use serde_json::{Value, json};
use tidepool_shared::{config_schema::repair, merge_patch};

use super::Finding;

/// Faults told at once; a configuration with more is wrong as a whole.
const MAX_FAULTS: usize = 20;

/// Why there is no schema.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableSchema {
    #[error("read configuration schema `{path}`")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("parse configuration schema `{path}`")]
    Parse {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("compile configuration schema: {0}")]
    Compile(String),
}

/// The compiled schema. Costly to make, cheap to ask.
#[derive(Debug)]
pub struct ConfigSchema {
    validator: Validator,
    neutral: Value,
}

impl ConfigSchema {
    /// Reads the schema that an image's manifest names.
    pub fn read(path: &Path) -> Result<Self, UnreadableSchema> {
        let text = fs::read(path).map_err(|source| UnreadableSchema::Read {
            path: path.to_owned(),
            source,
        })?;
        let mut schema =
            serde_json::from_slice(&text).map_err(|source| UnreadableSchema::Parse {
                path: path.to_owned(),
                source,
            })?;
        repair(&mut schema, |pattern| {
            jsonschema::validator_for(&json!({ "pattern": pattern })).is_ok()
        });
        Self::of(&schema)
    }

    /// Compiles a schema.
    pub fn of(schema: &Value) -> Result<Self, UnreadableSchema> {
        let validator = jsonschema::validator_for(schema)
            .map_err(|error| UnreadableSchema::Compile(error.to_string()))?;
        Ok(Self {
            validator,
            neutral: neutral(),
        })
    }

    /// What is wrong with a customer's configuration once it lies over the neutral one.
    pub(super) fn faults(&self, config: &Value) -> Vec<Finding> {
        let mut whole = self.neutral.clone();
        merge_patch::apply(&mut whole, config);
        self.validator
            .iter_errors(&whole)
            .flat_map(|error| findings(&error))
            .take(MAX_FAULTS)
            .collect()
    }
}

/// What every server runs before a customer's configuration, as far as it matters to the schema:
/// some keys are only valid next to others.
fn neutral() -> Value {
    json!({
        "gateway": {"mode": "local"},
        "agents": {"defaults": {"heartbeat": {"every": "0m"}}},
    })
}

/// One schema error as findings: an unknown field is pointed at itself, not at its parent.
fn findings(error: &jsonschema::ValidationError<'_>) -> Vec<Finding> {
    let at = error.instance_path().to_string();
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => unexpected
            .iter()
            .map(|field| {
                let pointer = format!("{at}/{}", field.replace('~', "~0").replace('/', "~1"));
                Finding::new(pointer, "unknown_field", "there is no such field")
            })
            .collect(),
        kind => {
            let code = match kind.keyword() {
                "required" => "required",
                "type" => "wrong_type",
                _ => "invalid",
            };
            vec![Finding::new(at, code, error.masked().to_string())]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_real_schema_takes_a_real_configuration_and_points_at_a_fault() {
        let Ok(manifest) = std::env::var("TIDEPOOL_OPENCLAW_MANIFEST") else {
            eprintln!("skipped: TIDEPOOL_OPENCLAW_MANIFEST names no image");
            return;
        };
        let text = fs::read(manifest).unwrap();
        let manifest: tidepool_shared::manifest::ImageManifest =
            serde_json::from_slice(&text).unwrap();
        let schema = ConfigSchema::read(&manifest.config_schema).unwrap();
        let good = json!({ "agents": { "entries": { "main": { "identity": { "name": "Coral" } } } }, "messages": {}});
        assert_eq!(schema.faults(&good), []);
        let faults = schema.faults(&json!({"ui": {"nonsense": 1}}));
        assert!(
            faults.iter().all(|fault| fault.pointer.starts_with("/ui")),
            "{faults:?}"
        );
        assert!(!faults.is_empty());
    }
}
