//! Leases and coordinators. The database may have its own clock, so no case waits for one to expire: a
//! lease for no time has expired when it is given.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::task::JoinSet;

use super::{
    Outcome,
    world::{at, coordinator_id},
};
use crate::store::Store;

const NAME: &str = "pool";
const LONG: Duration = Duration::from_hours(1);

pub async fn a_lease_is_anothers_only_after_its_release<S: Store>(store: Arc<S>) -> Outcome {
    let (one, other) = (coordinator_id(1), coordinator_id(2));
    let first = store.acquire_lease(NAME, one, LONG, at(1)).await?;
    assert!(first.is_some());
    let refused = store.acquire_lease(NAME, other, LONG, at(2)).await?;
    assert_eq!(refused, None);
    let unrelated = store.acquire_lease("sweep", other, LONG, at(2)).await?;
    assert!(unrelated.is_some());
    store.release_lease(NAME, one).await?;
    let second = store.acquire_lease(NAME, other, LONG, at(3)).await?;
    assert!(second.is_some());
    Ok(())
}

pub async fn a_lease_is_renewed_by_who_holds_it<S: Store>(store: Arc<S>) -> Outcome {
    let one = coordinator_id(1);
    let first = store.acquire_lease(NAME, one, LONG, at(1)).await?;
    let second = store.acquire_lease(NAME, one, LONG * 2, at(2)).await?;
    let (first, second) = (first.context("not taken")?, second.context("not renewed")?);
    assert!(second.since(first) >= LONG, "{second:?} {first:?}");
    Ok(())
}

pub async fn an_expired_lease_is_anybodys<S: Store>(store: Arc<S>) -> Outcome {
    let (one, other) = (coordinator_id(1), coordinator_id(2));
    store
        .acquire_lease(NAME, one, Duration::ZERO, at(1))
        .await?
        .context("not taken")?;
    let taken = store.acquire_lease(NAME, other, LONG, at(2)).await?;
    assert!(taken.is_some());
    assert_eq!(store.acquire_lease(NAME, one, LONG, at(3)).await?, None);
    Ok(())
}

pub async fn a_lease_is_released_by_who_holds_it_only<S: Store>(store: Arc<S>) -> Outcome {
    let (one, other) = (coordinator_id(1), coordinator_id(2));
    store.acquire_lease(NAME, one, LONG, at(1)).await?;
    store.release_lease(NAME, other).await?;
    let refused = store.acquire_lease(NAME, other, LONG, at(2)).await?;
    assert_eq!(refused, None);
    Ok(())
}

pub async fn of_many_at_once_one_gets_the_lease<S: Store>(store: Arc<S>) -> Outcome {
    let mut tries = JoinSet::new();
    for number in 1..=16 {
        let store = Arc::clone(&store);
        tries.spawn(async move {
            store
                .acquire_lease(NAME, coordinator_id(number), LONG, at(1))
                .await
        });
    }
    let mut held = 0;
    for tried in tries.join_all().await {
        held += usize::from(tried?.is_some());
    }
    assert_eq!(held, 1);
    Ok(())
}

pub async fn a_coordinator_is_there_as_long_as_its_heart_beats<S: Store>(store: Arc<S>) -> Outcome {
    assert_eq!(store.live_coordinators(LONG, at(1)).await?, []);
    let (one, other) = (coordinator_id(1), coordinator_id(2));
    store.heartbeat(other, "10.0.0.2:80", at(1)).await?;
    store.heartbeat(one, "10.0.0.1:80", at(1)).await?;
    store.heartbeat(one, "10.0.0.1:81", at(2)).await?;
    let live: Vec<_> = store
        .live_coordinators(LONG, at(3))
        .await?
        .into_iter()
        .map(|known| (known.id, known.api_address))
        .collect();
    assert_eq!(
        live,
        [
            (one, "10.0.0.1:81".to_owned()),
            (other, "10.0.0.2:80".to_owned())
        ]
    );
    let none = store.live_coordinators(Duration::ZERO, at(9)).await?;
    assert_eq!(none, []);
    Ok(())
}
