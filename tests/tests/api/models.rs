//! Providers, names of models, limits, customers' keys and usage over HTTP.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
};
use reqwest::Method;
use serde_json::{Value, json};
use tidepool_coordinator::{
    ambient::Clock as _,
    model::UsageRecord,
    store::{KeyStore as _, UsageFixture as _},
};
use tokio::{net::TcpListener, task::JoinSet};

use crate::world::{Answer, World};

/// A provider that takes one key, and remembers what it was asked.
struct Provider {
    url: String,
    asked: Arc<Mutex<Vec<(String, HeaderMap)>>>,
    _serving: JoinSet<()>,
}

type Asked = Arc<Mutex<Vec<(String, HeaderMap)>>>;

impl Provider {
    async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let asked = Asked::default();
        let router = Router::new().fallback(answer).with_state(asked.clone());
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Ok(Self {
            url,
            asked,
            _serving: serving,
        })
    }
}

async fn answer(State(asked): State<Asked>, uri: Uri, headers: HeaderMap) -> StatusCode {
    let shown = ["authorization", "x-api-key", "x-goog-api-key"]
        .iter()
        .find_map(|name| headers.get(*name)?.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    asked.lock().unwrap().push((uri.to_string(), headers));
    match shown.trim_start_matches("Bearer ") {
        "sk-good" => StatusCode::OK,
        "sk-broken" => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::UNAUTHORIZED,
    }
}

async fn put(world: &World, path: &str, body: Value) -> anyhow::Result<Answer> {
    world.call(Method::PUT, path, &[], Some(&body)).await
}

async fn delete(world: &World, path: &str) -> anyhow::Result<u16> {
    Ok(world.call(Method::DELETE, path, &[], None).await?.status)
}

#[tokio::test]
async fn a_provider_and_a_name_are_made_shown_changed_and_deleted() -> anyhow::Result<()> {
    let world = World::start().await?;
    let body = json!({"kind": "openai", "key": "sk-secret"});
    let made = put(&world, "/v1/providers/main", body).await?;
    assert_eq!((made.status, made.at("/has_key")), (200, &json!(true)));
    assert_eq!(made.text("/base_url"), "https://api.openai.com");
    let listed = world.get("/v1/providers").await?;
    assert_eq!(listed.at("/data/0"), &made.body);
    assert!(!listed.body.to_string().contains("sk-secret"));
    let named = json!({"targets": [{"provider": "main", "model": "gpt-4o-mini"}]});
    let model = put(&world, "/v1/models/standard/default", named.clone()).await?;
    assert_eq!(
        (model.status, model.at("/targets/0/weight")),
        (200, &json!(1))
    );
    assert_eq!(world.get("/v1/models").await?.at("/data/0"), &model.body);
    let unknown = json!({"targets": [{"provider": "other", "model": "x"}]});
    let refused = put(&world, "/v1/models/standard/fast", unknown).await?;
    assert_eq!(refused.faults(), [("/targets/0/provider", "provider")]);
    assert_eq!(
        put(&world, "/v1/models/gold/default", named).await?.status,
        404
    );
    let refused = put(&world, "/v1/providers/Main", json!({"kind": "openai"})).await?;
    assert_eq!(refused.status, 400);
    let refused = put(
        &world,
        "/v1/providers/x",
        json!({"kind": "openai", "key": "a b"}),
    )
    .await?;
    assert_eq!(refused.faults(), [("/key", "key")]);
    for (path, status) in [
        ("/v1/models/standard/default", 204),
        ("/v1/models/standard/default", 404),
        ("/v1/providers/main", 204),
        ("/v1/providers/main", 404),
    ] {
        assert_eq!(delete(&world, path).await?, status, "{path}");
    }
    world.end().await
}

#[tokio::test]
async fn limits_of_an_instance_go_before_its_tiers_one_by_one() -> anyhow::Result<()> {
    let world = World::start().await?;
    let id = world.create("anna").await?.text("/id").to_owned();
    let tier = json!({"requests_per_minute": 60, "day_microcents": 500});
    assert_eq!(
        put(&world, "/v1/limits/tiers/standard", tier.clone())
            .await?
            .body,
        tier
    );
    let own = json!({"requests_per_minute": 5});
    let shown = put(&world, "/v1/instances/anna/limits", own.clone()).await?;
    assert_eq!((shown.status, shown.at("/own")), (200, &own));
    let effective = json!({"requests_per_minute": 5, "day_microcents": 500});
    assert_eq!(shown.at("/effective"), &effective);
    assert_eq!(shown.at("/spent_day_microcents"), &json!(0));
    let all = world.get("/v1/limits").await?;
    assert_eq!(all.text("/data/0/subject"), id);
    assert_eq!(all.text("/data/1/subject"), "tier/standard");
    let negative = put(
        &world,
        "/v1/limits/tiers/standard",
        json!({"day_microcents": -1}),
    )
    .await?;
    assert_eq!(negative.faults(), [("/day_microcents", "minimum")]);
    assert_eq!(
        put(&world, "/v1/limits/tiers/gold", tier).await?.status,
        404
    );
    assert_eq!(delete(&world, "/v1/instances/anna/limits").await?, 204);
    assert_eq!(delete(&world, "/v1/instances/anna/limits").await?, 404);
    let shown = world.get("/v1/instances/anna/limits").await?;
    assert_eq!(shown.at("/effective/requests_per_minute"), &json!(60));
    assert_eq!(delete(&world, "/v1/limits/tiers/standard").await?, 204);
    world.end().await
}

#[tokio::test]
async fn bounds_for_visitors_are_set_whole_within_their_ceilings_and_cleared() -> anyhow::Result<()>
{
    let world = World::start().await?;
    world.warm_server(1).await?;
    let id = world.create("anna").await?.text("/id").to_owned();
    world.run(&id).await?;
    let path = "/v1/instances/anna/edge_limits";
    let defaults = json!({
        "max_body_bytes": 104_857_600, "requests_per_second": 100, "request_burst": 200,
    });
    assert_eq!(world.get(path).await?.at("/effective"), &defaults);
    for (field, beyond) in [
        ("max_body_bytes", 1_073_741_825_u64),
        ("requests_per_second", 10_001),
        ("request_burst", 10_001),
    ] {
        for (value, fault) in [(0, "minimum"), (beyond, "maximum")] {
            let refused = put(&world, path, json!({ field: value })).await?;
            let pointer = format!("/{field}");
            assert_eq!(refused.faults(), [(pointer.as_str(), fault)]);
        }
    }
    let own = json!({"max_body_bytes": 1000, "request_burst": 5});
    let shown = put(&world, path, own.clone()).await?;
    assert_eq!((shown.status, shown.at("/own")), (200, &own));
    assert_eq!(shown.at("/effective/requests_per_second"), &json!(100));
    let instance = world.get("/v1/instances/anna").await?;
    assert_eq!(instance.at("/generation"), &json!(2));
    assert_eq!(instance.text("/operation/kind"), "limit");
    // The same again is no change.
    assert_eq!(put(&world, path, own).await?.status, 200);
    let busy = put(&world, path, json!({"request_burst": 6})).await?;
    assert_eq!(
        (busy.status, busy.text("/code")),
        (409, "operation_in_progress")
    );
    world.end().await
}

#[tokio::test]
async fn private_networks_are_set_whole_shown_and_taken_away_and_nothing_else_is_taken()
-> anyhow::Result<()> {
    let world = World::start().await?;
    world.warm_server(1).await?;
    let id = world.create("anna").await?.text("/id").to_owned();
    world.run(&id).await?;
    let path = "/v1/instances/anna/networks";
    let none = world.get("/v1/instances/anna").await?;
    assert_eq!(none.at("/networks"), &json!([]));
    let bad = [
        "169.254.169.254/32",
        "10.1.0.0/16",
        "10.0.0.1/8",
        "::/0",
        "x",
    ];
    let refused = put(&world, path, json!({ "networks": bad })).await?;
    let faults = [0, 2, 3, 4].map(|number| format!("/networks/{number}"));
    let faults = faults.each_ref().map(|at| (at.as_str(), "invalid_network"));
    assert_eq!((refused.status, refused.faults()), (422, faults.to_vec()));
    let many: Vec<_> = (0..17).map(|n| format!("10.{n}.0.0/16")).collect();
    let refused = put(&world, path, json!({ "networks": many })).await?;
    assert_eq!(refused.faults(), [("/networks", "maxItems")]);
    let refused = put(&world, path, json!({})).await?;
    assert_eq!(refused.status, 422);
    let body = json!({"networks": ["fd00::/8", "10.20.0.0/16", "10.20.0.0/16"]});
    let shown = put(&world, path, body.clone()).await?;
    let networks = json!(["10.20.0.0/16", "fd00::/8"]);
    assert_eq!((shown.status, shown.at("/networks")), (200, &networks));
    assert_eq!(shown.at("/generation"), &json!(2));
    assert_eq!(shown.text("/operation/kind"), "networks");
    // The same again is no change.
    assert_eq!(put(&world, path, body).await?.at("/generation"), &json!(2));
    let busy = put(&world, path, json!({"networks": []})).await?;
    assert_eq!(
        (busy.status, busy.text("/code")),
        (409, "operation_in_progress")
    );
    assert_eq!(
        put(
            &world,
            "/v1/instances/bert/networks",
            json!({"networks": []})
        )
        .await?
        .status,
        404
    );
    world.end().await
}

#[tokio::test]
async fn a_customers_key_is_tried_kept_sealed_and_never_shown() -> anyhow::Result<()> {
    let world = World::start().await?;
    let provider = Provider::start().await?;
    let id = world.create("anna").await?.text("/id").to_owned();
    for (name, kind) in [
        ("main", "openai"),
        ("claude", "anthropic"),
        ("google", "gemini"),
    ] {
        let body = json!({"kind": kind, "base_url": provider.url});
        assert_eq!(
            put(&world, &format!("/v1/providers/{name}"), body)
                .await?
                .status,
            200
        );
        let path = format!("/v1/instances/anna/keys/{name}");
        let kept = put(&world, &path, json!({"key": "sk-good"})).await?;
        assert_eq!((kept.status, kept.text("/provider")), (200, name));
    }
    let asked = provider.asked.lock().unwrap().clone();
    let asked: Vec<_> = asked.iter().map(|(uri, _)| uri.as_str()).collect();
    assert_eq!(asked, ["/v1/models", "/v1/models", "/v1beta/models"]);
    let path = "/v1/instances/anna/keys/main";
    let refused = put(&world, path, json!({"key": "sk-wrong"})).await?;
    assert_eq!(
        (refused.status, refused.faults()),
        (422, vec![("/key", "refused")])
    );
    let unclear = put(&world, path, json!({"key": "sk-broken"})).await?;
    assert_eq!(
        (unclear.status, unclear.text("/code")),
        (502, "provider_unreachable")
    );
    assert!(!unclear.body.to_string().contains("sk-broken"));
    let listed = world.get("/v1/instances/anna/keys").await?;
    assert_eq!(listed.at("/data").as_array().map(Vec::len), Some(3));
    assert!(!listed.body.to_string().contains("sk-"));
    for sealed in world.store.sealed().await? {
        assert!(!sealed.bytes.windows(7).any(|window| window == b"sk-good"));
        assert!(
            sealed
                .place
                .to_string()
                .starts_with(&format!("instance/{id}/provider/"))
        );
    }
    let other = put(
        &world,
        "/v1/instances/anna/keys/nobody",
        json!({"key": "x"}),
    )
    .await?;
    assert_eq!(other.status, 404);
    assert_eq!(delete(&world, path).await?, 204);
    assert_eq!(delete(&world, path).await?, 404);
    world.end().await
}

#[tokio::test]
async fn usage_adds_up_and_every_record_is_read_once() -> anyhow::Result<()> {
    let world = World::start().await?;
    let id = world.create("anna").await?.text("/id").to_owned();
    for number in 0..5 {
        let record = record(number, &id);
        world.store.insert_usage(&record, world.clock.now()).await?;
    }
    let usage = world.get("/v1/instances/anna/usage?days=1").await?;
    let sum = usage.at("/data/0");
    assert_eq!(
        (&sum["requests"], &sum["cost_microcents"]),
        (&json!(5), &json!(40))
    );
    assert_eq!(
        (&sum["day"], &sum["unpriced"]),
        (&json!("2026-11-23"), &json!(1))
    );
    let mut path = "/v1/usage/records?limit=2".to_owned();
    let mut read = Vec::new();
    loop {
        let page = world.get(&path).await?;
        let data = page.at("/data").as_array().unwrap().clone();
        path = format!(
            "/v1/usage/records?limit=2&after={}",
            page.text("/next_cursor")
        );
        if data.is_empty() {
            break;
        }
        read.extend(
            data.iter()
                .map(|record| record["id"].as_str().unwrap().to_owned()),
        );
    }
    assert_eq!(read, ["a-0", "a-1", "a-2", "a-3", "a-4"]);
    // What is written later follows the cursor of the empty page.
    world
        .store
        .insert_usage(&record(5, &id), world.clock.now())
        .await?;
    assert_eq!(world.get(&path).await?.text("/data/0/id"), "a-5");
    for path in [
        "/v1/usage/records?limit=1001",
        "/v1/usage/records?after=nonsense",
        "/v1/instances/anna/usage?days=0",
    ] {
        assert_eq!(world.get(path).await?.status, 400, "{path}");
    }
    assert_eq!(world.get("/v1/instances/nobody/usage").await?.status, 404);
    world.end().await
}

fn record(number: u64, instance: &str) -> UsageRecord {
    UsageRecord {
        id: format!("a-{number}"),
        request_id: "r".into(),
        instance: Some(instance.to_owned()),
        server: "srv_00000000000000000000000001".into(),
        provider: "main".into(),
        model: "gpt-4o-mini".into(),
        asked_model: "default".into(),
        dialect: "chat".into(),
        input_tokens: 60,
        cache_read_tokens: 40,
        cache_write_5m_tokens: 0,
        cache_write_1h_tokens: 0,
        output_tokens: 7,
        reasoning_tokens: 0,
        cost_microcents: (number > 0).then_some(10),
        payer: "managed".into(),
        status: 200,
        outcome: "completed".into(),
        estimated: false,
        first_token_ms: Some(3),
        total_ms: 9,
        at: String::new(),
    }
}
