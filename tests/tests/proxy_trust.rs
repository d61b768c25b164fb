//! What coordinator and proxy must agree on in the database: the trust table, as the real store
//! writes it and the real proxy reads it.

use std::{net::IpAddr, sync::Arc, time::Duration};

use tidepool_coordinator::{
    ambient::{Chance, Clock as _, SystemClock},
    model::NewServer,
    store::{ServerStore, postgres::PostgresStore, sqlite::SqliteStore, throwaway::Throwaway},
};
use tidepool_proxy::{
    catalog::Keyring,
    directory::{Caller, Directory, NotTrusted},
};
use tidepool_shared::{
    database_url::{DatabaseUrl, GivenUrl},
    id::ServerId,
};
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn the_proxy_knows_a_server_from_its_creation_until_it_is_retired() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidepool.db");
    let store = SqliteStore::open(&file, Arc::new(Chance::from_os()))
        .await
        .unwrap();
    knows_a_server_until_it_is_retired(&store, &DatabaseUrl::Sqlite(file))
        .await
        .unwrap();
    store.close().await;
}

#[tokio::test]
async fn the_proxy_reads_the_same_from_postgres() {
    let Some(database) = Throwaway::database().await.unwrap() else {
        return;
    };
    let chance = Arc::new(Chance::from_os());
    let store = PostgresStore::open(database.options().unwrap(), chance)
        .await
        .unwrap();
    let url = GivenUrl::from(database.url()).read().unwrap();
    knows_a_server_until_it_is_retired(&store, &url)
        .await
        .unwrap();
    store.close().await;
}

async fn knows_a_server_until_it_is_retired(
    store: &impl ServerStore,
    database: &DatabaseUrl,
) -> anyhow::Result<()> {
    let (trust, follower) = Directory::of(database, Keyring::default())?;
    let cancel = CancellationToken::new();
    let checking = async {
        let checked = looks(store, &trust).await;
        cancel.cancel();
        checked
    };
    tokio::join!(checking, follower.run(cancel.clone())).0
}

async fn looks(store: &impl ServerStore, trust: &Directory) -> anyhow::Result<()> {
    for (number, address) in [(1, "127.3.0.1"), (2, "fd00::1")] {
        let address: IpAddr = address.parse()?;
        let id: ServerId = format!("srv_{number:026}").parse()?;
        let now = SystemClock.now();
        let new = NewServer {
            id,
            name: format!("pool-{number}"),
            pool: tidepool_coordinator::model::sample::pool(),
            placement: tidepool_coordinator::model::sample::placement(),
            token_hash: [number; 32],
            token_expires: now.plus(Duration::from_hours(1)),
        };
        store.plan_server(&new, now).await?;
        store.mark_creating(id, now).await?;
        assert!(matches!(
            trust.caller(address).await,
            Err(NotTrusted::Unknown)
        ));
        store
            .record_created(
                id,
                &tidepool_coordinator::model::sample::made(&format!("cloud-{number}"), address),
                now,
            )
            .await?;
        let known = Caller {
            server: id,
            customer: None,
        };
        assert_eq!(trust.caller(address).await?, known);
        if let IpAddr::V4(v4) = address {
            // As a listener on `[::]` sees the same server.
            assert_eq!(trust.caller(v4.to_ipv6_mapped().into()).await?, known);
        }
        store.retire_unclaimed(id, now).await?;
        assert!(matches!(
            trust.caller(address).await,
            Err(NotTrusted::Unknown)
        ));
    }
    Ok(())
}
