//! Keys, sealed: customers' own, and all of them when the master key changes.

use async_trait::async_trait;
use sqlx::Row as _;
use tidepool_shared::{id::InstanceId, sealed_place::SealedPlace};

use super::{Row, SqlStore, during, providers::transition, rows, transaction};
use crate::{
    ambient::Moment,
    model::{CustomerKey, Provider, Sealed},
    store::{KeyStore, Stored, Transition},
};

#[async_trait]
impl KeyStore for SqlStore {
    async fn customer_keys(&self, id: InstanceId) -> Stored<Vec<CustomerKey>> {
        let doing = "read a customer's keys";
        let found = sqlx::query(
            "SELECT provider, created_at FROM customer_keys WHERE instance_id = $1 ORDER BY provider",
        )
        .bind(id.to_string())
        .fetch_all(self.readers())
        .await
        .map_err(during(doing))?;
        let keys = found.iter().map(customer_key);
        keys.collect::<sqlx::Result<_>>().map_err(during(doing))
    }

    async fn put_customer_key(
        &self,
        id: InstanceId,
        provider: &Provider,
        sealed: &[u8],
        now: Moment,
    ) -> Stored<Transition> {
        transaction!(self, "write a customer's key", |tx| {
            // The key was tried at this address; it must not go to another.
            let written = sqlx::query(
                "INSERT INTO customer_keys (instance_id, provider, sealed_key, created_at)
                 SELECT $1, $2, $3, $4
                 WHERE EXISTS (SELECT 1 FROM providers WHERE name = $2 AND base_url = $5)
                   AND EXISTS (SELECT 1 FROM instances
                               WHERE id = $1 AND status NOT IN ('deleted', 'purged'))
                 ON CONFLICT (instance_id, provider) DO UPDATE SET
                    sealed_key = excluded.sealed_key, created_at = excluded.created_at",
            )
            .bind(id.to_string())
            .bind(&provider.name)
            .bind(sealed)
            .bind(now.0)
            .bind(&provider.base_url)
            .execute(&mut *tx)
            .await?;
            Ok(transition(written.rows_affected()))
        })
    }

    async fn delete_customer_key(&self, id: InstanceId, provider: &str) -> Stored<Transition> {
        transaction!(self, "delete a customer's key", |tx| {
            let deleted =
                sqlx::query("DELETE FROM customer_keys WHERE instance_id = $1 AND provider = $2")
                    .bind(id.to_string())
                    .bind(provider)
                    .execute(&mut *tx)
                    .await?;
            Ok(transition(deleted.rows_affected()))
        })
    }

    async fn sealed(&self) -> Stored<Vec<Sealed>> {
        let doing = "read what is sealed";
        let found = sqlx::query(
            "SELECT 'provider' AS kind, '' AS instance_id, name, sealed_key FROM providers
             WHERE sealed_key IS NOT NULL
             UNION ALL SELECT 'customer', instance_id, provider, sealed_key FROM customer_keys
             UNION ALL SELECT 'domain', instance_id, name, sealed_key FROM domains
             WHERE sealed_key IS NOT NULL
             UNION ALL SELECT 'acme', '', directory, sealed FROM acme_accounts ORDER BY 2, 1, 3",
        )
        .fetch_all(self.readers())
        .await
        .map_err(during(doing))?;
        let sealed = found.iter().map(sealed);
        sealed.collect::<sqlx::Result<_>>().map_err(during(doing))
    }

    async fn reseal(&self, old: &Sealed, sealed: &[u8]) -> Stored<Transition> {
        transaction!(self, "seal with another master key", |tx| {
            let changed = match &old.place {
                SealedPlace::Provider(name) => sqlx::query(
                    "UPDATE providers SET sealed_key = $1 WHERE sealed_key = $2 AND name = $3",
                )
                .bind(sealed)
                .bind(&old.bytes)
                .bind(name),
                SealedPlace::CustomerKey { instance, provider } => sqlx::query(
                    "UPDATE customer_keys SET sealed_key = $1
                     WHERE sealed_key = $2 AND provider = $3 AND instance_id = $4",
                )
                .bind(sealed)
                .bind(&old.bytes)
                .bind(provider)
                .bind(instance),
                SealedPlace::DomainKey { instance, name } => sqlx::query(
                    "UPDATE domains SET sealed_key = $1
                     WHERE sealed_key = $2 AND name = $3 AND instance_id = $4",
                )
                .bind(sealed)
                .bind(&old.bytes)
                .bind(name)
                .bind(instance),
                SealedPlace::AcmeAccount(directory) => sqlx::query(
                    "UPDATE acme_accounts SET sealed = $1 WHERE sealed = $2 AND directory = $3",
                )
                .bind(sealed)
                .bind(&old.bytes)
                .bind(directory),
            };
            let changed = changed.execute(&mut *tx).await?;
            Ok(transition(changed.rows_affected()))
        })
    }
}

fn customer_key(row: &Row) -> sqlx::Result<CustomerKey> {
    Ok(CustomerKey {
        provider: row.try_get("provider")?,
        created_at: rows::moment(row, "created_at")?,
    })
}

fn sealed(row: &Row) -> sqlx::Result<Sealed> {
    let (kind, name): (String, String) = (row.try_get("kind")?, row.try_get("name")?);
    let instance: String = row.try_get("instance_id")?;
    let place = match kind.as_str() {
        "provider" => SealedPlace::Provider(name),
        "customer" => SealedPlace::CustomerKey {
            instance,
            provider: name,
        },
        "domain" => SealedPlace::DomainKey { instance, name },
        _ => SealedPlace::AcmeAccount(name),
    };
    Ok(Sealed {
        place,
        bytes: row.try_get("sealed_key")?,
    })
}
