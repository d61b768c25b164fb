//! API tokens, login links, sessions, idempotency keys.

use std::sync::Arc;

use super::{
    Outcome,
    world::{at, hash, operation_id, running, token_id},
};
use crate::{
    model::ApiToken,
    store::{Idempotency, Store, Transition},
};

fn api_token(number: u8) -> ApiToken {
    ApiToken {
        id: token_id(number),
        name: format!("app {number}"),
        secret_hash: hash(number),
        created_at: at(number.into()),
        expires_at: Some(at(1000)),
        revoked_at: None,
    }
}

pub async fn an_api_token_reads_back_and_is_revoked_once<S: Store>(store: Arc<S>) -> Outcome {
    let mut token = api_token(2);
    store.create_api_token(&token).await?;
    store.create_api_token(&api_token(1)).await?;
    assert_eq!(store.api_token(token.id).await?, Some(token.clone()));
    assert_eq!(store.api_token(token_id(9)).await?, None);
    let revoked = store.revoke_api_token(token.id, at(5)).await?;
    assert_eq!(revoked, Transition::Done);
    let again = store.revoke_api_token(token.id, at(6)).await?;
    assert_eq!(again, Transition::NotPossible);
    token.revoked_at = Some(at(5));
    assert_eq!(store.api_tokens().await?, [api_token(1), token]);
    Ok(())
}

pub async fn a_login_link_opens_one_session<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    store.create_login_link(hash(1), id, at(60), at(8)).await?;
    let first = store.redeem_login_link(hash(1), id, hash(11), at(99), at(9));
    assert!(first.await?);
    let second = store.redeem_login_link(hash(1), id, hash(12), at(99), at(9));
    assert!(!second.await?);
    assert_eq!(store.session(hash(11), at(10)).await?, Some(id));
    assert_eq!(store.session(hash(12), at(10)).await?, None);
    Ok(())
}

pub async fn of_two_redemptions_at_once_one_opens<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    store.create_login_link(hash(1), id, at(60), at(8)).await?;
    let (one, other) = tokio::join!(
        store.redeem_login_link(hash(1), id, hash(11), at(99), at(9)),
        store.redeem_login_link(hash(1), id, hash(12), at(99), at(9)),
    );
    assert_ne!(one?, other?);
    Ok(())
}

pub async fn a_login_link_is_of_its_instance_and_its_time<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    let other = running(&*store, 2).await?;
    store.create_login_link(hash(1), id, at(60), at(8)).await?;
    let foreign = store.redeem_login_link(hash(1), other, hash(11), at(99), at(9));
    assert!(!foreign.await?);
    let late = store.redeem_login_link(hash(1), id, hash(11), at(99), at(60));
    assert!(!late.await?);
    let unknown = store.redeem_login_link(hash(9), id, hash(11), at(99), at(9));
    assert!(!unknown.await?);
    assert_eq!(store.session(hash(11), at(10)).await?, None);
    let right = store.redeem_login_link(hash(1), id, hash(11), at(99), at(59));
    assert!(right.await?);
    Ok(())
}

pub async fn a_session_ends<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    store.create_login_link(hash(1), id, at(60), at(8)).await?;
    store
        .redeem_login_link(hash(1), id, hash(11), at(99), at(9))
        .await?;
    assert_eq!(store.session(hash(11), at(98)).await?, Some(id));
    assert_eq!(store.session(hash(11), at(99)).await?, None);
    Ok(())
}

pub async fn one_session_is_ended_or_all_of_its_instance<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    let other = running(&*store, 2).await?;
    for (number, of) in [(1, id), (2, id), (3, id), (4, other)] {
        store
            .create_login_link(hash(number), of, at(60), at(8))
            .await?;
        let session = hash(number + 10);
        store
            .redeem_login_link(hash(number), of, session, at(99), at(9))
            .await?;
    }
    assert_eq!(store.end_sessions(other, Some(hash(11))).await?, 0);
    assert_eq!(store.end_sessions(id, Some(hash(11))).await?, 1);
    assert_eq!(store.session(hash(11), at(10)).await?, None);
    assert_eq!(store.session(hash(12), at(10)).await?, Some(id));
    assert_eq!(store.end_sessions(id, None).await?, 2);
    assert_eq!(store.session(hash(13), at(10)).await?, None);
    assert_eq!(store.session(hash(14), at(10)).await?, Some(other));
    Ok(())
}

