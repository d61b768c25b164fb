//! What was used of models: of one instance by day and model, and of all record by record, for billing.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, Query, State},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    ApiState,
    instances::find,
    page,
    problem::{Code, Problem, ProblemBody},
};
use crate::{
    ambient::Moment,
    model::{UsageRecord, UsageSum},
};

const DAYS_MAX: u32 = 366;
const DAY: Duration = Duration::from_hours(24);
const MICROS_A_DAY: i64 = 86_400_000_000;

/// How far back.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UsageParams {
    /// Days, today included; 1 to 366.
    #[param(minimum = 1, maximum = 366)]
    days: Option<u32>,
}

/// What an instance used.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct UsageView {
    pub data: Vec<UsageRow>,
}

/// Of one model on one day. Tokens are in one count each; `input` is what came from no cache.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct UsageRow {
    /// UTC.
    pub day: String,
    pub provider: String,
    pub model: String,
    /// `managed` is charged; `own` went on the customer's key.
    pub payer: String,
    pub requests: u64,
    /// Of these without an exact count: the client left or the provider broke off.
    pub estimated: u64,
    /// Of these without a price, so not in the cost.
    pub unpriced: u64,
    pub input_tokens: u64,
    pub cache_read_tokens: u64,
    pub cache_write_tokens: u64,
    pub output_tokens: u64,
    /// Hundred-millionths of a US dollar.
    pub cost_microcents: u64,
}

impl From<UsageSum> for UsageRow {
    fn from(sum: UsageSum) -> Self {
        let day = Moment(sum.day.saturating_mul(MICROS_A_DAY)).rfc3339();
        Self {
            day: day.get(..10).unwrap_or(&day).to_owned(),
            provider: sum.provider,
            model: sum.model,
            payer: sum.payer,
            requests: sum.requests,
            estimated: sum.estimated,
            unpriced: sum.unpriced,
            input_tokens: sum.input,
            cache_read_tokens: sum.cache_read,
            cache_write_tokens: sum.cache_write,
            output_tokens: sum.output,
            cost_microcents: sum.cost_microcents,
        }
    }
}

/// Adds up what an instance used.
#[utoipa::path(get, path = "/v1/instances/{id}/usage", tag = "models", params(("id" = String, Path, description = "Id or name"), UsageParams),
    responses((status = 200, body = UsageView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn show(
    State(state): State<Arc<ApiState>>,
    Path(id): Path<String>,
    Query(params): Query<UsageParams>,
) -> Result<Json<UsageView>, Problem> {
    let days = params.days.unwrap_or(30);
    if !(1..=DAYS_MAX).contains(&days) {
        return Err(Problem::new(Code::InvalidParameter, "1 to 366 days"));
    }
    let id = find(&state, &id).await?.id;
    let now = state.now();
    let today = Moment(now.0 - now.0.rem_euclid(MICROS_A_DAY));
    let from = today.minus(DAY * (days - 1));
    let sums = state.store.usage(id, from, now.plus(DAY)).await?;
    let data = sums.into_iter().map(Into::into).collect();
    Ok(Json(UsageView { data }))
}

/// Records in a page, at most.
const RECORDS_MAX: u32 = 1000;

/// Where to go on.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RecordParams {
    /// The `next_cursor` of the page before.
    after: Option<String>,
    /// 1 to 1,000.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Some records, in the order in which they came to light.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct RecordPage {
    pub data: Vec<UsageRecord>,
    /// Pass it as `after` for what comes next, now or later; null as long as there is nothing.
    pub next_cursor: Option<String>,
}

/// Reads usage records of all instances, for billing. A reader that goes on from cursor to cursor reads each
/// record once, whatever is written meanwhile; one that starts again knows records by their ids.
#[utoipa::path(get, path = "/v1/usage/records", tag = "models", params(RecordParams),
    responses((status = 200, body = RecordPage), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn records(
    State(state): State<Arc<ApiState>>,
    Query(params): Query<RecordParams>,
) -> Result<Json<RecordPage>, Problem> {
    let limit = page::limit(params.limit, RECORDS_MAX)?;
    let after = params.after.as_deref().map(page::read_cursor).transpose()?;
    let read = state.store.usage_records(after, limit).await?;
    // At the end the cursor stays where it was.
    let last = read.last().map(|(cursor, _)| *cursor).or(after);
    Ok(Json(RecordPage {
        next_cursor: last.map(|cursor| page::cursor(&cursor.to_string())),
        data: read.into_iter().map(|(_, record)| record).collect(),
    }))
}
