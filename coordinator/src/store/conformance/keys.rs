//! Keys, sealed.

use std::sync::Arc;
use tidepool_shared::sealed_place::SealedPlace;

use super::{
    Outcome,
    world::{at, purged, running},
};
use crate::{
    model::{CustomerKey, Provider, Sealed},
    store::{Store, Transition},
};

fn provider(base_url: &str) -> Provider {
    Provider {
        name: "main".into(),
        kind: "openai".into(),
        base_url: base_url.into(),
        sealed_key: Some(b"operator".to_vec()),
        created_at: at(1),
        updated_at: at(1),
    }
}

pub async fn a_customers_key_is_for_one_provider_at_one_address<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let id = running(&*store, 1).await?;
    let (here, there) = (
        provider("https://one.example"),
        provider("https://two.example"),
    );
    let put = |provider: Provider, second| {
        let store = Arc::clone(&store);
        async move {
            store
                .put_customer_key(id, &provider, b"sealed", at(second))
                .await
        }
    };
    assert_eq!(
        put(here.clone(), 10).await?,
        Transition::NotPossible,
        "no provider"
    );
    store.put_provider(&here).await?;
    assert_eq!(
        put(there.clone(), 11).await?,
        Transition::NotPossible,
        "it has moved"
    );
    for second in [12, 13] {
        assert_eq!(put(here.clone(), second).await?, Transition::Done);
    }
    let key = CustomerKey {
        provider: "main".into(),
        created_at: at(13),
    };
    assert_eq!(store.customer_keys(id).await?, [key]);
    // A key does not follow its provider to another address.
    store.put_provider(&there).await?;
    assert_eq!(store.customer_keys(id).await?, []);
    assert_eq!(put(there, 14).await?, Transition::Done);
    assert_eq!(
        store.delete_customer_key(id, "main").await?,
        Transition::Done
    );
    assert_eq!(
        store.delete_customer_key(id, "main").await?,
        Transition::NotPossible
    );
    Ok(())
}

pub async fn a_purged_instance_has_no_keys<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    let provider = provider("https://one.example");
    store.put_provider(&provider).await?;
    store
        .put_customer_key(id, &provider, b"sealed", at(10))
        .await?;
    purged(&*store, id).await?;
    assert_eq!(store.customer_keys(id).await?, []);
    let put = store
        .put_customer_key(id, &provider, b"sealed", at(30))
        .await?;
    assert_eq!(put, Transition::NotPossible);
    Ok(())
}

pub async fn whatever_is_sealed_is_found_and_sealed_again_once<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    let provider = provider("https://one.example");
    store.put_provider(&provider).await?;
    store
        .put_customer_key(id, &provider, b"customer", at(10))
        .await?;
    let all = store.sealed().await?;
    let place = |place, bytes: &[u8]| Sealed {
        place,
        bytes: bytes.to_vec(),
    };
    let customers = SealedPlace::CustomerKey {
        instance: id.to_string(),
        provider: "main".into(),
    };
    let expected = [
        place(SealedPlace::Provider("main".into()), b"operator"),
        place(customers, b"customer"),
    ];
    assert_eq!(all, expected);
    assert_eq!(
        all[1].place.to_string(),
        format!("instance/{id}/provider/main")
    );
    for sealed in &all {
        assert_eq!(store.reseal(sealed, b"again").await?, Transition::Done);
        assert_eq!(
            store.reseal(sealed, b"twice").await?,
            Transition::NotPossible
        );
    }
    assert!(
        store
            .sealed()
            .await?
            .iter()
            .all(|sealed| sealed.bytes == b"again")
    );
    Ok(())
}
