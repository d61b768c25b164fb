//! Customers' own names over HTTP. What becomes of them is not the API's business.

use reqwest::Method;
use serde_json::json;
use tidepool_coordinator::{
    ambient::Clock as _,
    model::{DomainState, DomainStep},
    store::DomainStore as _,
};

use crate::world::World;

const PATH: &str = "/v1/instances/anna/domains";

#[tokio::test]
async fn a_name_is_added_with_the_records_that_prove_it_and_removed() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.create("anna").await?;
    let body = json!({"domain": "Büro.Example.org."});
    let added = world.call(Method::POST, PATH, &[], Some(&body)).await?;
    assert_eq!(added.status, 201);
    let name = "xn--bro-hoa.example.org";
    assert_eq!(added.text("/domain"), name);
    assert_eq!(added.text("/state"), "pending_dns");
    assert_eq!(added.text("/url"), format!("http://{name}:8080"));
    assert_eq!(added.text("/records/0/name"), format!("_tidepool.{name}"));
    assert!(added.text("/records/0/value").starts_with("tidepool="));
    let leads = json!({"type": "CNAME", "name": name, "value": "edge.example"});
    assert_eq!(added.at("/records/1"), &leads);
    let again = world.call(Method::POST, PATH, &[], Some(&body)).await?;
    assert_eq!((again.status, again.text("/code")), (409, "name_taken"));
    let list = world.get(PATH).await?;
    assert_eq!(list.text("/data/0/domain"), name);
    let own = format!("{PATH}/{name}");
    assert_eq!(world.get(&own).await?.text("/domain"), name);
    let check = format!("{own}/check");
    let checked = world
        .call(Method::POST, &check, &[], Some(&json!({})))
        .await?;
    assert_eq!((checked.status, checked.text("/domain")), (202, name));
    for status in [204, 404] {
        let removed = world.call(Method::DELETE, &own, &[], None).await?;
        assert_eq!(removed.status, status);
    }
    for (method, path) in [(Method::GET, &own), (Method::POST, &check)] {
        assert_eq!(world.call(method, path, &[], None).await?.status, 404);
    }
    assert_eq!(world.get(PATH).await?.at("/data"), &json!([]));
    world.end().await
}

#[tokio::test]
async fn what_cannot_be_a_customers_name_is_refused_with_the_reason() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.create("anna").await?;
    for name in [
        "a b",
        "*.example.org",
        "anna.localhost",
        "x.edge.example",
        "example",
    ] {
        let body = json!({ "domain": name });
        let refused = world.call(Method::POST, PATH, &[], Some(&body)).await?;
        assert_eq!(refused.faults(), [("/domain", "invalid_domain")], "{name}");
    }
    for number in 0..8 {
        let body = json!({ "domain": format!("{number}.example.org") });
        let added = world.call(Method::POST, PATH, &[], Some(&body)).await?;
        assert_eq!(added.status, 201);
    }
    let body = json!({"domain": "nine.example.org"});
    let refused = world.call(Method::POST, PATH, &[], Some(&body)).await?;
    assert_eq!(
        (refused.status, refused.text("/code")),
        (409, "not_possible")
    );
    world.end().await
}

#[tokio::test]
async fn a_login_link_leads_to_a_name_that_is_active_and_to_no_other() -> anyhow::Result<()> {
    let world = World::start().await?;
    let id = world.create("anna").await?.text("/id").to_owned();
    let body = json!({"domain": "chat.example.org"});
    world.call(Method::POST, PATH, &[], Some(&body)).await?;
    let links = "/v1/instances/anna/login_links";
    let early = world.call(Method::POST, links, &[], Some(&body)).await?;
    assert_eq!((early.status, early.text("/code")), (409, "not_possible"));
    let mut from = DomainState::PendingDns;
    for to in [DomainState::Issuing, DomainState::Active] {
        let step = DomainStep {
            name: "chat.example.org".to_owned(),
            instance: id.parse()?,
            from,
            to,
            problem: None,
            attempts: 0,
            failing_since: None,
            next_check_at: None,
            events: Vec::new(),
        };
        world.store.move_domain(&step, world.clock.now()).await?;
        from = to;
    }
    let link = world.call(Method::POST, links, &[], Some(&body)).await?;
    let begin = "http://chat.example.org:8080/.tidepool/login?token=";
    assert!(link.text("/url").starts_with(begin), "{:?}", link.body);
    let unknown = json!({"domain": "other.example.org"});
    let refused = world.call(Method::POST, links, &[], Some(&unknown)).await?;
    assert_eq!(refused.faults(), [("/domain", "unknown")]);
    world.end().await
}
