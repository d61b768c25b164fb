//! The conformance suite on SQLite, and what only a file can get wrong.

use std::{os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use serde_json::json;
use tempfile::TempDir;
use tidepool_shared::{
    document::{DesiredDocument, EdgeProof, GatewayLimits, Generation, Power, SealedDocument},
    id::{InstanceId, OperationId, ServerId},
    networks::Networks,
};
use uuid::Uuid;

use super::SqliteStore;
use crate::{
    ambient::{Chance, Moment},
    model::{Blame, NewInstance, NewServer, sample},
    store::{
        AccessStore as _, EventStore as _, InstanceStore as _, RouteStore as _, ServerStore as _,
        Transition,
        conformance::{Fresh, Outcome},
    },
};

crate::conformance!(fixture);

async fn fixture() -> anyhow::Result<Option<Fresh<SqliteStore>>> {
    let directory = TempDir::new()?;
    Ok(Some(Fresh {
        store: Arc::new(open(&directory.path().join("store.db")).await?),
        guard: Box::new(directory),
    }))
}

async fn open(path: &Path) -> anyhow::Result<SqliteStore> {
    Ok(SqliteStore::open(path, Arc::new(Chance::from_os())).await?)
}

fn planned() -> NewServer {
    NewServer {
        id: ServerId::new(Uuid::from_u128(1)),
        name: "tp-1".to_owned(),
        pool: sample::pool(),
        placement: sample::placement(),
        token_hash: [1; 32],
        token_expires: Moment(9),
    }
}

#[tokio::test]
async fn reopening_finds_everything() -> Outcome {
    let directory = TempDir::new()?;
    let path = directory.path().join("store.db");
    let store = open(&path).await?;
    store.plan_server(&planned(), Moment(1)).await?;
    let before = (store.servers().await?, store.last_sequence().await?);
    store.close().await;
    let store = open(&path).await?;
    let after = (store.servers().await?, store.last_sequence().await?);
    assert_eq!(after, before);
    assert_eq!(after.0.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_disk_that_was_full_is_written_to_again() -> Outcome {
    let directory = TempDir::new()?;
    let store = open(&directory.path().join("store.db")).await?;
    store.plan_server(&planned(), Moment(1)).await?;
    let pages = |count: u32| {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "PRAGMA max_page_count = {count}"
        )))
    };
    pages(1).execute(&store.writer).await?;
    let mut refused = None;
    for at in 0..10_000 {
        let data = serde_json::json!({ "filler": "x".repeat(1000) });
        if let Err(error) = store.tell("test.filler", data, Moment(at)).await {
            refused = Some(crate::causes::chain(&error));
            break;
        }
    }
    let refused = refused.unwrap_or_default();
    assert!(refused.contains("full"), "{refused}");
    pages(1_000_000).execute(&store.writer).await?;
    let data = serde_json::json!({});
    store.tell("test.after", data, Moment(2)).await?;
    Ok(())
}

#[tokio::test]
async fn a_copy_taken_within_a_transaction_has_none_of_it() -> Outcome {
    let directory = TempDir::new()?;
    let path = directory.path().join("store.db");
    let store = open(&path).await?;
    let mut tx = store.writer.begin_with("BEGIN IMMEDIATE").await?;
    // More than the page cache holds, so that part of it is in the log before the commit.
    sqlx::query(
        "INSERT INTO events (sequence, id, kind, data, at)
         VALUES (1, 'evt', 'k', hex(zeroblob(4000000)), 1)",
    )
    .execute(&mut *tx)
    .await?;
    let log = directory.path().join("store.db-wal");
    assert!(std::fs::metadata(log)?.len() > 4_000_000);
    // What a power cut would leave: the file and its log as they are now.
    let copy = directory.path().join("copy.db");
    for suffix in ["", "-wal"] {
        let name = |base: &Path| format!("{}{suffix}", base.display());
        std::fs::copy(name(&path), name(&copy))?;
    }
    assert_eq!(open(&copy).await?.last_sequence().await?, 0);
    tx.commit().await?;
    assert_eq!(store.last_sequence().await?, 1);
    Ok(())
}

#[tokio::test]
async fn the_file_and_its_log_are_for_their_owner_only() -> Outcome {
    let directory = TempDir::new()?;
    let path = directory.path().join("store.db");
    std::fs::write(&path, "")?;
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644))?;
    let _store = open(&path).await?;
    for entry in std::fs::read_dir(directory.path())? {
        let entry = entry?;
        let mode = entry.metadata()?.permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", entry.path().display());
    }
    Ok(())
}

