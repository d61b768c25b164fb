//! Trials of images: one at a time, from the wish to what came of it.

use std::sync::Arc;

use anyhow::Context as _;
use tidepool_shared::{id::VerificationId, manifest::ImageManifest};
use uuid::Uuid;

use super::{
    Outcome,
    world::{
        address, at, booting, coordinator_id, count, hash, new_server, report, server_id, step,
    },
};
use crate::{
    model::{
        Baseline, Conclusion, Figures, NewVerification, ServerReport, ServerState, Verification,
        VerificationState,
    },
    store::{Redemption, Store, Transition},
};

fn id(number: u8) -> VerificationId {
    VerificationId::new(Uuid::from_u128(number.into()))
}

fn wish(number: u8, image: &str) -> NewVerification {
    NewVerification {
        id: id(number),
        image: image.to_owned(),
        expires_at: at(600),
    }
}

fn figures() -> Figures {
    Figures {
        boot_to_enrolled_ms: 1,
        boot_to_warm_ms: 2,
        gateway_start_ms: 3,
        first_turn_ms: 4,
        gateway_mib: Some(5),
        rest_mib: None,
    }
}

fn passed() -> Conclusion {
    Conclusion {
        figures: Some(figures()),
        baseline: Some(Baseline {
            image: "old".to_owned(),
            figures: figures(),
        }),
        problems: Vec::new(),
    }
}

fn refused() -> Conclusion {
    Conclusion {
        figures: None,
        baseline: None,
        problems: vec!["too slow".to_owned()],
    }
}

fn manifest() -> ImageManifest {
    ImageManifest {
        image: "openclaw-2026.9.6".to_owned(),
        openclaw_version: "2026.9.6".to_owned(),
        gateway: vec!["node".to_owned()],
        config_schema: "/schema".into(),
        nginx: "/nginx".into(),
        gateway_ports: 1,
        release_keys: Vec::new(),
        container: None,
        build: None,
    }
}

/// A trial that has ended.
async fn ended<S: Store>(
    store: &S,
    number: u8,
    image: &str,
    conclusion: &Conclusion,
) -> anyhow::Result<Verification> {
    store.want_verification(&wish(number, image), at(1)).await?;
    store
        .conclude_verification(id(number), conclusion, at(9))
        .await?;
    store.verification(id(number)).await?.context("it is there")
}

pub async fn one_image_is_tried_at_a_time<S: Store>(store: Arc<S>) -> Outcome {
    assert_eq!(store.open_verification().await?, None);
    let first = store.want_verification(&wish(1, "a"), at(1)).await?;
    assert_eq!((first.id, first.state), (id(1), VerificationState::Wanted));
    assert_eq!((first.created_at, first.expires_at), (at(1), at(600)));
    for other in [wish(2, "a"), wish(3, "b")] {
        assert_eq!(store.want_verification(&other, at(2)).await?, first);
    }
    assert_eq!(store.open_verification().await?, Some(first));
    store
        .conclude_verification(id(1), &refused(), at(3))
        .await?;
    assert_eq!(store.open_verification().await?, None);
    let next = store.want_verification(&wish(4, "b"), at(4)).await?;
    assert_eq!(next.id, id(4));
    Ok(())
}

pub async fn wishes_at_once_are_answered_with_one_trial<S: Store>(store: Arc<S>) -> Outcome {
    let (one, other) = (wish(1, "a"), wish(2, "b"));
    let (one, other) = tokio::join!(
        store.want_verification(&one, at(1)),
        store.want_verification(&other, at(1)),
    );
    assert_eq!(one?, other?);
    Ok(())
}

pub async fn a_trial_begins_once_with_its_server<S: Store>(store: Arc<S>) -> Outcome {
    store.want_verification(&wish(1, "a"), at(1)).await?;
    let begun = store
        .begin_verification(id(1), &new_server(1), at(2))
        .await?;
    assert_eq!(begun, Transition::Done);
    let again = store
        .begin_verification(id(1), &new_server(2), at(3))
        .await?;
    assert_eq!(again, Transition::NotPossible);
    let server = store.server(server_id(1)).await?.context("its server")?;
    assert_eq!(server.state, ServerState::Planned);
    assert_eq!(store.server(server_id(2)).await?, None);
    let trial = store.open_verification().await?.context("it goes on")?;
    assert_eq!(
        (trial.state, trial.server),
        (VerificationState::Running, Some(server_id(1)))
    );
    Ok(())
}

