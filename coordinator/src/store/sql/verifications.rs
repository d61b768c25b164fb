//! Trials of images. That there is one at a time is a unique index, not a look before.

use async_trait::async_trait;
use serde_json::json;
use tidepool_shared::{
    id::{ServerId, VerificationId},
    manifest::ImageManifest,
};

use super::{
    Connection, SqlStore, during,
    events::{About, Journal},
    rows,
    servers::{self, transition},
    transaction,
};
use crate::{
    ambient::Moment,
    model::{Conclusion, NewServer, NewVerification, Verification, VerificationState},
    store::{Stored, Transition, VerificationStore},
};

/// Images of which the last trial is read at the most.
const MOST_IMAGES: i64 = 200;

#[async_trait]
impl VerificationStore for SqlStore {
    async fn want_verification(&self, new: &NewVerification, now: Moment) -> Stored<Verification> {
        transaction!(self, "note that an image is to be tried", |tx| {
            sqlx::query(
                "INSERT INTO image_verifications (id, image, state, created_at, expires_at)
                 VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
            )
            .bind(new.id.to_string())
            .bind(&new.image)
            .bind(VerificationState::Wanted.word())
            .bind(now.0)
            .bind(new.expires_at.0)
            .execute(&mut *tx)
            .await?;
            let row =
                sqlx::query("SELECT * FROM image_verifications WHERE finished_at IS NULL LIMIT 1")
                    .fetch_one(&mut *tx)
                    .await?;
            rows::verification(&row)
        })
    }

    async fn open_verification(&self) -> Stored<Option<Verification>> {
        let doing = "read the trial that is under way";
        let found = sqlx::query("SELECT * FROM image_verifications WHERE finished_at IS NULL")
            .fetch_optional(self.readers())
            .await
            .map_err(during(doing))?;
        found
            .map(|row| rows::verification(&row))
            .transpose()
            .map_err(during(doing))
    }

    async fn verification(&self, id: VerificationId) -> Stored<Option<Verification>> {
        let doing = "read a trial";
        let found = sqlx::query("SELECT * FROM image_verifications WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(self.readers())
            .await
            .map_err(during(doing))?;
        found
            .map(|row| rows::verification(&row))
            .transpose()
            .map_err(during(doing))
    }

    async fn last_verifications(&self) -> Stored<Vec<Verification>> {
        let doing = "read the last trials";
        let found = sqlx::query(
            "SELECT * FROM image_verifications AS last
             WHERE finished_at IS NOT NULL AND NOT EXISTS (
                 SELECT 1 FROM image_verifications AS later
                 WHERE later.image = last.image AND later.id > last.id
                   AND later.finished_at IS NOT NULL
             )
             ORDER BY id DESC LIMIT $1",
        )
        .bind(MOST_IMAGES)
        .fetch_all(self.readers())
        .await
        .map_err(during(doing))?;
        found
            .iter()
            .map(rows::verification)
            .collect::<sqlx::Result<_>>()
            .map_err(during(doing))
    }

    async fn passed_verification(&self, image: &str) -> Stored<Option<Verification>> {
        let doing = "read the last trial that passed";
        let found = sqlx::query(
            "SELECT * FROM image_verifications WHERE image = $1 AND state = 'passed'
             ORDER BY id DESC LIMIT 1",
        )
        .bind(image)
        .fetch_optional(self.readers())
        .await
        .map_err(during(doing))?;
        found
            .map(|row| rows::verification(&row))
            .transpose()
            .map_err(during(doing))
    }

    async fn begin_verification(
        &self,
        id: VerificationId,
        server: &NewServer,
        now: Moment,
    ) -> Stored<Transition> {
        transaction!(self, "begin a trial", |tx| {
            begin(tx, self.journal(now), id, server, now).await
        })
    }

    async fn note_manifest(&self, server: ServerId, manifest: &ImageManifest) -> Stored<()> {
        transaction!(self, "note what is in an image", |tx| {
            sqlx::query(
                "UPDATE image_verifications SET manifest = $2
                 WHERE server_id = $1 AND finished_at IS NULL",
            )
            .bind(server.to_string())
            .bind(rows::as_json(manifest)?)
            .execute(&mut *tx)
            .await
            .map(drop)
        })
    }

    async fn enrolled_at(&self, server: ServerId) -> Stored<Option<Moment>> {
        let doing = "read when a server enrolled";
        let found = sqlx::query("SELECT used_at FROM enrolment_tokens WHERE server_id = $1")
            .bind(server.to_string())
            .fetch_optional(self.readers())
            .await
            .map_err(during(doing))?;
        found
            .map_or(Ok(None), |row| rows::maybe_moment(&row, "used_at"))
            .map_err(during(doing))
    }

    async fn conclude_verification(
        &self,
        id: VerificationId,
        conclusion: &Conclusion,
        now: Moment,
    ) -> Stored<Transition> {
        transaction!(self, "conclude a trial", |tx| {
            conclude(tx, self.journal(now), id, conclusion, now).await
        })
    }
}

async fn begin(
    tx: &mut Connection,
    journal: Journal<'_>,
    id: VerificationId,
    server: &NewServer,
    now: Moment,
) -> sqlx::Result<Transition> {
    // The server's row is first, because the trial's refers to it; without a trial it is rolled back.
    let wanted = sqlx::query(
        "SELECT 1 FROM image_verifications WHERE id = $1 AND state = 'wanted' AND expires_at > $2",
    )
    .bind(id.to_string())
    .bind(now.0)
    .fetch_optional(&mut *tx)
    .await?;
    if wanted.is_none() {
        return Ok(Transition::NotPossible);
    }
    servers::plan(&mut *tx, journal, server, now).await?;
    let begun = sqlx::query(
        "UPDATE image_verifications SET state = 'running', server_id = $2
         WHERE id = $1 AND state = 'wanted'",
    )
    .bind(id.to_string())
    .bind(server.id.to_string())
    .execute(tx)
    .await?;
    match transition(&begun) {
        Transition::Done => Ok(Transition::Done),
        // Somebody else was faster: an error, so that the server's row goes with the transaction.
        Transition::NotPossible => Err(sqlx::Error::RowNotFound),
    }
}

async fn conclude(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    id: VerificationId,
    conclusion: &Conclusion,
    now: Moment,
) -> sqlx::Result<Transition> {
    let (state, event) = if conclusion.problems.is_empty() {
        (VerificationState::Passed, "image.verified")
    } else {
        (VerificationState::Refused, "image.refused")
    };
    let Some(row) = sqlx::query(
        "UPDATE image_verifications
         SET state = $2, figures = $3, baseline = $4, problems = $5, finished_at = $6
         WHERE id = $1 AND finished_at IS NULL RETURNING *",
    )
    .bind(id.to_string())
    .bind(state.word())
    .bind(conclusion.figures.as_ref().map(rows::as_json).transpose()?)
    .bind(
        conclusion
            .baseline
            .as_ref()
            .map(rows::as_json)
            .transpose()?,
    )
    .bind(rows::as_json(&conclusion.problems)?)
    .bind(now.0)
    .fetch_optional(&mut *tx)
    .await?
    else {
        return Ok(Transition::NotPossible);
    };
    let concluded = rows::verification(&row)?;
    let about = concluded.server.map_or(About::Nothing, About::Server);
    let data = json!({
        "image": concluded.image, "figures": concluded.figures, "problems": concluded.problems,
    });
    journal.note(event, about, &data);
    journal.write(tx).await?;
    Ok(Transition::Done)
}
