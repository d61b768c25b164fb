//! Enrolment tokens: spent once, by the right server, from its address, in time.

use std::sync::Arc;

use anyhow::Context as _;
use serde_json::json;

use super::{
    Outcome,
    world::{address, at, booting, count, hash, made, new_server, server_id},
};
use crate::store::{Redemption, Store};

const REFUSED: &str = "security.enrolment_refused";

pub async fn a_token_is_spent_once<S: Store>(store: Arc<S>) -> Outcome {
    let id = booting(&*store, 1).await?;
    let first = store.redeem(hash(1), id, address(1), at(3)).await?;
    let second = store.redeem(hash(1), id, address(1), at(4)).await?;
    assert_eq!(
        [first, second],
        [Redemption::Accepted, Redemption::AlreadyUsed]
    );
    let events = store.events_after(0, None, 100).await?;
    let audit = events.last().context("no event")?;
    assert_eq!((audit.kind.as_str(), audit.server), (REFUSED, Some(id)));
    assert_eq!(audit.data.get("reason"), Some(&json!("already_used")));
    assert_eq!(count(&*store, REFUSED).await?, 1);
    Ok(())
}

pub async fn of_two_redemptions_at_once_one_wins<S: Store>(store: Arc<S>) -> Outcome {
    let id = booting(&*store, 1).await?;
    let (one, other) = tokio::join!(
        store.redeem(hash(1), id, address(1), at(3)),
        store.redeem(hash(1), id, address(1), at(3)),
    );
    let mut outcomes = [one?, other?];
    outcomes.sort_by_key(|outcome| *outcome != Redemption::Accepted);
    assert_eq!(outcomes, [Redemption::Accepted, Redemption::AlreadyUsed]);
    Ok(())
}

pub async fn a_token_of_another_server_is_unknown_and_not_audited<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let id = booting(&*store, 1).await?;
    booting(&*store, 2).await?;
    let foreign = store.redeem(hash(2), id, address(1), at(3)).await?;
    let nobodys = store.redeem(hash(9), id, address(1), at(3)).await?;
    let no_server = store
        .redeem(hash(1), server_id(9), address(1), at(3))
        .await?;
    assert_eq!([foreign, nobodys, no_server], [Redemption::Unknown; 3]);
    assert_eq!(count(&*store, REFUSED).await?, 0);
    Ok(())
}

pub async fn an_expired_token_is_refused<S: Store>(store: Arc<S>) -> Outcome {
    let id = booting(&*store, 1).await?;
    let late = store.redeem(hash(1), id, address(1), at(3600)).await?;
    assert_eq!(late, Redemption::Expired);
    assert_eq!(count(&*store, REFUSED).await?, 1);
    let in_time = store.redeem(hash(1), id, address(1), at(3599)).await?;
    assert_eq!(in_time, Redemption::Accepted);
    Ok(())
}

pub async fn another_address_is_refused_and_the_token_stays<S: Store>(store: Arc<S>) -> Outcome {
    let id = booting(&*store, 1).await?;
    let thief = store.redeem(hash(1), id, address(2), at(3)).await?;
    assert_eq!(thief, Redemption::WrongAddress);
    assert_eq!(count(&*store, REFUSED).await?, 1);
    let owner = store.redeem(hash(1), id, address(1), at(4)).await?;
    assert_eq!(owner, Redemption::Accepted);
    Ok(())
}

pub async fn a_server_whose_address_is_not_recorded_is_too_early_and_not_audited<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let id = server_id(1);
    store.plan_server(&new_server(1), at(0)).await?;
    store.mark_creating(id, at(1)).await?;
    let early = store.redeem(hash(1), id, address(1), at(2)).await?;
    assert_eq!(early, Redemption::TooEarly);
    assert_eq!(count(&*store, REFUSED).await?, 0);
    store.record_created(id, &made(1), at(3)).await?;
    let later = store.redeem(hash(1), id, address(1), at(4)).await?;
    assert_eq!(later, Redemption::Accepted);
    Ok(())
}

pub async fn a_retired_servers_token_is_refused_and_audited<S: Store>(store: Arc<S>) -> Outcome {
    let retired = booting(&*store, 1).await?;
    let revoked = booting(&*store, 2).await?;
    store.retire_unclaimed(retired, at(3)).await?;
    store.revoke(revoked, at(3)).await?;
    let first = store.redeem(hash(1), retired, address(1), at(4)).await?;
    let second = store.redeem(hash(2), revoked, address(2), at(4)).await?;
    assert_eq!([first, second], [Redemption::NotServed; 2]);
    assert_eq!(count(&*store, REFUSED).await?, 2);
    Ok(())
}

pub async fn an_audit_is_an_event<S: Store>(store: Arc<S>) -> Outcome {
    let data = json!({ "z": 1, "a": "\u{0}" });
    store
        .audit("alarm", Some(server_id(9)), data.clone(), at(1))
        .await?;
    store.audit("quiet", None, json!({}), at(2)).await?;
    let events = store.events_after(0, None, 10).await?;
    let alarm = events.first().context("no event")?;
    assert_eq!(alarm.kind, "security.alarm");
    assert_eq!((alarm.server, alarm.at), (Some(server_id(9)), at(1)));
    assert_eq!(alarm.data, data);
    let quiet = events.get(1).context("one event only")?;
    assert_eq!(
        (quiet.kind.as_str(), quiet.server),
        ("security.quiet", None)
    );
    Ok(())
}
