//! Customers' own host names for an instance.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{find, find_living, gone, ring};
use crate::{
    ambient::Moment,
    api::{
        ApiState,
        body::{Parsed, request_bodies},
        problem::{Code, Problem, ProblemBody},
    },
    domains::{self, DomainName},
    instance,
    model::{Domain, DomainState, Instance},
    store::{DomainRefused, Transition},
};

/// A name to add.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddDomain {
    /// A host name of at least two labels, in Unicode or as DNS has it.
    #[schema(min_length = 1, max_length = 253)]
    pub domain: String,
}

request_bodies!(AddDomain);

/// A record that its owner puts into DNS.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DomainRecord {
    /// `TXT`, or `CNAME`; in place of the latter A and AAAA records with the same addresses do, too.
    #[serde(rename = "type")]
    pub kind: String,
    pub name: String,
    pub value: String,
}

/// A customer's own name, and how far it is.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DomainView {
    /// As DNS has it: lower case, Unicode encoded.
    pub domain: String,
    pub state: DomainState,
    /// Why it is no further, or what is wrong with it; for a person.
    pub problem: Option<String>,
    pub url: String,
    pub records: Vec<DomainRecord>,
    pub created_at: String,
    /// When it is looked at again.
    pub next_check_at: Option<String>,
    pub certificate_expires_at: Option<String>,
}

/// An instance's domains.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DomainList {
    pub data: Vec<DomainView>,
}

