//! Showing and changing a customer's configuration.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderName, StatusCode},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidepool_shared::{
    document::{Generation, Power},
    id::OperationId,
};
use utoipa::{IntoParams, ToSchema};

use super::read::etag;
use crate::{
    api::{
        ApiState,
        body::AnyJson,
        operations::OperationView,
        params::{IfMatch, Params, PreferWait},
        problem::{Code, Fault, Problem, ProblemBody},
        waiting,
    },
    config::{self, redact::redacted},
    instance,
    model::{Instance, InstanceStatus},
    store::ChangeRefused,
};

/// How often a change without `If-Match` is prepared anew when others were faster.
const ATTEMPTS: u32 = 4;

/// A configuration and how far it is applied.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ConfigView {
    /// What the customer configured; secrets are shown as `{set, last4}`.
    #[schema(value_type = Object)]
    pub config: Value,
    pub generation: u64,
    pub observed_generation: u64,
    /// The change, if this answer is of one and it was needed.
    pub operation: Option<OperationView>,
}

/// How to change it.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PatchParams {
    /// Only check, and show what would be.
    dry_run: Option<bool>,
}

type Answer = (StatusCode, [(HeaderName, String); 1], Json<ConfigView>);

/// Shows the configuration. Its `ETag` is the generation.
#[utoipa::path(get, path = "/v1/instances/{id}/config", tag = "config", params(("id" = String, Path, description = "Id or name")),
    responses((status = 200, body = ConfigView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn show(
    State(state): State<Arc<ApiState>>,
    Path(key): Path<String>,
) -> Result<Answer, Problem> {
    let instance = super::find_living(&state, &key).await?;
    Ok(answer(StatusCode::OK, &instance, &instance.config, None))
}

/// Changes the configuration by a JSON merge patch.
///
/// 202 while it is being applied; 200 once it is, or when there was nothing to change.
#[utoipa::path(patch, path = "/v1/instances/{id}/config", tag = "config", request_body(content = Object, content_type = "application/merge-patch+json"),
    params(
        ("id" = String, Path, description = "Id or name"), PatchParams,
        ("If-Match" = Option<String>, Header, description = "The ETag that the change is meant for"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: hold the answer up to N ≤ 60 seconds"),
    ),
    responses(
        (status = 200, body = ConfigView), (status = 202, body = ConfigView),
        (status = "default", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(in crate::api) async fn patch(
    State(state): State<Arc<ApiState>>,
    Path(key): Path<String>,
    Params(params): Params<PatchParams>,
    IfMatch(expected): IfMatch,
    PreferWait(patience): PreferWait,
    AnyJson(patch): AnyJson,
) -> Result<Answer, Problem> {
    for _ in 0..ATTEMPTS {
        let instance = super::find_living(&state, &key).await?;
        check_generation(&instance, expected)?;
        let wanted = merged(&state, &instance, &patch)?;
        if params.dry_run == Some(true) || wanted == instance.config {
            return Ok(answer(StatusCode::OK, &instance, &wanted, None));
        }
        // There is no gateway that could say whether it takes it.
        if instance.status.power() == Power::Off {
            let detail = format!("it is {}", instance.status.word());
            return Err(Problem::new(Code::NotPossible, detail));
        }
        let operation = OperationId::new(state.chance.uuid(state.now()));
        let limits = state.limits(&instance.pool);
        let change = instance::reconfigure(&instance, wanted, operation, limits);
        match state.store.change_document(&change, state.now()).await {
            Ok(changed) => {
                super::ring(&state, &changed);
                return applied(&state, changed, operation, patience).await;
            }
            Err(ChangeRefused::Stale(_)) if expected.is_none() => {}
            Err(error) => return Err(super::refused(error)),
        }
    }
    Err(Problem::new(Code::Changed, "try again").retry_after(1))
}

fn check_generation(instance: &Instance, expected: Option<Generation>) -> Result<(), Problem> {
    match expected {
        Some(expected) if expected != instance.generation => {
            Err(super::refused(ChangeRefused::Stale(instance.generation)))
        }
        _ => Ok(()),
    }
}

fn merged(state: &ApiState, instance: &Instance, patch: &Value) -> Result<Value, Problem> {
    config::apply(&state.schema, &instance.config, patch).map_err(|findings| {
        let faults = findings.iter().map(|finding| Fault::in_config("", finding));
        Problem::invalid(faults.collect())
    })
}

async fn applied(
    state: &ApiState,
    changed: Instance,
    operation: OperationId,
    patience: Duration,
) -> Result<Answer, Problem> {
    let instance = waiting::until(state, changed.id, patience, |instance, busy| {
        !busy || instance.status == InstanceStatus::Deleted
    })
    .await?;
    let operation = state.store.operation(operation).await?;
    let over = operation
        .as_ref()
        .is_some_and(|op| op.finished_at.is_some());
    let status = if over {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    let operation = operation.map(Into::into);
    Ok(answer(status, &instance, &instance.config, operation))
}

fn answer(
    status: StatusCode,
    instance: &Instance,
    config: &Value,
    operation: Option<OperationView>,
) -> Answer {
    let view = ConfigView {
        config: redacted(config),
        generation: instance.generation.0,
        observed_generation: instance.observed.0,
        operation,
    };
    (status, [etag(instance.generation)], Json(view))
}
