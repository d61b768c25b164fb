//! Routes, joined with what they depend on, so that a route cannot contradict its instance.

use std::collections::BTreeMap;

use async_trait::async_trait;
use sqlx::Row as _;
use tidepool_shared::id::{InstanceId, ServerId};

use super::{SqlStore, during, rows};
use crate::{
    model::{Destination, Route},
    store::{RouteStore, Stored},
};

#[async_trait]
impl RouteStore for SqlStore {
    async fn routes(&self) -> Stored<Vec<Route>> {
        let doing = "read the routes";
        let found = sqlx::query(
            "SELECT route.host, route.instance_id,
                    server.id AS server_id, server.address, server.has_door,
                    instance.edge_proof, instance.basic_auth, instance.status, instance.suspension,
                    instance.max_body_bytes, instance.requests_per_second, instance.request_burst,
                    instance.channel_hooks,
                    CASE WHEN instance.channel_hooks IS NULL THEN instance.config END AS hooks_of,
                    EXISTS (SELECT 1 FROM operations AS renaming
                            WHERE renaming.instance_id = instance.id AND renaming.kind = 'rename'
                              AND renaming.state IN ('queued', 'running')) AS is_renaming,
                    CASE WHEN route.moved_until IS NOT NULL THEN instance.url END AS moved_to
             FROM hosts AS route
             JOIN instances AS instance ON instance.id = route.instance_id
                    AND instance.status NOT IN ('deleted', 'purged')
             LEFT JOIN servers AS server
                    ON server.id = instance.server_id AND NOT server.revoked
                    AND instance.status NOT IN ('stopped', 'suspended')",
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
            "SELECT route.host, route.instance_id,
                    server.id AS server_id, server.address, server.has_door,
                    instance.edge_proof, instance.basic_auth, instance.status, instance.suspension,
                    instance.max_body_bytes, instance.requests_per_second, instance.request_burst,
                    instance.channel_hooks,
                    CASE WHEN instance.channel_hooks IS NULL THEN instance.config END AS hooks_of,
                    EXISTS (SELECT 1 FROM operations AS renaming
                            WHERE renaming.instance_id = instance.id AND renaming.kind = 'rename'
                              AND renaming.state IN ('queued', 'running')) AS is_renaming,
                    CASE WHEN route.moved_until IS NOT NULL THEN instance.url END AS moved_to
             FROM hosts AS route
             JOIN instances AS instance ON instance.id = route.instance_id
                    AND instance.status NOT IN ('deleted', 'purged')
             LEFT JOIN servers AS server
                    ON server.id = instance.server_id AND NOT server.revoked
                    AND instance.status NOT IN ('stopped', 'suspended')
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

    async fn destinations(&self) -> Stored<Vec<Destination>> {
        let doing = "read where routes lead";
        let found = sqlx::query(
            "SELECT server.id AS server_id, server.address, server.has_door, route.host
             FROM servers AS server
             LEFT JOIN instances AS instance ON instance.server_id = server.id
             LEFT JOIN routes AS route
                    ON route.instance_id = instance.id AND route.moved_until IS NULL
                    AND instance.status NOT IN ('stopped', 'suspended')
             WHERE server.state IN ('booting', 'warm', 'claimed')
               AND server.address IS NOT NULL AND NOT server.revoked",
        )
        .fetch_all(self.readers())
        .await
        .map_err(during(doing))?;
        let mut destinations: BTreeMap<ServerId, Destination> = BTreeMap::new();
        for row in &found {
            let read = || -> sqlx::Result<(Destination, Option<String>)> {
                let destination = Destination {
                    upstream: rows::upstream(row, rows::parsed(row, "address")?)?,
                    hosts: Vec::new(),
                };
                Ok((destination, row.try_get("host")?))
            };
            let (destination, host) = read().map_err(during(doing))?;
            let known = destinations.entry(destination.upstream.server);
            known.or_insert(destination).hosts.extend(host);
        }
        Ok(destinations.into_values().collect())
    }
}
