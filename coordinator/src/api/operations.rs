//! Operations: what is or was under way on an instance.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    ApiState,
    problem::{Code, Problem, ProblemBody},
};
use crate::model::{Operation, OperationKind, OperationState, OperationStep};

/// An operation as the API shows it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct OperationView {
    pub id: String,
    pub instance_id: String,
    pub kind: OperationKind,
    pub state: OperationState,
    pub steps: Vec<OperationStep>,
    /// Why it failed, for a person.
    pub error: Option<String>,
    pub created_at: String,
    pub finished_at: Option<String>,
}

impl From<Operation> for OperationView {
    fn from(operation: Operation) -> Self {
        Self {
            id: operation.id.to_string(),
            instance_id: operation.instance.to_string(),
            kind: operation.kind,
            state: operation.state,
            steps: operation.steps,
            error: operation.error,
            created_at: operation.created_at.rfc3339(),
            finished_at: operation.finished_at.map(crate::ambient::Moment::rfc3339),
        }
    }
}

/// Shows an operation.
#[utoipa::path(get, path = "/v1/operations/{id}", tag = "operations", params(("id" = String, Path)),
    responses((status = 200, body = OperationView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn show(
    State(state): State<Arc<ApiState>>,
    Path(id): Path<String>,
) -> Result<Json<OperationView>, Problem> {
    let found = match id.parse() {
        Ok(id) => state.store.operation(id).await?,
        Err(_) => None,
    };
    found
        .map(|operation| Json(operation.into()))
        .ok_or_else(|| Problem::new(Code::NotFound, "no such operation"))
}