pub async fn a_deleted_instance_gets_no_login_link<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    store
        .delete_instance(id, operation_id(101), at(8), at(8))
        .await?;
    store.create_login_link(hash(1), id, at(60), at(9)).await?;
    let opened = store.redeem_login_link(hash(1), id, hash(11), at(99), at(9));
    assert!(!opened.await?);
    Ok(())
}

pub async fn an_idempotency_key_goes_from_fresh_to_replay<S: Store>(store: Arc<S>) -> Outcome {
    let token = token_id(1);
    let begin = async || store.begin_idempotent(token, "k", hash(1), at(1)).await;
    assert_eq!(begin().await?, Idempotency::Fresh);
    assert_eq!(begin().await?, Idempotency::InProgress);
    store
        .finish_idempotent(token, "k", 201, "{}", at(2))
        .await?;
    let replay = Idempotency::Replay {
        status: 201,
        body: "{}".to_owned(),
    };
    assert_eq!(begin().await?, replay);
    // Neither a second end nor a late abandonment takes the answer away.
    store.finish_idempotent(token, "k", 500, "", at(3)).await?;
    store.abandon_idempotent(token, "k").await?;
    assert_eq!(begin().await?, replay);
    let other = store.begin_idempotent(token_id(2), "k", hash(1), at(1));
    assert_eq!(other.await?, Idempotency::Fresh);
    Ok(())
}

pub async fn an_idempotency_key_with_another_request_is_a_mismatch<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let token = token_id(1);
    store.begin_idempotent(token, "k", hash(1), at(1)).await?;
    let running = store.begin_idempotent(token, "k", hash(2), at(2)).await?;
    store
        .finish_idempotent(token, "k", 201, "{}", at(3))
        .await?;
    let done = store.begin_idempotent(token, "k", hash(2), at(4)).await?;
    assert_eq!(
        [running, done],
        [Idempotency::Mismatch, Idempotency::Mismatch]
    );
    Ok(())
}

pub async fn an_abandoned_key_is_fresh<S: Store>(store: Arc<S>) -> Outcome {
    let token = token_id(1);
    store.begin_idempotent(token, "k", hash(1), at(1)).await?;
    store.abandon_idempotent(token, "k").await?;
    let again = store.begin_idempotent(token, "k", hash(2), at(2)).await?;
    assert_eq!(again, Idempotency::Fresh);
    Ok(())
}

pub async fn a_key_held_by_the_dead_is_fresh<S: Store>(store: Arc<S>) -> Outcome {
    let token = token_id(1);
    store.begin_idempotent(token, "k", hash(1), at(0)).await?;
    let held = store.begin_idempotent(token, "k", hash(1), at(120)).await?;
    assert_eq!(held, Idempotency::InProgress);
    let free = store.begin_idempotent(token, "k", hash(1), at(121)).await?;
    assert_eq!(free, Idempotency::Fresh);
    let held = store.begin_idempotent(token, "k", hash(1), at(122)).await?;
    assert_eq!(held, Idempotency::InProgress);
    Ok(())
}

pub async fn of_two_requests_with_one_key_one_is_fresh<S: Store>(store: Arc<S>) -> Outcome {
    let (one, other) = tokio::join!(
        store.begin_idempotent(token_id(1), "k", hash(1), at(1)),
        store.begin_idempotent(token_id(1), "k", hash(1), at(1)),
    );
    assert_ne!(one? == Idempotency::Fresh, other? == Idempotency::Fresh);
    Ok(())
}

pub async fn what_is_over_is_forgotten<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    let token = token_id(1);
    for number in [1, 2, 3] {
        store
            .create_login_link(hash(number), id, at(60), at(8))
            .await?;
    }
    store
        .redeem_login_link(hash(1), id, hash(11), at(90), at(9))
        .await?;
    store.begin_idempotent(token, "k", hash(1), at(9)).await?;
    store.finish_idempotent(token, "k", 200, "", at(9)).await?;
    assert_eq!(store.forget_expired(at(59)).await?, 0);
    assert_eq!(store.forget_expired(at(60)).await?, 2);
    assert_eq!(store.forget_expired(at(90)).await?, 1);
    let day_later = at(9 + 24 * 3600);
    assert_eq!(store.forget_expired(day_later).await?, 1);
    let again = store
        .begin_idempotent(token, "k", hash(2), day_later)
        .await?;
    assert_eq!(again, Idempotency::Fresh);
    Ok(())
}
