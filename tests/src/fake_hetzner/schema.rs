//! The published schemas: requests are refused by them, answers are held against them.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use axum::http::StatusCode;
use jsonschema::{Validator, error::ValidationErrorKind};
use serde_json::{Value, json};

use super::refusal::Refusal;

static SCHEMAS: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../data/hetzner/response-schemas.json"))
        .expect("the data file is JSON")
});

type Compiled = HashMap<String, Option<Arc<Validator>>>;

/// Compiled at their first use: a test needs few of the two hundred.
static COMPILED: LazyLock<Mutex<Compiled>> = LazyLock::new(Mutex::default);

/// Refuses a body as the API does: unknown fields first, then what is missing or wrong.
pub(super) fn check_request(operation: &str, body: &Value) -> Result<(), Refusal> {
    let Some(validator) = validator("requests", operation) else {
        return match body.as_object().and_then(|fields| fields.keys().next()) {
            None => Ok(()),
            Some(field) => Err(unknown_field(field)),
        };
    };
    let refusals: Vec<_> = validator.iter_errors(body).map(|e| refusal(&e)).collect();
    let unknown = |(kind, _): &&(Kind, Refusal)| *kind == Kind::UnknownField;
    let first = refusals.iter().find(unknown).or(refusals.first());
    first.map_or(Ok(()), |(_, refusal)| Err(refusal.clone()))
}

#[derive(PartialEq, Eq)]
enum Kind {
    UnknownField,
    Other,
}

fn refusal(error: &jsonschema::ValidationError<'_>) -> (Kind, Refusal) {
    let path = error.instance_path().to_string();
    let field = path.trim_start_matches('/').replace('/', ".");
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let name = unexpected.first().map_or("", String::as_str);
            (Kind::UnknownField, unknown_field(name))
        }
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            (Kind::Other, Refusal::field(name, "is required"))
        }
        // Masked: the value may be a secret.
        _ => {
            let fault = error.masked().to_string();
            (Kind::Other, Refusal::field(&field, &fault))
        }
    }
}

fn unknown_field(name: &str) -> Refusal {
    Refusal::invalid(format!("invalid input: unknown field name '{name}'"))
}

/// What of an answer does not fit its schema.
pub(super) fn faults_of_answer(
    operation: &str,
    status: StatusCode,
    body: Option<&Value>,
) -> Vec<String> {
    let key = format!("{operation} {}", status.as_u16());
    let group = if status.is_success() {
        "responses"
    } else {
        "error"
    };
    let Some(validator) = validator(group, &key) else {
        return vec![format!("{key}: the API has no such answer")];
    };
    match body {
        None if status == StatusCode::NO_CONTENT => Vec::new(),
        None => vec![format!("{key}: without a body")],
        Some(_) if status == StatusCode::NO_CONTENT => vec![format!("{key}: with a body")],
        Some(body) => validator
            .iter_errors(body)
            .map(|error| format!("{key}: {} at {}", error.masked(), error.instance_path()))
            .collect(),
    }
}

fn validator(group: &str, key: &str) -> Option<Arc<Validator>> {
    let name = if group == "error" { group } else { key };
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    compiled
        .entry(format!("{group} {name}"))
        .or_insert_with(|| compile(group, name).map(Arc::new))
        .clone()
}

fn compile(group: &str, name: &str) -> Option<Validator> {
    let schema = if group == "error" {
        SCHEMAS.get(group)
    } else {
        SCHEMAS.get(group).and_then(|group| group.get(name))
    }?;
    let mut whole = json!({ "$defs": SCHEMAS.get("$defs") });
    for (keyword, value) in schema.as_object().into_iter().flatten() {
        whole[keyword] = value.clone();
    }
    let validator = jsonschema::draft202012::options()
        .should_validate_formats(true)
        .build(&whole);
    Some(validator.expect("the data file's schemas compile"))
}

#[cfg(test)]
mod tests {
    use super::*;

    static EXAMPLES: LazyLock<Value> = LazyLock::new(|| {
        serde_json::from_str(include_str!("../../data/hetzner/examples.json")).unwrap()
    });

    #[test]
    fn every_published_example_fits() {
        let mut seen = 0;
        for (operation, examples) in EXAMPLES.as_object().unwrap() {
            for (kind, named) in examples.as_object().unwrap() {
                for example in named.as_object().unwrap().values() {
                    seen += 1;
                    if kind == "request" {
                        assert_eq!(check_request(operation, example), Ok(()), "{operation}");
                    } else {
                        let status = StatusCode::from_bytes(kind.as_bytes()).unwrap();
                        let faults = faults_of_answer(operation, status, Some(example));
                        assert!(faults.is_empty(), "{faults:?}");
                    }
                }
            }
        }
        assert!(seen > 70, "{seen} examples");
    }

    #[test]
    fn answers_that_do_not_fit_are_found() {
        for (operation, status, body) in [
            ("GET /servers/{id}", 200, json!({ "server": { "id": 1 } })),
            ("GET /servers/{id}", 201, json!({})),
            ("GET /servers/{id}", 404, json!({ "error": {} })),
            ("DELETE /images/{id}", 204, json!({})),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let faults = faults_of_answer(operation, status, Some(&body));
            assert!(!faults.is_empty(), "{operation} {status}");
        }
        let none = faults_of_answer("GET /servers/{id}", StatusCode::OK, None);
        assert!(!none.is_empty());
    }
}
