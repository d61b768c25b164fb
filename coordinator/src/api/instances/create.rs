//! `POST /v1/instances`: the claim, as the customer's web app sees it.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::{HeaderName, StatusCode, header},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::view::{InstanceView, view};
use crate::{
    api::{
        ApiState,
        body::{Parsed, request_bodies},
        params::PreferWait,
        problem::{Code, Fault, Problem, ProblemBody},
        waiting,
    },
    config,
    doorbell::Ring,
    instance::{self, Name, Wish},
    model::{Instance, InstanceStatus},
    store::CreateRefused,
};

/// A wish for an instance.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateInstance {
    /// The first label of its host name: a-z, 0-9 and hyphens.
    pub name: String,
    /// The first tier if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// The tier's first region if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The caller's own id; unique.
    #[schema(min_length = 1, max_length = 128)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// OpenClaw configuration, as a merge patch over what every instance has.
    #[schema(value_type = Option<Object>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Value>,
}

request_bodies!(CreateInstance);

type Created = (StatusCode, [(HeaderName, String); 1], Json<InstanceView>);

/// Creates an instance.
///
/// 201 if it is running by the time of the answer (see `Prefer`), else 202 with the operation.
#[utoipa::path(post, path = "/v1/instances", tag = "instances", request_body = CreateInstance,
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "Replays the first answer to the same request"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: hold the answer up to N ≤ 60 seconds"),
    ),
    responses(
        (status = 201, body = InstanceView), (status = 202, body = InstanceView),
        (status = "default", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(in crate::api) async fn create(
    State(state): State<Arc<ApiState>>,
    PreferWait(patience): PreferWait,
    Parsed(body): Parsed<CreateInstance>,
) -> Result<Created, Problem> {
    let wish = parse(&state, body)?;
    // The customer's time runs from here.
    let now = state.now();
    let new = instance::prepare(wish, &state.names, now, &state.chance);
    let created = state
        .store
        .create_instance(&new, now)
        .await
        .map_err(refused)?;
    super::ring(&state, &created);
    state.doorbell.ring(Ring::Pool);
    let instance = settled(&state, created, patience).await?;
    let status = match instance.status {
        InstanceStatus::Running => StatusCode::CREATED,
        InstanceStatus::Pending
        | InstanceStatus::Starting
        | InstanceStatus::Stopped
        | InstanceStatus::Suspended
        | InstanceStatus::Deleted
        | InstanceStatus::Purged
        | InstanceStatus::Failed => StatusCode::ACCEPTED,
    };
    let location = format!("/v1/operations/{}", new.operation);
    let view = view(&state, instance).await?;
    Ok((status, [(header::LOCATION, location)], Json(view)))
}

/// Waits until the instance is more than on its way.
async fn settled(
    state: &ApiState,
    created: Instance,
    patience: Duration,
) -> Result<Instance, Problem> {
    if patience.is_zero() {
        return Ok(created);
    }
    waiting::until(state, created.id, patience, |instance, _| {
        match instance.status {
            InstanceStatus::Pending | InstanceStatus::Starting => false,
            InstanceStatus::Running
            | InstanceStatus::Stopped
            | InstanceStatus::Suspended
            | InstanceStatus::Deleted
            | InstanceStatus::Purged
            | InstanceStatus::Failed => true,
        }
    })
    .await
}

/// Makes a wish of the body, or tells all that is wrong with it.
fn parse(state: &ApiState, body: CreateInstance) -> Result<Wish, Problem> {
    let mut faults = Vec::new();
    let name = body.name.parse::<Name>();
    if let Err(error) = &name {
        faults.push(Fault::new("/name", "invalid_name", error.to_string()));
    }
    let pool = state.pool(body.tier.as_deref(), body.region.as_deref());
    if pool.is_none() {
        faults.push(no_pool(state, body.tier.as_deref()));
    }
    let external_id = body.external_id;
    if external_id
        .as_deref()
        .is_some_and(|id| id.chars().any(char::is_control))
    {
        let detail = "control characters are not taken";
        faults.push(Fault::new("/external_id", "invalid", detail));
    }
    let patch = body.config.unwrap_or_else(|| json!({}));
    let config = config::apply(&state.schema, &json!({}), &patch);
    if let Err(findings) = &config {
        faults.extend(
            findings
                .iter()
                .map(|finding| Fault::in_config("/config", finding)),
        );
    }
    match (name, pool, config) {
        (Ok(name), Some(outlook), Ok(config)) if faults.is_empty() => Ok(Wish {
            name,
            pool: outlook.pool.clone(),
            limits: outlook.limits,
            external_id,
            config,
        }),
        _ => Err(Problem::invalid(faults)),
    }
}

/// Which of tier and region is unknown.
fn no_pool(state: &ApiState, tier: Option<&str>) -> Fault {
    match state.pool(tier, None) {
        None => Fault::new("/tier", "unknown_tier", "there is no such tier"),
        Some(_) => Fault::new(
            "/region",
            "unknown_region",
            "the tier is not in that region",
        ),
    }
}

fn refused(refused: CreateRefused) -> Problem {
    match refused {
        CreateRefused::NameTaken => Problem::new(Code::NameTaken, "choose another name")
            .pointing_at(Fault::new("/name", "taken", "another instance has it")),
        CreateRefused::ExternalIdTaken(id) => Problem::new(
            Code::ExternalIdTaken,
            "it was created before",
        )
        .pointing_at(Fault::new("/external_id", "taken", format!("{id} has it"))),
        CreateRefused::Store(error) => error.into(),
    }
}