#[tokio::test]
async fn a_commit_is_synced_before_it_is_answered() -> Outcome {
    let directory = TempDir::new()?;
    let store = open(&directory.path().join("store.db")).await?;
    let (synchronous, foreign_keys, journal): (i64, i64, String) = sqlx::query_as(
        "SELECT (SELECT synchronous FROM pragma_synchronous),
                (SELECT foreign_keys FROM pragma_foreign_keys),
                (SELECT journal_mode FROM pragma_journal_mode)",
    )
    .fetch_one(&store.writer)
    .await?;
    assert_eq!((synchronous, foreign_keys, journal.as_str()), (2, 1, "wal"));
    Ok(())
}

#[tokio::test]
async fn an_unknown_word_is_an_error() -> Outcome {
    let directory = TempDir::new()?;
    let store = open(&directory.path().join("store.db")).await?;
    store.plan_server(&planned(), Moment(1)).await?;
    sqlx::query("UPDATE servers SET state = 'dreaming'")
        .execute(&store.writer)
        .await?;
    assert!(store.servers().await.is_err());
    Ok(())
}

#[tokio::test]
async fn web_hooks_of_a_configuration_of_before_are_read_from_it() -> Outcome {
    let directory = TempDir::new()?;
    let store = open(&directory.path().join("store.db")).await?;
    let id = InstanceId::new(Uuid::from_u128(1));
    let config = json!({"channels": {"slack": {"mode": "http"}}});
    let document = DesiredDocument {
        instance: id,
        generation: Generation(1),
        hosts: vec!["a.localhost".to_owned()],
        origins: Vec::new(),
        edge_proof: EdgeProof("proof".to_owned()),
        config: config.clone(),
        restarts: 0,
        limits: GatewayLimits::default(),
        power: Power::On,
        evictions: 0,
        max_body_bytes: None,
        openclaw: None,
        networks: Networks::default(),
    };
    let new = NewInstance {
        id,
        operation: OperationId::new(Uuid::from_u128(1)),
        name: "a".to_owned(),
        external_id: None,
        pool: sample::pool(),
        hosts: document.hosts.clone(),
        url: "http://a.localhost".to_owned(),
        edge_proof: document.edge_proof.clone(),
        config,
        document: SealedDocument::seal(&document),
    };
    store.create_instance(&new, Moment(1)).await?;
    let before = store.routes().await?;
    assert_eq!(before.len(), 1);
    assert!(before.iter().all(|route| route.hooks == ["/slack/events"]));
    sqlx::query("UPDATE instances SET channel_hooks = NULL")
        .execute(&store.writer)
        .await?;
    assert_eq!(store.routes().await?, before);
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_still_trusted_is_not_deleted() -> Outcome {
    let directory = TempDir::new()?;
    let store = open(&directory.path().join("store.db")).await?;
    let id = planned().id;
    store.plan_server(&planned(), Moment(1)).await?;
    store
        .mark_failed(id, "lost", Blame::Server, Moment(2))
        .await?;
    sqlx::query("INSERT INTO trust (address, server_id) VALUES ('10.0.0.1', ?1)")
        .bind(id.to_string())
        .execute(&store.writer)
        .await?;
    let refused = store.mark_deleting(id, Moment(3)).await?;
    assert_eq!(refused, Transition::NotPossible);
    Ok(())
}

#[tokio::test]
async fn the_proxys_query_finds_canonical_text() -> Outcome {
    let directory = TempDir::new()?;
    let store = open(&directory.path().join("store.db")).await?;
    store.plan_server(&planned(), Moment(1)).await?;
    let mapped = "::ffff:10.0.0.1".parse()?;
    store
        .record_created(planned().id, &sample::made("c", mapped), Moment(2))
        .await?;
    let found: (String, Option<String>) =
        sqlx::query_as("SELECT server_id, instance_id FROM trust WHERE address = ?")
            .bind("10.0.0.1")
            .fetch_one(&store.readers)
            .await?;
    assert_eq!(found, (planned().id.to_string(), None));
    Ok(())
}

#[tokio::test]
async fn a_made_up_login_token_does_not_take_the_writer() -> Outcome {
    let directory = TempDir::new()?;
    let store = open(&directory.path().join("store.db")).await?;
    let held = store.writer.begin_with("BEGIN IMMEDIATE").await?;
    let instance = InstanceId::new(Uuid::from_u128(1));
    let asked = store.redeem_login_link([9; 32], instance, [1; 32], Moment(9), Moment(1));
    let opened = tokio::time::timeout(Duration::from_secs(5), asked).await??;
    assert!(!opened);
    held.rollback().await?;
    Ok(())
}
