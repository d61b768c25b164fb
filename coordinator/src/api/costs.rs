//! What servers cost, by pool, from the cloud's own price list.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    ApiState,
    problem::{Code, Problem, ProblemBody},
};
use crate::{
    ambient::Moment,
    causes::chain,
    cloud::{Cloud, PriceList},
    model::{PoolKey, Server, ServerState},
};

/// Prices are read again after this long: the cloud counts requests.
const FRESH: Duration = Duration::from_mins(10);

/// When prices were read, and what the cloud said: none where it charges nothing.
type Reading = (Moment, Option<PriceList>);

/// The cloud's prices, as they were last read. Cheap to clone.
#[derive(Clone)]
pub struct Prices {
    cloud: Arc<dyn Cloud>,
    last: Arc<Mutex<Option<Reading>>>,
}

impl std::fmt::Debug for Prices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prices").finish_non_exhaustive()
    }
}

impl Prices {
    /// Of this cloud; nothing is read yet.
    pub fn of(cloud: Arc<dyn Cloud>) -> Self {
        Self {
            cloud,
            last: Arc::default(),
        }
    }

    async fn now(&self, now: Moment) -> Result<Option<PriceList>, Problem> {
        let last = self.with(|last| last.clone());
        if let Some((at, prices)) = last
            && now.since(at) < FRESH
        {
            return Ok(prices);
        }
        let prices = self.cloud.prices().await.map_err(|error| {
            tracing::warn!(error = %chain(&error), "prices could not be read");
            Problem::new(
                Code::ServerUnreachable,
                "the cloud does not tell its prices now",
            )
            .retry_after(30)
        })?;
        self.with(|last| *last = Some((now, prices.clone())));
        Ok(prices)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Option<Reading>) -> T) -> T {
        act(&mut self.last.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What all servers cost in a month if they stay.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct CostsView {
    /// Null in a cloud that charges nothing.
    pub currency: Option<String>,
    pub pools: Vec<PoolCosts>,
}

/// What a pool's servers cost in a month, in millionths of the currency, net, address included.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PoolCosts {
    pub tier: String,
    pub region: String,
    /// Of those that customers have.
    pub claimed_monthly_micros: u64,
    /// Of those that wait, come or go.
    pub idle_monthly_micros: u64,
    pub claimed_servers: u64,
    pub idle_servers: u64,
    /// Servers for whose type and place the cloud names no price; they are in no sum.
    pub unpriced_servers: u64,
}

/// Shows what servers cost.
#[utoipa::path(get, path = "/v1/costs", tag = "pool",
    responses((status = 200, body = CostsView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn show(State(state): State<Arc<ApiState>>) -> Result<Json<CostsView>, Problem> {
    let prices = state.prices.now(state.now()).await?;
    let servers = state.store.servers().await?;
    let pools = state
        .pools
        .iter()
        .map(|outlook| costs(&outlook.pool, &servers, prices.as_ref()));
    Ok(Json(CostsView {
        pools: pools.collect(),
        currency: prices.as_ref().map(|prices| prices.currency.clone()),
    }))
}

fn costs(pool: &PoolKey, servers: &[Server], prices: Option<&PriceList>) -> PoolCosts {
    let mut costs = PoolCosts {
        tier: pool.tier.clone(),
        region: pool.region.clone(),
        claimed_monthly_micros: 0,
        idle_monthly_micros: 0,
        claimed_servers: 0,
        idle_servers: 0,
        unpriced_servers: 0,
    };
    for server in servers.iter().filter(|server| server.pool == *pool) {
        let price = prices.and_then(|prices| prices.monthly(&server.placement));
        costs.unpriced_servers += u64::from(price.is_none());
        let monthly = price.map_or(0, |price| price.0);
        if server.state == ServerState::Claimed {
            costs.claimed_servers += 1;
            costs.claimed_monthly_micros += monthly;
        } else {
            costs.idle_servers += 1;
            costs.idle_monthly_micros += monthly;
        }
    }
    costs
}

#[cfg(test)]
mod tests {
    use tidepool_shared::id::ServerId;
    use uuid::Uuid;

    use super::*;
    use crate::{
        cloud::{Micros, Offer, Orderable, Placement, Price},
        model::sample,
    };

    #[test]
    fn claimed_and_idle_servers_are_told_apart_and_unpriced_ones_are_counted() {
        let price = |monthly| {
            Some(Price {
                hourly: Micros(1),
                monthly: Micros(monthly),
            })
        };
        let prices = PriceList {
            currency: "EUR".to_owned(),
            offers: vec![Offer {
                placement: sample::placement(),
                orderable: Orderable::Yes,
                price: price(5_490_000),
                address: price(500_000),
            }],
        };
        let server = |number, state, placement| Server {
            placement,
            state,
            ..sample::server(ServerId::new(Uuid::from_u128(number)))
        };
        let elsewhere = Placement {
            location: "nowhere".to_owned(),
            ..sample::placement()
        };
        let servers = [
            server(1, ServerState::Warm, sample::placement()),
            server(2, ServerState::Claimed, sample::placement()),
            server(3, ServerState::Claimed, elsewhere),
        ];
        let costs = costs(&sample::pool(), &servers, Some(&prices));
        assert_eq!(costs.idle_monthly_micros, 5_990_000);
        assert_eq!(costs.claimed_monthly_micros, 5_990_000);
        let counts = (
            costs.idle_servers,
            costs.claimed_servers,
            costs.unpriced_servers,
        );
        assert_eq!(counts, (1, 2, 1));
    }
}
