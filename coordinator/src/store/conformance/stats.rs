//! What agents say of what servers take.

use std::sync::Arc;

use anyhow::Context as _;

use super::{
    Outcome,
    world::{at, coordinator_id, server_id, warm},
};
use crate::{
    model::{GatewayStats, HostStats, Stats, StatsRecord},
    store::Store,
};

fn said(number: u8, epoch: u64, memory_bytes: u64) -> StatsRecord {
    StatsRecord {
        server: server_id(number),
        epoch,
        stats: Stats {
            gateway: Some(GatewayStats {
                cpu_millicores: Some(20),
                memory_bytes,
                memory_limit_bytes: None,
                pids: 30,
            }),
            host: HostStats {
                cpus: 2,
                cpu_millicores: None,
                memory_bytes: 4 << 30,
                memory_available_bytes: 2 << 30,
                rest_memory_bytes: Some(140 << 20),
                agent_memory_bytes: 14 << 20,
                disk_bytes: 40 << 30,
                disk_free_bytes: 30 << 30,
            },
        },
    }
}

pub async fn the_last_word_of_each_server_is_kept<S: Store>(store: Arc<S>) -> Outcome {
    let (one, two) = (warm(&*store, 1).await?, warm(&*store, 2).await?);
    assert_eq!(store.stats(one).await?, None);
    let epoch = store.server(one).await?.context("server")?.epoch;
    let first = [said(1, epoch, 100), said(2, epoch, 200)];
    store.record_stats(&first, at(10)).await?;
    store.record_stats(&[said(1, epoch, 300)], at(11)).await?;
    let last = (at(11), said(1, epoch, 300).stats);
    assert_eq!(store.stats(one).await?, Some(last));
    let all = store.all_stats().await?;
    assert_eq!(all.len(), 2);
    assert_eq!(all.get(&two), Some(&(at(10), first[1].stats)));
    Ok(())
}

pub async fn stats_of_another_session_or_of_a_stranger_are_ignored<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let (id, revoked) = (warm(&*store, 1).await?, warm(&*store, 2).await?);
    let before = store.server(id).await?.context("server")?.epoch;
    store
        .open_session(id, "1", coordinator_id(1), at(9))
        .await?;
    store.revoke(revoked, at(9)).await?;
    let late = [
        said(1, before, 100),
        said(2, before, 100),
        said(9, before, 100),
    ];
    store.record_stats(&late, at(10)).await?;
    assert_eq!(store.all_stats().await?.len(), 0);
    store
        .record_stats(&[said(1, before + 1, 100)], at(10))
        .await?;
    assert_eq!(store.all_stats().await?.len(), 1);
    Ok(())
}

pub async fn nothing_is_known_of_what_a_server_takes_that_is_gone<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let id = warm(&*store, 1).await?;
    let epoch = store.server(id).await?.context("server")?.epoch;
    store.record_stats(&[said(1, epoch, 100)], at(10)).await?;
    store.retire_unclaimed(id, at(11)).await?;
    store.mark_deleting(id, at(12)).await?;
    store.mark_gone(id, at(13)).await?;
    store.record_stats(&[said(1, epoch, 100)], at(14)).await?;
    assert_eq!(store.stats(id).await?, None);
    Ok(())
}
