//! What agents' reports change, and which are not listened to.

use std::sync::Arc;

use anyhow::Context as _;
use tidepool_shared::document::Generation;

use super::{
    Outcome,
    world::{
        address, at, booting, claimed, coordinator_id, count, document, report, server_id, warm,
    },
};
use crate::{
    model::{Health, ServerReport, ServerState},
    store::{Store, Transition},
};

pub async fn a_warm_report_makes_a_booting_server_warm<S: Store>(store: Arc<S>) -> Outcome {
    let id = booting(&*store, 1).await?;
    store
        .open_session(id, "1", coordinator_id(1), at(3))
        .await?;
    let cold = ServerReport {
        warm: false,
        ..report(0)
    };
    let server = store
        .record_report(id, &cold, at(4))
        .await?
        .context("cold")?;
    assert_eq!(server.state, ServerState::Booting);
    let server = store
        .record_report(id, &report(0), at(5))
        .await?
        .context("warm")?;
    assert_eq!(
        (server.state, server.state_since),
        (ServerState::Warm, at(5))
    );
    assert_eq!((server.health, server.gateway_starts), (Health::Ok, 1));
    assert_eq!(store.server(id).await?, Some(server));
    Ok(())
}

pub async fn a_report_of_an_old_session_is_ignored<S: Store>(store: Arc<S>) -> Outcome {
    let id = booting(&*store, 1).await?;
    store
        .open_session(id, "1", coordinator_id(1), at(3))
        .await?;
    store
        .open_session(id, "1", coordinator_id(1), at(4))
        .await?;
    let before = store.server(id).await?;
    assert_eq!(store.record_report(id, &report(0), at(5)).await?, None);
    let early = ServerReport {
        epoch: 3,
        ..report(0)
    };
    assert_eq!(store.record_report(id, &early, at(5)).await?, None);
    assert_eq!(store.server(id).await?, before);
    let unknown = store.record_report(server_id(9), &report(0), at(5)).await?;
    assert_eq!(unknown, None);
    Ok(())
}

pub async fn a_report_of_a_revoked_or_draining_server_is_ignored<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let revoked = warm(&*store, 1).await?;
    let draining = warm(&*store, 2).await?;
    store.revoke(revoked, at(5)).await?;
    store.retire_unclaimed(draining, at(5)).await?;
    for id in [revoked, draining] {
        let before = store.server(id).await?;
        let down = ServerReport {
            health: Health::Down,
            ..report(0)
        };
        assert_eq!(store.record_report(id, &down, at(6)).await?, None);
        assert_eq!(store.server(id).await?, before);
    }
    Ok(())
}

fn gave_up() -> ServerReport {
    ServerReport {
        warm: false,
        failed: Some("no gateway".to_owned()),
        health: Health::Down,
        ..report(0)
    }
}

pub async fn a_failed_report_fails_a_server_and_takes_its_trust<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let id = warm(&*store, 1).await?;
    let server = store
        .record_report(id, &gave_up(), at(5))
        .await?
        .context("ignored")?;
    assert_eq!(server.state, ServerState::Failed);
    assert_eq!(server.failure.as_deref(), Some("no gateway"));
    assert_eq!(store.server(id).await?, Some(server));
    assert_eq!(store.trusted(address(1)).await?, None);
    assert_eq!(count(&*store, "server.failed").await?, 1);
    Ok(())
}

pub async fn a_failed_report_does_not_fail_a_claimed_server<S: Store>(store: Arc<S>) -> Outcome {
    let instance = claimed(&*store, 1).await?.id;
    let server = store
        .record_report(server_id(1), &gave_up(), at(6))
        .await?
        .context("ignored")?;
    assert_eq!(server.state, ServerState::Claimed);
    let instance = store.instance(instance).await?.context("no instance")?;
    assert_eq!(instance.health, Health::Down);
    Ok(())
}

