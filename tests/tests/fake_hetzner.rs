//! The fake Hetzner Cloud, by its own account and by that of clients that others wrote.

#[path = "fake_hetzner/clients.rs"]
mod clients;
#[path = "fake_hetzner/faults.rs"]
mod faults;
#[path = "fake_hetzner/firewalls.rs"]
mod firewalls;
#[path = "fake_hetzner/images.rs"]
mod images;
#[path = "fake_hetzner/machines.rs"]
mod machines;
#[path = "fake_hetzner/packer.rs"]
mod packer;
#[path = "fake_hetzner/servers.rs"]
mod servers;
#[path = "fake_hetzner/world.rs"]
mod world;

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::json;
use tidepool_tests::fake_hetzner::{Rate, Settings};

use crate::world::World;

#[tokio::test]
async fn a_token_is_required_and_a_read_only_one_only_reads() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    world.token = "wrong".to_owned();
    let wrong = world.get("/servers").await?;
    assert_eq!(wrong.refusal(), (401, "unauthorized"));
    // Routes are looked up before tokens.
    assert_eq!(world.get("/nonsense").await?.refusal(), (404, "not_found"));

    world.token = world.fake.read_only_token().to_owned();
    assert_eq!(world.get("/servers").await?.status, 200);
    let refused = world.order("a", &json!({})).await?;
    assert_eq!(refused.refusal(), (403, "token_readonly"));
    assert_eq!(world.fake.books().entries.len(), 0);
    world.end().await
}

#[tokio::test]
async fn what_is_gone_or_never_was_says_so() -> anyhow::Result<()> {
    let world = World::start().await?;
    for (method, path, refusal) in [
        (
            Method::GET,
            "/datacenters",
            (410, "deprecated_api_endpoint"),
        ),
        (
            Method::GET,
            "/datacenters/1",
            (410, "deprecated_api_endpoint"),
        ),
        (Method::GET, "/volumes", (404, "not_found")),
        (Method::GET, "/servers/99999", (404, "not_found")),
        (Method::GET, "/servers/x", (404, "not_found")),
        (Method::GET, "/actions/99999", (404, "not_found")),
        (Method::DELETE, "/images/99999", (404, "not_found")),
        (Method::DELETE, "/servers", (405, "method_not_allowed")),
    ] {
        let answer = world.call(method, path, None).await?;
        assert_eq!(answer.refusal(), refusal, "{path}");
    }
    let without_ids = world.get("/actions").await?;
    assert_eq!(without_ids.refusal(), (422, "invalid_input"));
    world.end().await
}

#[tokio::test]
async fn unknown_fields_missing_fields_and_no_json_are_refused() -> anyhow::Result<()> {
    let world = World::start().await?;
    let unknown = world.order("a", &json!({ "labelkey": "x" })).await?;
    assert_eq!(unknown.refusal(), (422, "invalid_input"));
    assert_eq!(
        unknown.at("/error/message"),
        "invalid input: unknown field name 'labelkey'"
    );
    // `datacenter` went in 2026.
    let former = world
        .order("a", &json!({ "datacenter": "nbg1-dc3" }))
        .await?;
    assert_eq!(former.refusal(), (422, "invalid_input"));
    let missing = world.post("/servers", &json!({ "name": "a" })).await?;
    assert_eq!(missing.refusal(), (422, "invalid_input"));
    assert!(missing.at("/error/details/fields").is_array());
    let wrong = world.order("a", &json!({ "labels": { "a": 1 } })).await?;
    assert_eq!(wrong.refusal(), (422, "invalid_input"));

    let text = reqwest::Client::builder().build()?;
    let text = text.post(format!("{}/servers", world.fake.url()));
    let text = text.bearer_auth(&world.token).body("{");
    assert_eq!(text.send().await?.status(), 400);
    assert_eq!(world.fake.books().entries.len(), 0);
    world.end().await
}

