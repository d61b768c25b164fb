//! The conformance suite on PostgreSQL, and what only many writers can get wrong.

use std::sync::Arc;

use anyhow::Context as _;
use tidepool_shared::id::ServerId;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::PostgresStore;
use crate::{
    ambient::{Chance, Moment},
    model::NewServer,
    store::{
        EventStore as _, ServerStore as _,
        conformance::{Fresh, Outcome},
        throwaway::Throwaway,
    },
};

crate::conformance!(fixture);

async fn fixture() -> anyhow::Result<Option<Fresh<PostgresStore>>> {
    let Some(database) = Throwaway::database().await? else {
        return Ok(None);
    };
    Ok(Some(Fresh {
        store: Arc::new(open(&database).await?),
        guard: Box::new(database),
    }))
}

async fn open(database: &Throwaway) -> anyhow::Result<PostgresStore> {
    let chance = Arc::new(Chance::from_os());
    Ok(PostgresStore::open(database.options()?, chance).await?)
}

fn planned(number: u8) -> NewServer {
    NewServer {
        id: ServerId::new(Uuid::from_u128(number.into())),
        name: format!("tp-{number}"),
        pool: crate::model::sample::pool(),
        placement: crate::model::sample::placement(),
        token_hash: [number; 32],
        token_expires: Moment(9),
    }
}

#[tokio::test]
async fn of_many_that_open_at_once_one_makes_the_tables() -> Outcome {
    let Some(database) = Throwaway::database().await? else {
        return Ok(());
    };
    let database = Arc::new(database);
    let mut opening = JoinSet::new();
    for number in 1..=4 {
        let database = Arc::clone(&database);
        opening.spawn(async move {
            let store = open(&database).await?;
            store.plan_server(&planned(number), Moment(1)).await?;
            anyhow::Ok(store)
        });
    }
    let stores = opening
        .join_all()
        .await
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    for store in &stores {
        assert_eq!(store.servers().await?.len(), 4);
    }
    Ok(())
}

#[tokio::test]
async fn an_event_that_is_committed_late_is_numbered_late() -> Outcome {
    let Some(database) = Throwaway::database().await? else {
        return Ok(());
    };
    let store = open(&database).await?;
    let mut late = store.begin().await?;
    // Written first, but nobody can see it yet.
    sqlx::query("INSERT INTO event_inbox (id, kind, data, at) VALUES ($1, 'late', '{}', 1)")
        .bind(event_id(1))
        .execute(&mut *late)
        .await?;
    store.plan_server(&planned(1), Moment(1)).await?;
    let seen = store.events_after(0, None, 10).await?;
    assert_eq!(seen.len(), 1);
    late.commit().await?;
    let later = store.events_after(1, None, 10).await?;
    let later = later.first().context("the late event is lost")?;
    assert_eq!((later.sequence, later.kind.as_str()), (2, "late"));
    assert_eq!(store.last_sequence().await?, 2);
    Ok(())
}

fn event_id(number: u8) -> String {
    tidepool_shared::id::EventId::new(Uuid::from_u128(number.into())).to_string()
}

#[tokio::test]
async fn readers_at_once_number_each_event_once() -> Outcome {
    let Some(database) = Throwaway::database().await? else {
        return Ok(());
    };
    let (one, other) = (open(&database).await?, open(&database).await?);
    let mut work = JoinSet::new();
    for number in 1..=40 {
        let store = if number % 2 == 0 {
            one.clone()
        } else {
            other.clone()
        };
        work.spawn(async move {
            store.plan_server(&planned(number), Moment(1)).await?;
            store.events_after(0, None, 100).await
        });
    }
    for read in work.join_all().await {
        let numbers: Vec<_> = read?.iter().map(|event| event.sequence).collect();
        let expected: Vec<_> = (1..).take(numbers.len()).collect();
        assert_eq!(numbers, expected, "a reader met a gap");
    }
    assert_eq!(one.last_sequence().await?, 40);
    Ok(())
}

#[tokio::test]
async fn a_deadlock_is_tried_again() -> Outcome {
    let Some(database) = Throwaway::database().await? else {
        return Ok(());
    };
    let store = open(&database).await?;
    for number in [1, 2] {
        store.plan_server(&planned(number), Moment(1)).await?;
    }
    let meeting = tokio::sync::Barrier::new(2);
    let crossing = async |first: u8, second: u8, met: &tokio::sync::Barrier| -> sqlx::Result<u32> {
        let mut times = 0;
        super::retry::retried!(async {
            times += 1;
            let mut tx = store.begin().await?;
            touch(&mut tx, first).await?;
            if times == 1 {
                met.wait().await;
            }
            touch(&mut tx, second).await?;
            tx.commit().await?;
            Ok(times)
        })
    };
    let (here, there) = tokio::join!(crossing(1, 2, &meeting), crossing(2, 1, &meeting));
    let mut tries = [here?, there?];
    tries.sort_unstable();
    assert_eq!(tries, [1, 2]);
    Ok(())
}

async fn touch(tx: &mut sqlx::PgConnection, number: u8) -> sqlx::Result<()> {
    sqlx::query("UPDATE servers SET epoch = epoch + 1 WHERE id = $1")
        .bind(planned(number).id.to_string())
        .execute(tx)
        .await
        .map(drop)
}

#[tokio::test]
async fn a_commit_is_synced_before_it_is_answered_whatever_the_servers_default() -> Outcome {
    let Some(database) = Throwaway::database().await? else {
        return Ok(());
    };
    let store = open(&database).await?;
    let set: (String, String) = sqlx::query_as(
        "SELECT current_setting('synchronous_commit'), current_setting('transaction_isolation')",
    )
    .fetch_one(&store.pool)
    .await?;
    assert_eq!(set, ("on".to_owned(), "read committed".to_owned()));
    Ok(())
}
