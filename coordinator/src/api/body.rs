//! Request bodies: bounded, read within a time, held against their own schema, then parsed.
//!
//! The schema is the one in the OpenAPI document, so that every fault is told at once and each with
//! its JSON pointer; a parser alone would stop at the first and name no place.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request},
    http::{HeaderMap, header},
};
use jsonschema::{Validator, error::ValidationErrorKind};
use serde::de::DeserializeOwned;
use serde_json::Value;
use utoipa::PartialSchema;

use super::problem::{Code, Fault, Problem};

/// The largest body of a request, in bytes.
pub const MAX_BYTES: usize = 1024 * 1024;

/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(15);

/// A body that is accepted.
pub trait RequestBody: DeserializeOwned + PartialSchema {
    /// The compiled schema; made once.
    fn validator() -> &'static Validator;
}

/// Makes types request bodies.
macro_rules! request_bodies {
    ($($body:ty),+ $(,)?) => {$(
        impl $crate::api::body::RequestBody for $body {
            fn validator() -> &'static jsonschema::Validator {
                static VALIDATOR: std::sync::LazyLock<jsonschema::Validator> =
                    std::sync::LazyLock::new($crate::api::body::compile::<$body>);
                &VALIDATOR
            }
        }
    )+};
}
pub(super) use request_bodies;

/// Compiles the schema that utoipa derived.
pub(super) fn compile<B: PartialSchema>() -> Validator {
    let schema = serde_json::to_value(B::schema()).expect("a derived schema is JSON");
    jsonschema::validator_for(&schema).expect("a derived schema without references compiles")
}

/// A parsed body. An empty one counts as `{}`.
#[derive(Debug)]
pub struct Parsed<B>(pub B);

impl<B: RequestBody, S: Send + Sync> FromRequest<S> for Parsed<B> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let value = json(request).await?;
        let faults: Vec<Fault> = B::validator()
            .iter_errors(&value)
            .flat_map(|error| faults(&error))
            .collect();
        if !faults.is_empty() {
            return Err(Problem::invalid(faults));
        }
        serde_json::from_value(value)
            .map(Self)
            .map_err(|_| Problem::new(Code::Invalid, "the body does not fit"))
    }
}

/// Any JSON, for what has a schema of its own.
#[derive(Debug)]
pub struct AnyJson(pub Value);

impl<S: Send + Sync> FromRequest<S> for AnyJson {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        json(request).await.map(Self)
    }
}

async fn json(request: Request) -> Result<Value, Problem> {
    check_media_type(request.headers())?;
    let bytes = read(request.into_body()).await?;
    if bytes.is_empty() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    serde_json::from_slice(&bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        Problem::new(Code::MalformedJson, format!("line {line}, column {column}"))
    })
}

/// Reads a whole body within ceiling and time.
pub(super) async fn read(body: Body) -> Result<Bytes, Problem> {
    match tokio::time::timeout(PATIENCE, axum::body::to_bytes(body, MAX_BYTES)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(Problem::new(Code::BodyTooLarge, "at most 1 MiB, and whole")),
        Err(_) => Err(Problem::new(Code::SlowRequest, "send it within 15 s")),
    }
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(given) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let essence = given.to_str().ok().and_then(|text| text.split(';').next());
    match essence.map(str::trim) {
        Some("application/json" | "application/merge-patch+json") => Ok(()),
        _ => Err(Problem::new(
            Code::UnsupportedMediaType,
            "send `Content-Type: application/json`",
        )),
    }
}

fn faults(error: &jsonschema::ValidationError<'_>) -> Vec<Fault> {
    let at = error.instance_path().to_string();
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => unexpected
            .iter()
            .map(|field| {
                let pointer = format!("{at}/{}", field.replace('~', "~0").replace('/', "~1"));
                Fault::new(&pointer, "unknown_field", "there is no such field")
            })
            .collect(),
        ValidationErrorKind::Required { property } => {
            let pointer = format!("{at}/{}", property.as_str().unwrap_or_default());
            vec![Fault::new(&pointer, "required", "this field is needed")]
        }
        // Masked: the value may be a password.
        kind => vec![Fault::new(&at, kind.keyword(), error.masked().to_string())],
    }
}