#[tokio::test]
async fn lists_come_in_pages_of_at_most_fifty() -> anyhow::Result<()> {
    let mut settings = Settings::quick().with_room("cx23", "nbg1", 100);
    settings.per_page = 3;
    let world = World::with(settings).await?;
    for number in 0..7 {
        world.order(&format!("s{number}"), &json!({})).await?;
    }
    let mut seen = BTreeSet::new();
    let mut next = json!(1);
    let mut pages = 0;
    while !next.is_null() {
        let page = world.get(&format!("/servers?page={next}")).await?;
        seen.extend(page.rows("servers").iter().map(|row| row["id"].as_u64()));
        assert_eq!(page.at("/meta/pagination/total_entries"), 7);
        assert_eq!(page.at("/meta/pagination/last_page"), 3);
        next = page.at("/meta/pagination/next_page").clone();
        pages += 1;
    }
    assert_eq!((seen.len(), pages), (7, 3));
    let most = world.get("/servers?per_page=200").await?;
    assert_eq!(most.at("/meta/pagination/per_page"), 50);
    let sorted = world.get("/servers?sort=name:desc&per_page=50").await?;
    assert_eq!(sorted.at("/servers/0/name"), "s6");
    assert_eq!(sorted.rows("servers").len(), 7);
    for wrong in [
        "sort=colour",
        "page=0",
        "per_page=x",
        "label_selector=a%20b",
    ] {
        let refused = world.get(&format!("/servers?{wrong}")).await?;
        assert_eq!(refused.refusal(), (422, "invalid_input"), "{wrong}");
    }
    world.end().await
}

#[tokio::test]
async fn the_bucket_of_requests_runs_out_and_says_when_it_is_full_again() -> anyhow::Result<()> {
    let mut settings = Settings::quick();
    settings.rate = Rate {
        requests: 3,
        // So slow that nothing comes back while this test runs.
        refill: 0.001,
    };
    let world = World::with(settings).await?;
    for remaining in ["2", "1", "0"] {
        let answer = world.get("/locations").await?;
        assert_eq!(answer.status, 200);
        let header = |name: &str| answer.headers[name].to_str().unwrap_or("").to_owned();
        assert_eq!(header("ratelimit-limit"), "3");
        assert_eq!(header("ratelimit-remaining"), remaining);
        assert!(header("ratelimit-reset").parse::<u64>()? > 1_600_000_000);
        assert!(!header("x-correlation-id").is_empty());
    }
    let refused = world.get("/locations").await?;
    assert_eq!(refused.refusal(), (429, "rate_limit_exceeded"));
    assert_eq!(refused.headers["ratelimit-remaining"], "0");
    assert!(!refused.headers.contains_key("retry-after"));
    world.end().await
}

#[tokio::test]
async fn the_catalogue_is_that_of_the_day_but_for_what_has_room() -> anyhow::Result<()> {
    let world = World::start().await?;
    let types = world.get("/server_types?per_page=50").await?;
    assert_eq!(types.rows("server_types").len(), 25);
    let small = world.get("/server_types?name=cx23").await?;
    let available: Vec<_> = small
        .at("/server_types/0/locations")
        .as_array()
        .into_iter()
        .flatten()
        .filter(|place| place["available"] == true)
        .map(|place| place["name"].clone())
        .collect();
    assert_eq!(available, ["nbg1"]);
    assert_eq!(
        world
            .get("/server_types/114")
            .await?
            .at("/server_type/name"),
        "cx23"
    );
    assert_eq!(world.get("/locations").await?.rows("locations").len(), 6);
    assert_eq!(
        world.get("/locations/2").await?.at("/location/name"),
        "nbg1"
    );
    let pricing = world.get("/pricing").await?;
    assert_eq!(pricing.at("/pricing/currency"), "EUR");
    world.end().await
}

#[tokio::test]
async fn ssh_keys_are_unique_by_name_and_by_key() -> anyhow::Result<()> {
    let world = World::start().await?;
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVuwWxqGAbxGu4DFSnX3nkW2IK5qSxW9xYc5UlFsvkx me";
    let body = json!({ "name": "k", "public_key": key, "labels": { "env": "a" } });
    let made = world.post("/ssh_keys", &body).await?;
    assert_eq!(made.status, 201, "{made:?}");
    let again = world.post("/ssh_keys", &body).await?;
    assert_eq!(again.refusal(), (409, "uniqueness_error"));
    let other_name = json!({ "name": "l", "public_key": key });
    let again = world.post("/ssh_keys", &other_name).await?;
    assert_eq!(again.refusal(), (409, "uniqueness_error"));
    let fingerprint = made.at("/ssh_key/fingerprint").as_str().unwrap_or_default();
    assert_eq!(fingerprint.len(), 47);
    let found = world
        .get(&format!("/ssh_keys?fingerprint={fingerprint}"))
        .await?;
    assert_eq!(found.rows("ssh_keys").len(), 1);
    let server = world.order("a", &json!({ "ssh_keys": ["k"] })).await?;
    assert_eq!(
        (server.status, server.at("/root_password").is_null()),
        (201, true)
    );
    let path = format!("/ssh_keys/{}", made.id("/ssh_key/id"));
    let renamed = world.put(&path, &json!({ "name": "m" })).await?;
    assert_eq!(renamed.at("/ssh_key/name"), "m");
    assert_eq!(world.delete(&path).await?.status, 204);
    world.end().await
}
