//! The images that servers can be made from: which there are, how one does, and which one it is from now on.
//!
//! A trial is a wish in the store that whoever leads brings about ([`crate::pool::trial`]); a promotion is the
//! cloud's own state, changed here under a lease, because two at once could leave no image promoted.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidepool_shared::id::{CoordinatorId, VerificationId};
use utoipa::ToSchema;

use super::{
    ApiState,
    problem::{Code, Problem, ProblemBody},
};
use crate::{
    causes::chain,
    cloud::{CloudError, CloudImage, Fault},
    doorbell::Ring,
    model::{NewVerification, Server, ServerState, Verification, VerificationState},
    pool::trial::compare::{self, Compared},
};

/// A trial that has not ended by then is refused: a cloud takes up to twenty minutes to make a server.
const TRIAL_LIFETIME: Duration = Duration::from_mins(40);

/// Longer than a promotion takes.
const PROMOTION: Duration = Duration::from_mins(2);

/// All images, oldest first.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ImagesView {
    pub data: Vec<ImageView>,
    /// The trial that is under way.
    pub trial: Option<VerificationView>,
}

/// An image.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ImageView {
    pub id: String,
    pub created_at: String,
    pub age_s: u64,
    /// As it is kept.
    pub size_bytes: Option<u64>,
    pub openclaw_version: Option<String>,
    pub agent_version: Option<String>,
    /// New servers are made from it.
    pub promoted: bool,
    /// How many servers there are that were made from it.
    pub servers: u64,
    /// Its last trial that has ended.
    pub verification: Option<VerificationView>,
}

/// The trial of an image on a server of its own.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct VerificationView {
    pub id: String,
    pub image: String,
    pub state: VerificationState,
    /// In words for people: how far its server is while it runs.
    pub stage: String,
    pub server_id: Option<String>,
    pub openclaw_version: Option<String>,
    pub agent_version: Option<String>,
    pub figures: Vec<FigureView>,
    /// The promoted image with whose figures these were compared; nothing if it had none.
    pub compared_with: Option<String>,
    /// Why it was refused.
    pub problems: Vec<String>,
    pub created_at: String,
    pub expires_at: String,
    pub finished_at: Option<String>,
}

/// A figure of an image.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FigureView {
    pub name: String,
    /// `ms` or `MiB`.
    pub unit: String,
    pub measured: u64,
    /// The promoted image's.
    pub promoted: Option<u64>,
    /// The most that is good enough.
    pub limit: Option<u64>,
    pub good_enough: bool,
}

