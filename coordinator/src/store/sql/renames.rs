//! Another name for an instance. Its old one leads to the new one for a while, and is kept from others.

use serde_json::json;
use tidepool_shared::id::InstanceId;

use super::{
    Connection, changes, deletion, dialect,
    events::{About, Journal},
    instances, rows,
};
use crate::{
    ambient::Moment,
    model::{Instance, Rename},
    store::ChangeRefused,
};

/// Earlier hosts that an instance may keep from others at the same time.
const EARLIER_MAX: u32 = 8;

/// Routes, names and document in one commit; whoever was signed in at the old name signs in again.
pub(super) async fn rename(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    rename: &Rename,
    now: Moment,
) -> sqlx::Result<Result<Instance, ChangeRefused>> {
    let id = rename.change.instance;
    if !instances::hold(&mut *tx, id).await? {
        return Ok(Err(ChangeRefused::NotFound));
    }
    if let Some(refused) = changes::refusal(&mut *tx, &rename.change).await? {
        return Ok(Err(refused));
    }
    if earlier_hosts(&mut *tx, id).await? >= EARLIER_MAX {
        return Ok(Err(ChangeRefused::TooManyNames(EARLIER_MAX)));
    }
    // The host is made of the name, so whoever has it or had it lately is in the way there; who is deleted
    // and may be asked back has its name only.
    if is_named(&mut *tx, rename).await? || !take(&mut *tx, id, rename, now).await? {
        return Ok(Err(ChangeRefused::NameTaken));
    }
    let before = instances::find(&mut *tx, id).await?;
    let before = before.ok_or(sqlx::Error::RowNotFound)?;
    sqlx::query("UPDATE instances SET name = $2, url = $3, hosts = $4 WHERE id = $1")
        .bind(id.to_string())
        .bind(&rename.name)
        .bind(&rename.url)
        .bind(rows::as_json(&rename.hosts)?)
        .execute(&mut *tx)
        .await?;
    deletion::sign_everybody_out(&mut *tx, id).await?;
    changes::replace(&mut *tx, &rename.change, now).await?;
    let data = json!({
        "from": before.name, "to": rename.name, "url": rename.url,
        "moved_until": rename.moved_until.rfc3339(),
    });
    journal.note(
        "instance.renamed",
        About::instance(id, before.server),
        &data,
    );
    journal.write(&mut *tx).await?;
    let renamed = instances::find(tx, id).await?;
    Ok(renamed.ok_or(ChangeRefused::NotFound))
}

async fn earlier_hosts(tx: &mut Connection, id: InstanceId) -> sqlx::Result<u32> {
    let row = sqlx::query(
        "SELECT count(*) AS earlier FROM routes
         WHERE instance_id = $1 AND moved_until IS NOT NULL",
    )
    .bind(id.to_string())
    .fetch_one(tx)
    .await?;
    let earlier = rows::unsigned(&row, "earlier")?;
    Ok(u32::try_from(earlier).unwrap_or(u32::MAX))
}

async fn is_named(tx: &mut Connection, rename: &Rename) -> sqlx::Result<bool> {
    sqlx::query("SELECT 1 FROM instances WHERE name = $1 AND id <> $2 AND status <> 'purged'")
        .bind(&rename.name)
        .bind(rename.change.instance.to_string())
        .fetch_optional(tx)
        .await
        .map(|found| found.is_some())
}

/// Takes the new hosts, one of which may be an earlier one of its own, and has the old ones lead there.
/// `false`, and nothing is written, when they are somebody else's.
async fn take(
    tx: &mut Connection,
    id: InstanceId,
    rename: &Rename,
    now: Moment,
) -> sqlx::Result<bool> {
    for host in &rename.hosts {
        sqlx::query(
            "DELETE FROM routes
             WHERE host = $1 AND moved_until IS NOT NULL AND (instance_id = $2 OR moved_until <= $3)",
        )
        .bind(host)
        .bind(id.to_string())
        .bind(now.0)
        .execute(&mut *tx)
        .await?;
    }
    if !dialect::insert_routes(&mut *tx, id, &rename.hosts).await? {
        return Ok(false);
    }
    sqlx::query(
        "UPDATE routes SET moved_until = $2 WHERE instance_id = $1 AND moved_until IS NULL",
    )
    .bind(id.to_string())
    .bind(rename.moved_until.0)
    .execute(&mut *tx)
    .await?;
    for host in &rename.hosts {
        sqlx::query("UPDATE routes SET moved_until = NULL WHERE host = $1")
            .bind(host)
            .execute(&mut *tx)
            .await?;
    }
    Ok(true)
}
