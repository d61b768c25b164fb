//! The API's own OpenAPI document, against which every answer is held.

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

/// The parsed document.
#[derive(Debug)]
pub(crate) struct Contract(Value);

impl Contract {
    pub(crate) fn new(document: Value) -> Self {
        Self(document)
    }

    /// Fails unless the document foresees this answer, and exactly so.
    pub(crate) fn check(
        &self,
        method: &str,
        path: &str,
        status: u16,
        kind: &str,
        body: &Value,
    ) -> anyhow::Result<()> {
        let path = path.split('?').next().unwrap_or_default();
        if path == "/v1/openapi.json" {
            // The document does not describe itself.
            return Ok(());
        }
        let Some(item) = self.path_item(path) else {
            anyhow::ensure!(
                status == 404 || status == 405,
                "`{path}` is not in the document"
            );
            return Ok(());
        };
        let Some(operation) = item.get(method.to_lowercase()) else {
            anyhow::ensure!(status == 405, "{method} {path} is not in the document");
            return Ok(());
        };
        let responses = operation.get("responses").context("responses")?;
        let response = responses
            .get(status.to_string())
            .or_else(|| responses.get("default").filter(|_| status >= 400))
            .with_context(|| format!("{method} {path} may not answer {status}"))?;
        let Some(content) = response.get("content") else {
            anyhow::ensure!(body.is_null(), "{method} {path} {status} has no body");
            return Ok(());
        };
        let schema = content
            .get(kind)
            .and_then(|media| media.get("schema"))
            .with_context(|| format!("{method} {path} {status} may not be `{kind}`"))?;
        let whole = json!({"components": self.0.get("components"), "allOf": [schema]});
        let validator =
            jsonschema::validator_for(&whole).map_err(|error| anyhow::anyhow!("{error}"))?;
        if let Some(error) = validator.iter_errors(body).next() {
            bail!(
                "{method} {path} {status}: {} at {}",
                error,
                error.instance_path()
            );
        }
        Ok(())
    }

    fn path_item(&self, path: &str) -> Option<&Value> {
        let paths = self.0.get("paths")?.as_object()?;
        let fits = |template: &str| {
            let (mut wanted, mut given) = (template.split('/'), path.split('/'));
            loop {
                match (wanted.next(), given.next()) {
                    (None, None) => return true,
                    (Some(wanted), Some(given)) if wanted == given || wanted.starts_with('{') => {}
                    _ => return false,
                }
            }
        };
        paths.get(path).or_else(|| {
            paths
                .iter()
                .find(|(template, _)| fits(template))
                .map(|(_, item)| item)
        })
    }
}