pub async fn a_claimed_servers_report_reaches_its_instance<S: Store>(store: Arc<S>) -> Outcome {
    let id = claimed(&*store, 1).await?.id;
    let degraded = ServerReport {
        health: Health::Degraded,
        reasons: vec!["telegram: bad token".to_owned()],
        ..report(1)
    };
    store.record_report(server_id(1), &degraded, at(6)).await?;
    let instance = store.instance(id).await?.context("no instance")?;
    assert_eq!(instance.health, Health::Degraded);
    assert_eq!(instance.reasons, ["telegram: bad token"]);
    assert_eq!(instance.observed.0, 1);
    assert_eq!(count(&*store, "instance.health_changed").await?, 1);
    assert_eq!(count(&*store, "config.applied").await?, 1);
    Ok(())
}

pub async fn a_repeated_report_tells_nothing_twice<S: Store>(store: Arc<S>) -> Outcome {
    claimed(&*store, 1).await?;
    let rejected = ServerReport {
        rejected: Some((document(1, 1).generation, "bad key".to_owned())),
        ..report(0)
    };
    store.record_report(server_id(1), &rejected, at(6)).await?;
    let told = store.last_sequence().await?;
    let again = store.record_report(server_id(1), &rejected, at(7)).await?;
    assert!(again.is_some());
    assert_eq!(store.last_sequence().await?, told);
    assert_eq!(count(&*store, "config.rejected").await?, 1);
    Ok(())
}

pub async fn an_agent_cannot_observe_what_was_never_written<S: Store>(store: Arc<S>) -> Outcome {
    let id = claimed(&*store, 1).await?.id;
    store
        .record_report(server_id(1), &report(u64::MAX), at(6))
        .await?
        .context("ignored")?;
    let instance = store.instance(id).await?.context("no instance")?;
    assert_eq!(instance.observed, instance.generation);
    Ok(())
}

pub async fn an_agent_cannot_make_news_of_generations_that_are_none<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let id = claimed(&*store, 1).await?.id;
    for (number, observed) in [(5, 1), (6, 0), (7, 1), (u64::MAX, 0)] {
        let said = ServerReport {
            rejected: Some((Generation(number), "no".to_owned())),
            ..report(observed)
        };
        store.record_report(server_id(1), &said, at(6)).await?;
        let applied = report(observed);
        store.record_report(server_id(1), &applied, at(7)).await?;
    }
    assert_eq!(count(&*store, "config.rejected").await?, 1);
    assert!(count(&*store, "config.applied").await? <= 1);
    let instance = store.instance(id).await?.context("no instance")?;
    assert_eq!(instance.observed, instance.generation);
    Ok(())
}

pub async fn a_warm_server_that_is_not_warm_any_more_boots_again<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let id = warm(&*store, 1).await?;
    let cold = ServerReport {
        warm: false,
        ..report(0)
    };
    let epoch = store.server(id).await?.context("server")?.epoch;
    let server = store
        .record_report(id, &ServerReport { epoch, ..cold }, at(9))
        .await?
        .context("heard")?;
    assert_eq!(
        (server.state, server.state_since),
        (ServerState::Booting, at(9))
    );
    Ok(())
}

pub async fn an_unheard_warm_server_is_not_given_away<S: Store>(store: Arc<S>) -> Outcome {
    let id = warm(&*store, 1).await?;
    let done = store.mark_unheard(id, "switched off", at(9)).await?;
    assert_eq!(done, Transition::Done);
    let server = store.server(id).await?.context("server")?;
    assert_eq!(server.state, ServerState::Booting);
    let again = store.mark_unheard(id, "switched off", at(10)).await?;
    assert_eq!(again, Transition::NotPossible);
    Ok(())
}

pub async fn an_unheard_claimed_server_stays_claimed_with_its_health_unknown<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let instance = claimed(&*store, 1).await?.id;
    let id = server_id(1);
    let epoch = store.server(id).await?.context("server")?.epoch;
    let healthy = ServerReport { epoch, ..report(1) };
    store.record_report(id, &healthy, at(9)).await?;
    assert_eq!(
        store.mark_unheard(id, "no link", at(10)).await?,
        Transition::Done
    );
    let server = store.server(id).await?.context("server")?;
    assert_eq!(server.state, ServerState::Claimed);
    let shown = store.instance(instance).await?.context("instance")?;
    assert_eq!(shown.health, Health::Unknown);
    assert_eq!(shown.reasons, ["no link"]);
    Ok(())
}
