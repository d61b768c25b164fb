//! Pools: how they stand, who came, and what is told of it.

use std::{collections::HashSet, sync::Arc};

use super::{
    Outcome,
    world::{at, booting, count, elsewhere, new_instance, pool, server_id, warm},
};
use crate::{
    model::{Blame, PoolStanding, sample},
    store::Store,
};

pub async fn a_pool_that_was_never_touched_stands_well<S: Store>(store: Arc<S>) -> Outcome {
    assert_eq!(store.pool_standing(&pool()).await?, PoolStanding::default());
    Ok(())
}

pub async fn failures_count_in_a_row_and_only_the_servers_own<S: Store>(store: Arc<S>) -> Outcome {
    for number in [1, 2, 3] {
        booting(&*store, number).await?;
    }
    store
        .mark_failed(server_id(1), "no", Blame::Server, at(5))
        .await?;
    store
        .mark_failed(server_id(2), "no", Blame::Server, at(6))
        .await?;
    store
        .mark_failed(server_id(3), "full", Blame::Nobody, at(7))
        .await?;
    let standing = store.pool_standing(&pool()).await?;
    assert_eq!((standing.failures, standing.last_failure), (2, Some(at(6))));
    assert_eq!(store.pool_standing(&elsewhere()).await?.failures, 0);
    warm(&*store, 4).await?;
    let standing = store.pool_standing(&pool()).await?;
    assert_eq!((standing.failures, standing.last_failure), (0, None));
    Ok(())
}

pub async fn a_pause_and_its_end_are_told<S: Store>(store: Arc<S>) -> Outcome {
    store.pause_pool(&pool(), at(1)).await?;
    store.pause_pool(&pool(), at(2)).await?;
    assert!(store.pool_standing(&pool()).await?.paused);
    assert!(!store.pool_standing(&elsewhere()).await?.paused);
    store.resume_pool(&pool(), at(3)).await?;
    assert!(!store.pool_standing(&pool()).await?.paused);
    assert_eq!(count(&*store, "pool.paused").await?, 1);
    assert_eq!(count(&*store, "pool.resumed").await?, 1);
    Ok(())
}

pub async fn a_halt_is_told_once_and_ended_by_resuming<S: Store>(store: Arc<S>) -> Outcome {
    booting(&*store, 1).await?;
    store
        .mark_failed(server_id(1), "no", Blame::Server, at(5))
        .await?;
    store.halt_pool(&pool(), at(6)).await?;
    store.halt_pool(&pool(), at(7)).await?;
    assert!(store.pool_standing(&pool()).await?.halted);
    assert_eq!(count(&*store, "pool.halted").await?, 1);
    store.resume_pool(&pool(), at(8)).await?;
    assert_eq!(store.pool_standing(&pool()).await?, PoolStanding::default());
    Ok(())
}

pub async fn a_hold_lasts_and_is_told_once_while_it_does<S: Store>(store: Arc<S>) -> Outcome {
    store.hold_pool(&pool(), at(100), "limit", at(1)).await?;
    store.hold_pool(&pool(), at(200), "limit", at(2)).await?;
    let standing = store.pool_standing(&pool()).await?;
    assert_eq!(standing.held_until, Some(at(100)));
    assert_eq!(count(&*store, "pool.held").await?, 1);
    store.hold_pool(&pool(), at(300), "limit", at(101)).await?;
    let standing = store.pool_standing(&pool()).await?;
    assert_eq!(standing.held_until, Some(at(300)));
    assert_eq!(count(&*store, "pool.held").await?, 2);
    Ok(())
}

pub async fn a_pool_below_its_target_is_told_once_and_its_recovery_only_then<S: Store>(
    store: Arc<S>,
) -> Outcome {
    store.pool_fell_below(&pool(), at(1)).await?;
    store.pool_fell_below(&pool(), at(2)).await?;
    assert_eq!(store.pool_standing(&pool()).await?.below_since, Some(at(1)));
    store.pool_reached(&pool(), at(3)).await?;
    assert_eq!(store.pool_standing(&pool()).await?.below_since, None);
    assert_eq!(count(&*store, "pool.recovered").await?, 0);
    store.pool_fell_below(&pool(), at(4)).await?;
    store.tell_pool_below(&pool(), at(5)).await?;
    store.tell_pool_below(&pool(), at(6)).await?;
    assert!(store.pool_standing(&pool()).await?.told_below);
    store.pool_reached(&pool(), at(7)).await?;
    assert_eq!(store.pool_standing(&pool()).await?, PoolStanding::default());
    assert_eq!(count(&*store, "pool.below_target").await?, 1);
    assert_eq!(count(&*store, "pool.recovered").await?, 1);
    Ok(())
}

pub async fn a_placement_is_left_alone_for_as_long_as_was_said<S: Store>(store: Arc<S>) -> Outcome {
    let full = sample::placement();
    store.cool(&full, at(10)).await?;
    store.cool(&full, at(20)).await?;
    assert_eq!(store.cooling(at(15)).await?, HashSet::from([full]));
    assert_eq!(store.cooling(at(20)).await?, HashSet::new());
    Ok(())
}

pub async fn arrivals_are_those_of_the_pool_since_then<S: Store>(store: Arc<S>) -> Outcome {
    for (number, second) in [(1, 10), (2, 20), (3, 30)] {
        store
            .create_instance(&new_instance(number), at(second))
            .await?;
    }
    let mut arrivals = store.arrivals(&pool(), at(10)).await?;
    arrivals.sort();
    assert_eq!(arrivals, [at(20), at(30)]);
    assert_eq!(store.arrivals(&elsewhere(), at(0)).await?, []);
    Ok(())
}

pub async fn a_server_was_warm_for_the_first_time_once<S: Store>(store: Arc<S>) -> Outcome {
    let id = warm(&*store, 1).await?;
    store.mark_unheard(id, "gone quiet", at(50)).await?;
    let report = super::world::report(0);
    store.record_report(id, &report, at(60)).await?;
    let server = store.server(id).await?.and_then(|server| server.warmed_at);
    assert_eq!(server, Some(at(4)));
    Ok(())
}
