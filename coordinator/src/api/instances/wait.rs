//! Waiting for a status.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::view::{InstanceView, view};
use crate::{
    api::{
        ApiState,
        params::{MAX_WAIT_S, Params},
        problem::{Code, Problem, ProblemBody},
        waiting,
    },
    model::InstanceStatus,
};

/// What to wait for, and for how long.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WaitParams {
    /// `running` if absent.
    status: Option<InstanceStatus>,
    /// 0 to 60; 60 if absent.
    timeout_s: Option<u64>,
}

/// Answers once the instance has the status.
///
/// 408 with the present state when the time is up, or at once when it cannot get there any more.
#[utoipa::path(get, path = "/v1/instances/{id}/wait", tag = "instances", params(("id" = String, Path, description = "Id or name"), WaitParams),
    responses(
        (status = 200, body = InstanceView), (status = 408, body = InstanceView),
        (status = "default", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(in crate::api) async fn wait(
    State(state): State<Arc<ApiState>>,
    Path(key): Path<String>,
    Params(params): Params<WaitParams>,
) -> Result<(StatusCode, Json<InstanceView>), Problem> {
    let wanted = params.status.unwrap_or(InstanceStatus::Running);
    let timeout_s = params.timeout_s.unwrap_or(MAX_WAIT_S);
    if timeout_s > MAX_WAIT_S {
        return Err(Problem::new(
            Code::InvalidParameter,
            "`timeout_s` is 0 to 60",
        ));
    }
    let found = super::find(&state, &key).await?;
    let patience = Duration::from_secs(timeout_s);
    let instance = waiting::until(&state, found.id, patience, |instance, _| {
        instance.status == wanted || !may_become(instance.status, wanted)
    })
    .await?;
    let status = if instance.status == wanted {
        StatusCode::OK
    } else {
        StatusCode::REQUEST_TIMEOUT
    };
    Ok((status, Json(view(&state, instance).await?)))
}

/// Whether waiting can make sense.
fn may_become(present: InstanceStatus, wanted: InstanceStatus) -> bool {
    match present {
        InstanceStatus::Failed => {
            matches!(wanted, InstanceStatus::Deleted | InstanceStatus::Purged)
        }
        // What is deleted may be brought back.
        InstanceStatus::Pending
        | InstanceStatus::Starting
        | InstanceStatus::Running
        | InstanceStatus::Stopped
        | InstanceStatus::Suspended
        | InstanceStatus::Deleted => true,
        InstanceStatus::Purged => false,
    }
}