/// Lists the domains of an instance.
#[utoipa::path(get, path = "/v1/instances/{id}/domains", tag = "access", params(("id" = String, Path, description = "Id or name")),
    responses((status = 200, body = DomainList), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn list(
    State(state): State<Arc<ApiState>>,
    Path(key): Path<String>,
) -> Result<Json<DomainList>, Problem> {
    let instance = find(&state, &key).await?;
    let domains = state.store.domains_of(instance.id).await?;
    let data = domains.iter().map(|domain| view(&state, &instance, domain));
    Ok(Json(DomainList {
        data: data.collect(),
    }))
}

/// Adds a domain.
///
/// Nothing leads there until its owner has put the answered `records` into DNS. They are looked for again and again
/// for seven days. At most eight an instance.
#[utoipa::path(post, path = "/v1/instances/{id}/domains", tag = "access", request_body = AddDomain, params(("id" = String, Path, description = "Id or name")),
    responses((status = 201, body = DomainView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn add(
    State(state): State<Arc<ApiState>>,
    Path(key): Path<String>,
    Parsed(body): Parsed<AddDomain>,
) -> Result<(StatusCode, Json<DomainView>), Problem> {
    let Some(target) = &state.domain_target else {
        let detail = "this deployment serves no names of customers (`edge.domains`)";
        return Err(Problem::new(Code::NotPossible, detail));
    };
    let name = DomainName::read(&body.domain, &[&state.names.domain, target]);
    let name = name.map_err(|why| Problem::field("/domain", "invalid_domain", why.to_string()))?;
    let instance = find_living(&state, &key).await?;
    let token = state.chance.secret();
    let added = state
        .store
        .add_domain(name.as_str(), instance.id, &token, state.now())
        .await;
    let added = added.map_err(refused)?;
    ring(&state, &instance);
    let view = view(&state, &instance, &added);
    Ok((StatusCode::CREATED, Json(view)))
}

/// Shows a domain.
#[utoipa::path(get, path = "/v1/instances/{id}/domains/{domain}", tag = "access",
    params(("id" = String, Path, description = "Id or name"), ("domain" = String, Path)),
    responses((status = 200, body = DomainView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn show(
    State(state): State<Arc<ApiState>>,
    Path((key, name)): Path<(String, String)>,
) -> Result<Json<DomainView>, Problem> {
    let instance = find(&state, &key).await?;
    let found = state.store.domain(&spelt(&name), instance.id).await?;
    let found = found.ok_or_else(no_such_domain)?;
    Ok(Json(view(&state, &instance, &found)))
}

/// Removes a domain: it leads nowhere from now on, and open connections end.
#[utoipa::path(delete, path = "/v1/instances/{id}/domains/{domain}", tag = "access",
    params(("id" = String, Path, description = "Id or name"), ("domain" = String, Path)),
    responses((status = 204), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn remove(
    State(state): State<Arc<ApiState>>,
    Path((key, name)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let instance = find(&state, &key).await?;
    let removed = state
        .store
        .remove_domain(&spelt(&name), instance.id, state.now())
        .await?;
    if removed == Transition::NotPossible {
        return Err(no_such_domain());
    }
    ring(&state, &instance);
    Ok(StatusCode::NO_CONTENT)
}

/// Has a domain looked at now; a failed one begins anew, five minutes after it failed.
///
/// An order of a certificate that failed is repeated in its own time (`next_check_at`).
#[utoipa::path(post, path = "/v1/instances/{id}/domains/{domain}/check", tag = "access",
    params(("id" = String, Path, description = "Id or name"), ("domain" = String, Path)),
    responses((status = 202, body = DomainView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn check(
    State(state): State<Arc<ApiState>>,
    Path((key, name)): Path<(String, String)>,
) -> Result<(StatusCode, Json<DomainView>), Problem> {
    let instance = find_living(&state, &key).await?;
    let name = spelt(&name);
    let now = state.now();
    let checked = state.store.check_domain(&name, instance.id, now).await?;
    let found = state.store.domain(&name, instance.id).await?;
    let found = found.ok_or_else(no_such_domain)?;
    if checked == Transition::NotPossible {
        let detail = "it has failed only now: ask again in five minutes";
        return Err(Problem::new(Code::NotPossible, detail));
    }
    ring(&state, &instance);
    Ok((StatusCode::ACCEPTED, Json(view(&state, &instance, &found))))
}

/// The name of a domain of this instance that is served, as a person wrote it.
pub(super) async fn served(
    state: &ApiState,
    instance: &Instance,
    name: &str,
) -> Result<Domain, Problem> {
    let found = state.store.domain(&spelt(name), instance.id).await?;
    let found =
        found.ok_or_else(|| Problem::field("/domain", "unknown", "it has no such domain"))?;
    match found.state {
        DomainState::Active | DomainState::Expiring => Ok(found),
        DomainState::PendingDns | DomainState::Issuing | DomainState::Failed => {
            let detail = format!("the domain is {}, not active", found.state.word());
            Err(Problem::new(Code::NotPossible, detail))
        }
    }
}

/// As it is kept; what is no name is kept nowhere.
fn spelt(name: &str) -> String {
    match DomainName::read(name, &[]) {
        Ok(name) => name.to_string(),
        Err(_) => name.to_owned(),
    }
}

fn no_such_domain() -> Problem {
    Problem::new(Code::NotFound, "no such domain")
}

fn refused(refused: DomainRefused) -> Problem {
    match refused {
        DomainRefused::NotFound => gone(),
        DomainRefused::Taken => Problem::new(Code::NameTaken, refused.to_string()),
        DomainRefused::TooMany => Problem::new(Code::NotPossible, refused.to_string()),
        DomainRefused::Store(error) => error.into(),
    }
}

fn view(state: &ApiState, instance: &Instance, domain: &Domain) -> DomainView {
    let target = state.domain_target.as_deref().unwrap_or_default();
    let records = domains::records(domain, target);
    DomainView {
        domain: domain.name.clone(),
        state: domain.state,
        problem: domain.problem.clone(),
        url: instance::origin(instance, &domain.name),
        records: records
            .into_iter()
            .map(|record| DomainRecord {
                kind: record.kind.to_owned(),
                name: record.name,
                value: record.value,
            })
            .collect(),
        created_at: domain.created_at.rfc3339(),
        next_check_at: domain.next_check_at.map(Moment::rfc3339),
        certificate_expires_at: domain.certificate.map(|it| it.expires_at.rfc3339()),
    }
}
