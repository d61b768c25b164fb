//! One call as the operations see it, and what they answer.

use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::refusal::Refusal;

/// What an operation answers.
pub(super) type Outcome = Result<Reply, Refusal>;

/// A call whose body fits its schema.
#[derive(Clone)]
pub(super) struct Call {
    /// The number in the path, if there is one.
    id: Option<u64>,
    query: Vec<(String, String)>,
    body: Value,
}

impl Call {
    pub(super) fn new(id: Option<u64>, query: Vec<(String, String)>, body: Value) -> Self {
        Self { id, query, body }
    }

    /// The number in the path; `what` it is of, as in `server`.
    pub(super) fn id(&self, what: &str) -> Result<u64, Refusal> {
        self.id.ok_or_else(|| Refusal::not_found(what))
    }

    /// The first value of a query parameter. Empty ones count as absent.
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        let given = self.query.iter();
        let mut given = given.filter(|(key, value)| key == name && !value.is_empty());
        given.next().map(|(_, value)| value.as_str())
    }

    /// Every value of a query parameter.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.query
            .iter()
            .filter(move |(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// Whether a query parameter is absent or one of its values is this.
    pub(super) fn admits(&self, name: &str, value: &str) -> bool {
        let mut wanted = self.all(name).peekable();
        wanted.peek().is_none() || wanted.any(|wanted| wanted == value)
    }

    /// The body. It fits its schema, so only what no schema says is left to be wrong.
    pub(super) fn body<B: DeserializeOwned>(&self) -> Result<B, Refusal> {
        serde_json::from_value(self.body.clone())
            .map_err(|error| Refusal::invalid(format!("invalid input: {error}")))
    }
}

/// A good answer.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    /// `None` with 204.
    pub(super) body: Option<Value>,
}

impl Reply {
    pub(super) fn ok(body: Value) -> Self {
        Self {
            status: StatusCode::OK,
            body: Some(body),
        }
    }

    pub(super) fn created(body: Value) -> Self {
        Self {
            status: StatusCode::CREATED,
            body: Some(body),
        }
    }

    pub(super) fn empty() -> Self {
        Self {
            status: StatusCode::NO_CONTENT,
            body: None,
        }
    }
}
