//! What is kept: the firewall, labels, lists, and the understanding of a newer API.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::Method;
use serde_json::{Value, json};
use tidepool_coordinator::cloud::{Cloud as _, Fault, Labels, Micros, ObjectKind, Orderable};
use tidepool_tests::fake_hetzner::{Fault as Switch, Often};

use crate::world::{World, fault, order};

const NAME: &str = "tidepool-a";

async fn firewalls(world: &World) -> anyhow::Result<Value> {
    let answer = world.call(Method::GET, "/firewalls", &Value::Null).await?;
    Ok(answer["firewalls"].clone())
}

#[tokio::test]
async fn the_firewall_is_there_before_the_server_and_named_in_its_creation() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.cloud.create(&order(NAME)).await?;
    let firewall = firewalls(&world).await?[0].clone();
    assert_eq!(firewall["name"], "tidepool-test");
    let rules = firewall["rules"].as_array().map(Vec::len);
    assert_eq!(rules, Some(1), "nothing else comes in");
    assert_eq!(firewall["rules"][0]["port"], "443");
    let requests = world.fake.requests();
    let making: Vec<_> = requests
        .iter()
        .filter(|request| request.operation.starts_with("POST"))
        .collect();
    assert_eq!(making[0].operation, "POST /firewalls");
    assert_eq!(making[1].operation, "POST /servers");
    let named = json!([{"firewall": firewall["id"]}]);
    assert_eq!(making[1].body["firewalls"], named);
    world.end().await
}

#[tokio::test]
async fn the_firewalls_rules_are_restored_after_drift() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.cloud.create(&order(NAME)).await?;
    world.cloud.settle(NAME).await?;
    let before = firewalls(&world).await?;
    let path = format!("/firewalls/{}/actions/set_rules", before[0]["id"]);
    let opened = json!({"rules": [{"direction": "in", "protocol": "tcp", "port": "22",
        "source_ips": ["0.0.0.0/0"]}]});
    world.call(Method::POST, &path, &opened).await?;
    world.cloud.ensure_firewall().await?;
    assert_eq!(firewalls(&world).await?[0]["rules"], before[0]["rules"]);
    let setting = "POST /firewalls/{id}/actions/set_rules";
    assert_eq!(world.calls(setting), 2);
    world.cloud.ensure_firewall().await?;
    assert_eq!(world.calls(setting), 2, "right rules are left alone");
    world.end().await
}

#[tokio::test]
async fn a_protected_server_is_deleted_when_the_store_says_so() -> anyhow::Result<()> {
    let world = World::start().await?;
    let made = world.cloud.create(&order(NAME)).await?;
    world.cloud.settle(NAME).await?;
    let path = format!("/servers/{}/actions/change_protection", made.id);
    let protected = json!({"delete": true, "rebuild": true});
    world.call(Method::POST, &path, &protected).await?;
    world.cloud.delete(NAME).await?;
    assert_eq!(world.servers(), (0, 1));
    world.end().await
}

#[tokio::test]
async fn a_page_that_fails_voids_the_inventory() -> anyhow::Result<()> {
    let world = World::start().await?;
    let orders: Vec<_> = (0..53)
        .map(|number| order(&format!("tidepool-{number}")))
        .collect();
    let _made: Vec<_> = stream::iter(&orders)
        .map(|order| world.cloud.create(order))
        .buffer_unordered(5)
        .try_collect()
        .await?;
    let second_page = "GET /servers page 2";
    world.fake.faults().always(Switch::Unavailable, second_page);
    assert_eq!(fault(world.cloud.inventory().await), Fault::Unknown);
    world.fake.faults().clear();
    let all = world.cloud.inventory().await?;
    let servers = all
        .iter()
        .filter(|object| object.kind == ObjectKind::Server);
    assert_eq!(servers.count(), 53);
    assert_eq!(all.len(), 54, "and the firewall");
    world.end().await
}

#[tokio::test]
async fn what_the_inventory_lists_can_be_removed() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.cloud.create(&order(NAME)).await?;
    world.cloud.settle(NAME).await?;
    let all = world.cloud.inventory().await?;
    let in_use: Vec<_> = all
        .iter()
        .map(|object| (object.kind, object.in_use))
        .collect();
    assert_eq!(
        in_use,
        [(ObjectKind::Server, false), (ObjectKind::Firewall, true)]
    );
    assert_eq!(
        fault(world.cloud.remove(&all[1]).await),
        Fault::Busy,
        "it is on a server"
    );
    for object in &all {
        world.cloud.remove(object).await?;
    }
    assert_eq!(world.cloud.inventory().await?, []);
    world.end().await
}

#[tokio::test]
async fn a_claimed_server_is_relabelled_and_stays_ours() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.cloud.create(&order(NAME)).await?;
    let claimed = Labels::from([("role".to_owned(), "claimed".to_owned())]);
    world.cloud.relabel(NAME, &claimed).await?;
    let all = world.cloud.inventory().await?;
    let expected = [
        ("env", "test"),
        ("managed-by", "tidepool"),
        ("role", "claimed"),
    ];
    let labels: Vec<_> = all[0]
        .labels
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    assert_eq!(labels, expected);
    world.end().await
}

#[tokio::test]
async fn values_and_fields_that_nobody_has_heard_of_do_no_harm() -> anyhow::Result<()> {
    let world = World::start().await?;
    for newer in [Switch::UnknownValues, Switch::ExtraFields] {
        world
            .fake
            .faults()
            .add(tidepool_tests::fake_hetzner::Switch {
                fault: newer,
                at: None,
                often: Often::Always,
            });
    }
    // A status that nobody has heard of is not `running` yet, and nothing worse.
    world
        .fake
        .faults()
        .next(4, Switch::UnknownStatus, "GET /servers");
    world
        .fake
        .faults()
        .next(1, Switch::UnknownStatus, "POST /servers");
    world.cloud.create(&order(NAME)).await?;
    world.cloud.settle(NAME).await?;
    world.cloud.ensure_firewall().await?;
    world.cloud.relabel(NAME, &Labels::new()).await?;
    assert_eq!(world.cloud.inventory().await?.len(), 2);
    let prices = world.cloud.prices().await?;
    assert!(prices.is_some_and(|list| !list.offers.is_empty()));
    world.cloud.delete(NAME).await?;
    assert_eq!(world.servers(), (0, 1));
    world.end().await
}

#[tokio::test]
async fn prices_are_read_with_what_can_be_ordered() -> anyhow::Result<()> {
    let world = World::start().await?;
    let list = world.cloud.prices().await?.expect("it charges");
    let offer = list
        .offers
        .iter()
        .find(|offer| offer.placement.server_type == "cpx22" && offer.placement.location == "nbg1")
        .expect("it is in the catalogue");
    assert_eq!(list.currency, "EUR");
    assert_eq!(offer.orderable, Orderable::Yes);
    let monthly = offer.price.map(|price| price.monthly);
    assert_eq!(monthly, Some(Micros(19_490_000)));
    world.end().await
}