/// Lists the images that servers can be made from.
#[utoipa::path(get, path = "/v1/images", tag = "images",
    responses((status = 200, body = ImagesView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn list(State(state): State<Arc<ApiState>>) -> Result<Json<ImagesView>, Problem> {
    let data = all(&state).await?;
    let trial = match state.store.open_verification().await? {
        Some(trial) => Some(shown(&state, trial).await?),
        None => None,
    };
    Ok(Json(ImagesView { data, trial }))
}

/// Has an image tried: a server of its own is made of it, measured once it is warm, compared with the promoted image
/// and removed. One image at a time; asking again for the one that is being tried is answered with that trial.
#[utoipa::path(post, path = "/v1/images/{id}/verify", tag = "images", params(("id" = String, Path)),
    responses((status = 202, body = VerificationView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn verify(
    State(state): State<Arc<ApiState>>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<VerificationView>), Problem> {
    known(&state, &id).await?;
    let now = state.now();
    let new = NewVerification {
        id: VerificationId::new(state.chance.uuid(now)),
        image: id,
        expires_at: now.plus(TRIAL_LIFETIME),
    };
    let trial = state.store.want_verification(&new, now).await?;
    if trial.image != new.image {
        let detail = format!("image `{}` is being tried: one at a time", trial.image);
        return Err(Problem::new(Code::NotPossible, detail).retry_after(30));
    }
    Ok((StatusCode::ACCEPTED, Json(shown(&state, trial).await?)))
}

/// Shows a trial.
#[utoipa::path(get, path = "/v1/verifications/{id}", tag = "images", params(("id" = String, Path)),
    responses((status = 200, body = VerificationView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn verification(
    State(state): State<Arc<ApiState>>,
    Path(id): Path<String>,
) -> Result<Json<VerificationView>, Problem> {
    let unknown = || Problem::new(Code::NotFound, "no such verification");
    let id: VerificationId = id.parse().map_err(|_| unknown())?;
    let found = state.store.verification(id).await?.ok_or_else(unknown)?;
    Ok(Json(shown(&state, found).await?))
}

/// Makes an image the one that new servers are made from, and idle servers of others are replaced by, one after the
/// other. Only if its last trial passed. Promoting one of before is how to go back; repeating it is done, too.
#[utoipa::path(post, path = "/v1/images/{id}/promote", tag = "images", params(("id" = String, Path)),
    responses((status = 200, body = ImageView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn promote(
    State(state): State<Arc<ApiState>>,
    Path(id): Path<String>,
) -> Result<Json<ImageView>, Problem> {
    let image = known(&state, &id).await?;
    let passed = image
        .verification
        .is_some_and(|last| last.state == VerificationState::Passed);
    if !passed {
        let detail = "its last verification did not pass, or there was none: verify it first";
        return Err(Problem::new(Code::NotPossible, detail));
    }
    let now = state.now();
    let holder = CoordinatorId::new(state.chance.uuid(now));
    let lease = state
        .store
        .acquire_lease("promotion", holder, PROMOTION, now);
    if lease.await?.is_none() {
        let detail = "another image is being promoted";
        return Err(Problem::new(Code::Changed, detail).retry_after(5));
    }
    let promoted = move_to(&state, &id).await;
    state.store.release_lease("promotion", holder).await?;
    promoted?;
    known(&state, &id).await.map(Json)
}

/// Under the lease: what is promoted before is what is promoted until this.
async fn move_to(state: &ApiState, id: &str) -> Result<(), Problem> {
    let images = state.cloud.images().await.map_err(|error| cloudy(&error))?;
    let before: Vec<String> = images
        .into_iter()
        .filter(|image| image.is_promoted)
        .map(|image| image.id)
        .collect();
    state
        .cloud
        .promote(id)
        .await
        .map_err(|error| cloudy(&error))?;
    state.doorbell.ring(Ring::Images);
    if before.iter().any(|before| before == id) {
        return Ok(());
    }
    let data = json!({ "image": id, "before": before });
    state
        .store
        .tell("image.promoted", data, state.now())
        .await?;
    state.doorbell.ring(Ring::Events);
    Ok(())
}

async fn known(state: &ApiState, id: &str) -> Result<ImageView, Problem> {
    let all = all(state).await?;
    all.into_iter()
        .find(|image| image.id == id)
        .ok_or_else(|| Problem::new(Code::NotFound, "no such image"))
}

pub(super) async fn all(state: &ApiState) -> Result<Vec<ImageView>, Problem> {
    let images = state.cloud.images().await.map_err(|error| cloudy(&error))?;
    let servers = state.store.servers().await?;
    let mut last = state.store.last_verifications().await?;
    let view = |image: CloudImage| {
        let place = last.iter().position(|last| last.image == image.id);
        let verification = place.map(|place| view(last.swap_remove(place), None));
        let of_trial = |of: fn(&VerificationView) -> &Option<String>| {
            verification.as_ref().and_then(|trial| of(trial).clone())
        };
        ImageView {
            created_at: image.created_at.rfc3339(),
            age_s: state.now().since(image.created_at).as_secs(),
            size_bytes: image.size_bytes,
            openclaw_version: image
                .openclaw_version
                .or_else(|| of_trial(|trial| &trial.openclaw_version)),
            agent_version: image
                .agent_version
                .or_else(|| of_trial(|trial| &trial.agent_version)),
            promoted: image.is_promoted,
            servers: in_use(&servers, &image.id),
            id: image.id,
            verification,
        }
    };
    Ok(images.into_iter().map(view).collect())
}

fn in_use(servers: &[Server], image: &str) -> u64 {
    let used = servers
        .iter()
        .filter(|server| server.image.as_deref() == Some(image))
        .count();
    u64::try_from(used).unwrap_or(u64::MAX)
}

async fn shown(state: &ApiState, verification: Verification) -> Result<VerificationView, Problem> {
    let server = match verification.server {
        Some(id) => state.store.server(id).await?,
        None => None,
    };
    Ok(view(verification, server.as_ref()))
}

fn view(verification: Verification, server: Option<&Server>) -> VerificationView {
    let stage = stage(&verification, server).to_owned();
    let baseline = verification.baseline;
    let compared = verification.figures.map(|figures| {
        compare::compare(
            &figures,
            baseline.as_ref().map(|baseline| &baseline.figures),
        )
    });
    let manifest = verification.manifest;
    VerificationView {
        id: verification.id.to_string(),
        image: verification.image,
        state: verification.state,
        stage,
        server_id: verification.server.map(|id| id.to_string()),
        openclaw_version: manifest
            .as_ref()
            .map(|manifest| manifest.openclaw_version.clone()),
        agent_version: manifest
            .and_then(|manifest| manifest.build)
            .map(|build| build.agent_version),
        figures: compared
            .unwrap_or_default()
            .into_iter()
            .map(Into::into)
            .collect(),
        compared_with: baseline.map(|baseline| baseline.image),
        problems: verification.problems,
        created_at: verification.created_at.rfc3339(),
        expires_at: verification.expires_at.rfc3339(),
        finished_at: verification
            .finished_at
            .map(crate::ambient::Moment::rfc3339),
    }
}

fn stage(verification: &Verification, server: Option<&Server>) -> &'static str {
    match (verification.state, server) {
        (VerificationState::Running, Some(server)) => match server.state {
            // A link was opened, so it has its certificate.
            ServerState::Booting if server.epoch > 0 => "enrolled",
            state => state.word(),
        },
        (state, _) => state.word(),
    }
}

impl From<Compared> for FigureView {
    fn from(compared: Compared) -> Self {
        Self {
            name: compared.name.to_owned(),
            unit: compared.unit.to_owned(),
            measured: compared.measured,
            promoted: compared.promoted,
            limit: compared.limit,
            good_enough: compared.is_good_enough(),
        }
    }
}

/// What the caller learns of a cloud that did not do it. What is wrong with the request is said in our own words.
fn cloudy(error: &CloudError) -> Problem {
    tracing::warn!(error = %chain(error), "the cloud did not do what was asked about images");
    match error.fault {
        Fault::Invalid => Problem::new(Code::NotPossible, error.source.to_string()),
        Fault::NoCapacity
        | Fault::LimitReached
        | Fault::Unauthorized
        | Fault::Unknown
        | Fault::Busy => {
            Problem::new(Code::ServerUnreachable, "the cloud does not do it now").retry_after(30)
        }
    }
}
