//! The sagas' log.

use async_trait::async_trait;
use tidepool_shared::id::ServerId;

use super::{SqlStore, during, rows, transaction};
use crate::{
    model::SagaStep,
    store::{SagaStore, Stored},
};

#[async_trait]
impl SagaStore for SqlStore {
    async fn note_step(&self, step: &SagaStep) -> Stored<()> {
        transaction!(self, "note a saga's step", |tx| {
            sqlx::query(
                "INSERT INTO saga_steps (server_id, saga, step, state, error, at)
                 VALUES ($1, $2, $3, $4, $5, $6)",
            )
            .bind(step.server.to_string())
            .bind(step.saga.word())
            .bind(&step.step)
            .bind(step.state.word())
            .bind(step.error.as_deref())
            .bind(step.at.0)
            .execute(&mut *tx)
            .await
            .map(drop)
        })
    }

    async fn steps(&self, server: ServerId) -> Stored<Vec<SagaStep>> {
        let doing = "read a saga's steps";
        let found = sqlx::query("SELECT * FROM saga_steps WHERE server_id = $1 ORDER BY ordinal")
            .bind(server.to_string())
            .fetch_all(self.readers())
            .await
            .map_err(during(doing))?;
        found
            .iter()
            .map(rows::saga_step)
            .collect::<sqlx::Result<_>>()
            .map_err(during(doing))
    }
}
