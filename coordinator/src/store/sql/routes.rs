//! Routes, joined with what they depend on, so that a route cannot contradict its instance.

use async_trait::async_trait;
use tidepool_shared::id::InstanceId;

use super::{SqlStore, during, rows};
use crate::{
    model::Route,
    store::{RouteStore, Stored},
};

#[async_trait]
impl RouteStore for SqlStore {
    async fn routes(&self) -> Stored<Vec<Route>> {
        let doing = "read the routes";
        let found = sqlx::query(
            "SELECT route.host, route.instance_id, server.address,
                    instance.edge_proof, instance.basic_auth, instance.status
             FROM routes AS route
             JOIN instances AS instance ON instance.id = route.instance_id
             LEFT JOIN servers AS server
                    ON server.id = instance.server_id AND NOT server.revoked",
        )
        .fetch_all(self.readers())
        .await
        .map_err(during(doing))?;
        found
            .iter()
            .map(rows::route)
            .collect::<sqlx::Result<_>>()
            .map_err(during(doing))
    }

    async fn routes_of(&self, id: InstanceId) -> Stored<Vec<Route>> {
        let doing = "read the routes of an instance";
        let found = sqlx::query(
            "SELECT route.host, route.instance_id, server.address,
                    instance.edge_proof, instance.basic_auth, instance.status
             FROM routes AS route
             JOIN instances AS instance ON instance.id = route.instance_id
             LEFT JOIN servers AS server
                    ON server.id = instance.server_id AND NOT server.revoked
             WHERE route.instance_id = $1",
        )
        .bind(id.to_string())
        .fetch_all(self.readers())
        .await
        .map_err(during(doing))?;
        found
            .iter()
            .map(rows::route)
            .collect::<sqlx::Result<_>>()
            .map_err(during(doing))
    }
}
