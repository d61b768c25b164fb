//! Providers, the names of models, and limits.

use std::sync::Arc;
use tidepool_shared::limits::Limits;

use super::{
    Outcome,
    world::{at, purged, running},
};
use crate::{
    model::{ModelAlias, ModelLimits, Provider},
    store::{Store, Transition},
};

fn provider(key: Option<&[u8]>, base_url: &str, second: u64) -> Provider {
    Provider {
        name: "main".into(),
        kind: "openai".into(),
        base_url: base_url.into(),
        sealed_key: key.map(<[u8]>::to_vec),
        created_at: at(1),
        updated_at: at(second),
    }
}

pub async fn a_provider_keeps_its_key_until_it_is_given_another_or_moves<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let first = provider(Some(b"sealed"), "https://one.example", 1);
    store.put_provider(&first).await?;
    assert_eq!(store.providers().await?, std::slice::from_ref(&first));
    store
        .put_provider(&provider(None, "https://one.example", 2))
        .await?;
    let kept = Provider {
        updated_at: at(2),
        ..first
    };
    assert_eq!(store.providers().await?, [kept]);
    let moved = provider(None, "https://two.example", 3);
    store.put_provider(&moved).await?;
    assert_eq!(store.providers().await?, [moved]);
    assert_eq!(store.delete_provider("main").await?, Transition::Done);
    assert_eq!(
        store.delete_provider("main").await?,
        Transition::NotPossible
    );
    Ok(())
}

pub async fn a_model_has_one_meaning_in_a_tier<S: Store>(store: Arc<S>) -> Outcome {
    let alias = |tier: &str, targets: &str| ModelAlias {
        tier: tier.into(),
        alias: "default".into(),
        targets: targets.into(),
        updated_at: at(1),
    };
    store.put_alias(&alias("free", "[1]")).await?;
    store.put_alias(&alias("free", "[2]")).await?;
    store.put_alias(&alias("paid", "[3]")).await?;
    assert_eq!(
        store.aliases().await?,
        [alias("free", "[2]"), alias("paid", "[3]")]
    );
    assert_eq!(
        store.delete_alias("free", "default").await?,
        Transition::Done
    );
    assert_eq!(store.aliases().await?, [alias("paid", "[3]")]);
    Ok(())
}

pub async fn limits_are_written_whole_and_gone_with_their_instance<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let limits = |subject: String, requests, day| ModelLimits {
        subject,
        limits: Limits {
            requests_per_minute: requests,
            day_microcents: day,
            ..Limits::default()
        },
        updated_at: at(1),
    };
    let id = running(&*store, 1).await?;
    let tier = limits("tier/basic".into(), Some(60), Some(1));
    let own = limits(id.to_string(), None, Some(500));
    for written in [&limits(id.to_string(), Some(1), None), &own, &tier] {
        store.put_limits(written).await?;
    }
    assert_eq!(store.limits().await?, [own, tier.clone()]);
    purged(&*store, id).await?;
    assert_eq!(store.limits().await?, std::slice::from_ref(&tier));
    assert_eq!(store.delete_limits("tier/basic").await?, Transition::Done);
    assert_eq!(
        store.delete_limits("tier/basic").await?,
        Transition::NotPossible
    );
    Ok(())
}
