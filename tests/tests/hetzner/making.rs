//! From the order to the running server, or to none.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use tidepool_coordinator::cloud::{Cloud as _, Fault, Placement};
use tidepool_tests::fake_hetzner::Fault as Switch;

use crate::world::{SECOND, World, fault, order, roomy};

const MAKING: &str = "POST /servers";
const NAME: &str = "tidepool-a";

#[tokio::test]
async fn a_server_is_made_runs_and_is_deleted() -> anyhow::Result<()> {
    let world = World::start().await?;
    let made = world.cloud.create(&order(NAME)).await?;
    assert_eq!(world.cloud.find(NAME).await?, Some(made));
    world.cloud.settle(NAME).await?;
    world.cloud.delete(NAME).await?;
    assert_eq!(world.cloud.find(NAME).await?, None);
    assert_eq!(world.servers(), (0, 1));
    world.end().await
}

#[tokio::test]
async fn a_call_that_timed_out_after_the_server_was_made_makes_no_second_one() -> anyhow::Result<()>
{
    let world = World::start().await?;
    world.fake.faults().set_slowness(SECOND * 600);
    world.fake.faults().next(1, Switch::SlowAfter, MAKING);
    world.cloud.create(&order(NAME)).await?;
    assert_eq!((world.servers(), world.calls(MAKING)), ((1, 1), 1));
    world.cloud.settle(NAME).await?;
    world.end().await
}

#[tokio::test]
async fn a_server_whose_answer_was_lost_is_adopted() -> anyhow::Result<()> {
    for lost in [Switch::BadGatewayAfter, Switch::DropAfter] {
        let world = World::start().await?;
        world.fake.faults().next(1, lost, MAKING);
        world.cloud.create(&order(NAME)).await?;
        assert_eq!(
            (world.servers(), world.calls(MAKING)),
            ((1, 1), 1),
            "{lost:?}"
        );
        world.end().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_call_that_never_arrived_is_sent_again() -> anyhow::Result<()> {
    for lost in [Switch::DropBefore, Switch::Unavailable, Switch::Conflict] {
        let world = World::start().await?;
        world.fake.faults().next(1, lost, MAKING);
        world.cloud.create(&order(NAME)).await?;
        assert_eq!(
            (world.servers(), world.calls(MAKING)),
            ((1, 1), 2),
            "{lost:?}"
        );
        world.end().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_was_made_but_not_started_is_reported_and_can_be_deleted()
-> anyhow::Result<()> {
    for failing in [Switch::StartFails, Switch::ActionFails] {
        let world = World::start().await?;
        world.fake.faults().next(1, failing, MAKING);
        world.cloud.create(&order(NAME)).await?;
        assert_eq!(fault(world.cloud.settle(NAME).await), Fault::Invalid);
        world.cloud.delete(NAME).await?;
        assert_eq!(world.servers(), (0, 1), "{failing:?}");
        world.end().await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_action_that_is_stuck_for_ever_is_given_up_and_the_server_can_be_deleted()
-> anyhow::Result<()> {
    let world = World::start().await?;
    world
        .fake
        .faults()
        .always(Switch::ActionStuck, "start_server");
    world.cloud.create(&order(NAME)).await?;
    assert_eq!(fault(world.cloud.settle(NAME).await), Fault::Invalid);
    world.cloud.delete(NAME).await?;
    assert_eq!(world.servers(), (0, 1));
    world.end().await
}

#[tokio::test]
async fn a_foreign_server_of_the_same_name_is_neither_adopted_nor_deleted() -> anyhow::Result<()> {
    let world = World::start().await?;
    let foreign = json!({"name": NAME, "server_type": "cx23", "image": "debian-13",
        "location": "nbg1", "labels": {"managed-by": "tidepool", "env": "other"}});
    world.call(Method::POST, "/servers", &foreign).await?;
    assert_eq!(
        fault(world.cloud.create(&order(NAME)).await),
        Fault::Invalid
    );
    assert_eq!(fault(world.cloud.find(NAME).await), Fault::Invalid);
    assert_eq!(fault(world.cloud.delete(NAME).await), Fault::Invalid);
    assert_eq!(world.cloud.inventory().await?, []);
    assert_eq!(world.servers(), (1, 1));
    world.end().await
}

#[tokio::test]
async fn missing_capacity_is_told_for_its_placement_alone() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.fake.set_room("cx23", "nbg1", 0);
    assert_eq!(
        fault(world.cloud.create(&order(NAME)).await),
        Fault::NoCapacity
    );
    let mut elsewhere = order(NAME);
    elsewhere.placement = Placement {
        server_type: "cpx22".to_owned(),
        location: "nbg1".to_owned(),
    };
    world.cloud.create(&elsewhere).await?;
    world.end().await
}

#[tokio::test]
async fn the_limit_of_the_project_is_told_apart() -> anyhow::Result<()> {
    let mut settings = roomy();
    settings.limits.servers = 1;
    let world = World::with(settings).await?;
    world.cloud.create(&order(NAME)).await?;
    let second = world.cloud.create(&order("tidepool-b")).await;
    assert_eq!(fault(second), Fault::LimitReached);
    world.end().await
}

#[tokio::test]
async fn in_a_bad_hour_no_server_is_left_behind() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.cloud.ensure_firewall().await?;
    for bad in [
        Switch::DropBefore,
        Switch::DropAfter,
        Switch::BadGatewayAfter,
        Switch::Unavailable,
        Switch::Conflict,
        Switch::RateLimited,
        Switch::ActionFails,
    ] {
        world.fake.faults().chance(0.04, bad);
    }
    let orders: Vec<_> = (0..10)
        .map(|number| order(&format!("tidepool-{number}")))
        .collect();
    let made = join_all(orders.iter().map(|order| world.cloud.create(order))).await;
    world.fake.faults().clear();
    for (order, made) in orders.iter().zip(&made) {
        let found = world.cloud.find(&order.name).await?;
        match made {
            Ok(made) => assert_eq!(found.as_ref(), Some(made)),
            // Then there is none, or it was said that there may be one.
            Err(error) => assert!(found.is_none() || error.fault != Fault::Invalid),
        }
        world.cloud.delete(&order.name).await?;
    }
    assert_eq!(world.servers().0, 0);
    world.end().await
}
