//! Documents that the store itself prepares: an instance's present one with a switch thrown.
//!
//! Whatever ends somebody's access must not be refused because something else changed meanwhile, so it is
//! not prepared against a generation by the caller, but made here, of what the transaction holds.

use tidepool_shared::{
    document::{DesiredDocument, Generation, Power, SealedDocument},
    id::InstanceId,
};

use super::{Connection, rows};

/// What the next document says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Switch {
    /// Whatever was let in is cut off.
    Evict,
    /// The same, and nobody is let in: the gateway stops, and gets no other version meanwhile.
    Off,
    On,
    /// The order for a version of OpenClaw is taken back.
    Withdraw,
}

/// Writes the next document of an instance that the transaction holds; its generation.
pub(super) async fn switch(
    tx: &mut Connection,
    id: InstanceId,
    switch: Switch,
) -> sqlx::Result<Generation> {
    let row = sqlx::query("SELECT * FROM documents WHERE instance_id = $1")
        .bind(id.to_string())
        .fetch_one(&mut *tx)
        .await?;
    let present = rows::document(&row)?;
    let present = present
        .open()
        .map_err(|error| sqlx::Error::Decode(error.into()))?;
    let had_order = present.openclaw.is_some();
    let next = next(present, switch);
    sqlx::query("UPDATE instances SET generation = $2, evictions = $3 WHERE id = $1")
        .bind(id.to_string())
        .bind(rows::as_integer(next.generation.0))
        .bind(rows::as_integer(next.evictions))
        .execute(&mut *tx)
        .await?;
    if had_order && next.openclaw.is_none() {
        sqlx::query("UPDATE instances SET openclaw = NULL WHERE id = $1")
            .bind(id.to_string())
            .execute(&mut *tx)
            .await?;
    }
    write(tx, &SealedDocument::seal(&next)).await?;
    Ok(next.generation)
}

fn next(present: DesiredDocument, switch: Switch) -> DesiredDocument {
    let (power, evicted) = match switch {
        Switch::Evict => (present.power, 1),
        Switch::Off => (Power::Off, 1),
        Switch::On => (Power::On, 0),
        Switch::Withdraw => (present.power, 0),
    };
    let openclaw = match switch {
        Switch::Evict | Switch::On => present.openclaw,
        Switch::Off | Switch::Withdraw => None,
    };
    DesiredDocument {
        generation: present.generation.next(),
        power,
        evictions: present.evictions.saturating_add(evicted),
        openclaw,
        ..present
    }
}

/// Replaces an instance's document.
pub(super) async fn write(tx: &mut Connection, document: &SealedDocument) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE documents SET generation = $2, digest = $3, bytes = $4 WHERE instance_id = $1",
    )
    .bind(document.instance.to_string())
    .bind(rows::as_integer(document.generation.0))
    .bind(document.digest.0.as_slice())
    .bind(document.bytes.as_slice())
    .execute(tx)
    .await
    .map(drop)
}
