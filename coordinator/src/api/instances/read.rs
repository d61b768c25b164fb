//! Showing one instance, and listing them.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderName, header},
};
use serde::{Deserialize, Serialize};
use tidepool_shared::document::Generation;
use utoipa::{IntoParams, ToSchema};

use super::view::{InstanceView, view};
use crate::{
    api::{
        ApiState,
        page::{self, PageInfo},
        params::Params,
        problem::{Problem, ProblemBody},
    },
    model::InstanceStatus,
    store::Page,
};

/// A page of instances.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Instances {
    pub data: Vec<InstanceView>,
    pub page: PageInfo,
}

/// Which instances to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListParams {
    /// Only these; without it all but the deleted.
    status: Option<InstanceStatus>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// 1 to 200.
    limit: Option<u32>,
}

/// Lists instances, oldest first.
#[utoipa::path(get, path = "/v1/instances", tag = "instances", params(ListParams),
    responses((status = 200, body = Instances), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn list(
    State(state): State<Arc<ApiState>>,
    Params(params): Params<ListParams>,
) -> Result<Json<Instances>, Problem> {
    let limit = page::limit(params.limit, page::MAX_LIMIT)?;
    let after = params
        .cursor
        .as_deref()
        .map(page::read_cursor)
        .transpose()?;
    let wanted = Page {
        after,
        limit: limit.saturating_add(1),
    };
    let mut instances = state.store.instances(params.status, &wanted).await?;
    let page = page::cut(&mut instances, limit, |instance| {
        page::cursor(&instance.id.to_string())
    });
    let mut data = Vec::with_capacity(instances.len());
    for instance in instances {
        data.push(view(&state, instance).await?);
    }
    Ok(Json(Instances { data, page }))
}

/// Shows an instance, by id or name. Its `ETag` is its generation.
#[utoipa::path(get, path = "/v1/instances/{id}", tag = "instances", params(("id" = String, Path, description = "Id or name")),
    responses((status = 200, body = InstanceView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn show(
    State(state): State<Arc<ApiState>>,
    Path(key): Path<String>,
) -> Result<([(HeaderName, String); 1], Json<InstanceView>), Problem> {
    let instance = super::find(&state, &key).await?;
    let etag = etag(instance.generation);
    Ok(([etag], Json(view(&state, instance).await?)))
}

/// The `ETag` of a generation.
pub(super) fn etag(generation: Generation) -> (HeaderName, String) {
    (header::ETAG, format!("\"{generation}\""))
}
