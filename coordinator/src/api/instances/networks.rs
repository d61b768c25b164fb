//! Which private networks an instance's gateway may reach.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
};
use serde::{Deserialize, Serialize};
use tidepool_shared::{
    admission::{BadCidr, Cidr},
    id::OperationId,
    networks::{Networks, RefusedNetworks},
};
use utoipa::ToSchema;

use super::{
    find_living,
    view::{InstanceView, view},
};
use crate::{
    api::{
        ApiState,
        body::{Parsed, request_bodies},
        problem::{Fault, Problem, ProblemBody},
    },
    instance,
};

/// Private networks.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworksBody {
    /// Such as `10.20.0.0/16`; all of them: what is not in the list is taken away. Each is within `10.0.0.0/8`,
    /// `172.16.0.0/12`, `192.168.0.0/16`, `100.64.0.0/10` or `fc00::/7`.
    #[schema(max_items = 16)]
    pub networks: Vec<String>,
}

request_bodies!(NetworksBody);

impl NetworksBody {
    fn read(&self) -> Result<Networks, Problem> {
        let mut networks = Vec::with_capacity(self.networks.len());
        let mut faults = Vec::new();
        for (number, text) in self.networks.iter().enumerate() {
            match read_one(text) {
                Ok(network) => networks.push(network),
                Err(why) => {
                    let pointer = format!("/networks/{number}");
                    faults.push(Fault::new(&pointer, "invalid_network", why));
                }
            }
        }
        if !faults.is_empty() {
            return Err(Problem::invalid(faults));
        }
        let refused =
            |why: RefusedNetworks| Problem::field("/networks", "invalid_network", why.to_string());
        networks.try_into().map_err(refused)
    }
}

/// One network that would be accepted alone, so that every fault has its place.
fn read_one(text: &str) -> Result<Cidr, String> {
    let network: Cidr = text.parse().map_err(|why: BadCidr| why.to_string())?;
    match Networks::try_from(vec![network]) {
        Ok(_) => Ok(network),
        Err(why) => Err(why.to_string()),
    }
}

/// Sets which private networks an instance's gateway may reach, all of them; an empty list takes all away.
///
/// They are an exception to the packet filter of the instance's server: without one, a gateway reaches no private
/// network. The cloud's metadata, link-local addresses and the main servers' own ports stay out of its reach whatever is
/// named. Connections to a network that is taken away are cut. Where gateways are processes of one machine there is no
/// packet filter, and nothing changes; nor does it on a server whose image is older than this.
#[utoipa::path(put, path = "/v1/instances/{id}/networks", tag = "instances", request_body = NetworksBody, params(("id" = String, Path, description = "Id or name")),
    responses((status = 200, body = InstanceView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn put(
    State(state): State<Arc<ApiState>>,
    Path(key): Path<String>,
    Parsed(body): Parsed<NetworksBody>,
) -> Result<Json<InstanceView>, Problem> {
    let networks = body.read()?;
    let found = find_living(&state, &key).await?;
    if found.networks == networks {
        return Ok(Json(view(&state, found).await?));
    }
    let now = state.now();
    let operation = OperationId::new(state.chance.uuid(now));
    let limits = state.limits(&found.pool);
    let change = instance::allow_networks(&found, networks, operation, limits);
    let changed = state.store.change_document(&change, now).await;
    let changed = changed.map_err(super::refused)?;
    super::ring(&state, &changed);
    Ok(Json(view(&state, changed).await?))
}
