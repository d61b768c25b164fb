//! Everything at once: what each change promises must still be true when all of them meet.

use std::{collections::HashMap, sync::Arc};

use anyhow::Context as _;
use tokio::task::JoinSet;

use super::{
    Outcome,
    world::{address, at, new_instance, operation_id, pool, report, server_id, warm},
};
use crate::{
    model::{InstanceStatus, ServerState},
    store::{Page, Store},
};

const SERVERS: u8 = 12;
const INSTANCES: u8 = 24;

/// One customer: creates, perhaps under a name that is taken, hears from the server, perhaps deletes.
async fn customer<S: Store>(store: Arc<S>, number: u8) -> anyhow::Result<()> {
    let mut new = new_instance(number);
    if number.is_multiple_of(5) {
        new.name = new_instance(number - 1).name;
    }
    let Ok(created) = store.create_instance(&new, at(5)).await else {
        return Ok(());
    };
    if let Some(server) = created.server {
        store.record_report(server, &report(1), at(6)).await?;
    }
    if number.is_multiple_of(3) {
        let known = report(0);
        let (deleted, reported) = tokio::join!(
            store.delete_instance(new.id, operation_id(100 + number), at(7), at(7)),
            store.record_report(server_id(number % SERVERS + 1), &known, at(7)),
        );
        deleted?;
        reported?;
    }
    store.claim_for_pending(&pool(), at(8)).await?;
    Ok(())
}

pub async fn customers_at_once_leave_everything_whole<S: Store>(store: Arc<S>) -> Outcome {
    for number in 1..=SERVERS {
        warm(&*store, number).await?;
    }
    let mut customers = JoinSet::new();
    for number in 1..=INSTANCES {
        customers.spawn(customer(Arc::clone(&store), number));
    }
    for served in customers.join_all().await {
        served?;
    }
    // What a pool's next turn does.
    while store.claim_for_pending(&pool(), at(9)).await?.is_some() {}
    let servers = store.servers().await?;
    let warm_left = servers
        .iter()
        .any(|server| server.state == ServerState::Warm);
    let nobody_waits = store.pending_count(&pool()).await? == 0;
    assert!(
        !warm_left || nobody_waits,
        "somebody waits beside a warm server"
    );
    let page = Page {
        after: None,
        limit: 100,
    };
    let mut owners = HashMap::new();
    for instance in store.instances(None, &page).await? {
        let routes = store.routes_of(instance.id).await?.len();
        assert_eq!(routes, 2, "{} is not reached", instance.id);
        if let Some(server) = instance.server {
            assert_eq!(owners.insert(server, instance.id), None, "{server} twice");
        }
    }
    for number in 1..=SERVERS {
        let server = store
            .server(server_id(number))
            .await?
            .context("no server")?;
        let owner = owners.get(&server.id).copied();
        let trusted = store.trusted(address(number)).await?;
        let lives = [ServerState::Claimed, ServerState::Warm].contains(&server.state);
        assert_eq!(
            trusted,
            lives.then_some((server.id, owner)),
            "{}",
            server.id
        );
        assert_eq!(owner.is_some(), server.state == ServerState::Claimed);
    }
    for instance in store
        .instances(Some(InstanceStatus::Deleted), &page)
        .await?
    {
        assert!(store.routes_of(instance.id).await?.is_empty());
    }
    Ok(())
}