pub async fn a_trial_whose_time_is_over_gets_no_server<S: Store>(store: Arc<S>) -> Outcome {
    let late = NewVerification {
        expires_at: at(5),
        ..wish(1, "a")
    };
    store.want_verification(&late, at(1)).await?;
    let begun = store
        .begin_verification(id(1), &new_server(1), at(5))
        .await?;
    assert_eq!(begun, Transition::NotPossible);
    assert_eq!(store.servers().await?, []);
    Ok(())
}

pub async fn a_trial_ends_once_and_is_told<S: Store>(store: Arc<S>) -> Outcome {
    let good = ended(&*store, 1, "a", &passed()).await?;
    assert_eq!(good.state, VerificationState::Passed);
    assert_eq!(good.finished_at, Some(at(9)));
    let kept = Conclusion {
        figures: good.figures,
        baseline: good.baseline,
        problems: good.problems,
    };
    assert_eq!(kept, passed());
    let again = store
        .conclude_verification(id(1), &refused(), at(10))
        .await?;
    assert_eq!(again, Transition::NotPossible);
    let bad = ended(&*store, 2, "b", &refused()).await?;
    assert_eq!(
        (bad.state, bad.problems),
        (VerificationState::Refused, refused().problems)
    );
    assert_eq!(count(&*store, "image.verified").await?, 1);
    assert_eq!(count(&*store, "image.refused").await?, 1);
    Ok(())
}

pub async fn the_last_word_about_an_image_counts_and_the_last_good_one_is_found<S: Store>(
    store: Arc<S>,
) -> Outcome {
    ended(&*store, 1, "a", &passed()).await?;
    ended(&*store, 2, "b", &passed()).await?;
    ended(&*store, 3, "a", &refused()).await?;
    // One that goes on says nothing yet.
    store.want_verification(&wish(4, "b"), at(20)).await?;
    let last = store.last_verifications().await?;
    let last: Vec<_> = last.iter().map(|last| (last.id, last.state)).collect();
    assert_eq!(
        last,
        [
            (id(3), VerificationState::Refused),
            (id(2), VerificationState::Passed)
        ]
    );
    let good = store.passed_verification("a").await?.map(|good| good.id);
    assert_eq!(good, Some(id(1)));
    assert_eq!(store.passed_verification("c").await?, None);
    Ok(())
}

pub async fn what_is_in_an_image_is_noted_while_it_is_tried<S: Store>(store: Arc<S>) -> Outcome {
    store.want_verification(&wish(1, "a"), at(1)).await?;
    store
        .begin_verification(id(1), &new_server(1), at(2))
        .await?;
    store.note_manifest(server_id(9), &manifest()).await?;
    let trial = store.verification(id(1)).await?.context("it is there")?;
    assert_eq!(trial.manifest, None);
    store.note_manifest(server_id(1), &manifest()).await?;
    store.conclude_verification(id(1), &passed(), at(9)).await?;
    let other = ImageManifest {
        openclaw_version: "2026.9.5".to_owned(),
        ..manifest()
    };
    store.note_manifest(server_id(1), &other).await?;
    let trial = store.verification(id(1)).await?.context("it is there")?;
    assert_eq!(trial.manifest, Some(manifest()));
    Ok(())
}

pub async fn a_boot_is_noted_from_enrolment_to_the_first_time_that_it_is_warm<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let server = booting(&*store, 1).await?;
    assert_eq!(store.enrolled_at(server).await?, None);
    let spent = store.redeem(hash(1), server, address(1), at(3)).await?;
    assert_eq!(spent, Redemption::Accepted);
    assert_eq!(store.enrolled_at(server).await?, Some(at(3)));
    store
        .open_session(server, "2026.9.6", coordinator_id(1), at(4))
        .await?;
    let steps = vec![step("gateway_start", 5), step("warm_up", 7)];
    let first = ServerReport {
        steps: steps.clone(),
        ..report(0)
    };
    store.record_report(server, &first, at(5)).await?;
    // Later steps are of another start.
    store.mark_unheard(server, "gone quiet", at(50)).await?;
    store.record_report(server, &report(0), at(60)).await?;
    let found = store.server(server).await?.context("it is there")?;
    assert_eq!((found.boot_steps, found.warmed_at), (steps, Some(at(5))));
    Ok(())
}
