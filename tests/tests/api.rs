//! The HTTP API over real HTTP and a real store. Every answer is held against the OpenAPI document.

#[path = "api/agents.rs"]
mod agents;
#[path = "api/contract.rs"]
mod contract;
#[path = "api/domains.rs"]
mod domains;
#[path = "api/images.rs"]
mod images;
#[path = "api/models.rs"]
mod models;
#[path = "api/rollouts.rs"]
mod rollouts;
#[path = "api/world.rs"]
mod world;

use std::{collections::HashSet, time::Duration};

use anyhow::{Context as _, ensure};
use futures_util::{StreamExt as _, future::try_join_all};
use reqwest::Method;
use serde_json::{Value, json};
use tidepool_coordinator::{
    ambient::Clock as _,
    api::auth,
    doorbell::{Heard, Ring},
    store::{AccessStore as _, EventStore as _, ServerStore as _},
};

use crate::world::{World, report};

#[tokio::test]
async fn a_create_without_a_server_is_pending_with_its_place() -> anyhow::Result<()> {
    let world = World::start().await?;
    for (name, eta_s) in [("a", 70), ("b", 70), ("c", 140)] {
        let answer = world.create(name).await?;
        assert_eq!(answer.status, 202);
        assert_eq!(answer.text("/status"), "pending");
        assert_eq!(answer.at("/pending/eta_s"), &json!(eta_s), "{name}");
        assert_eq!(
            answer.header("location"),
            format!("/v1/operations/{}", answer.text("/operation/id"))
        );
        assert_eq!(world.get(answer.header("location")).await?.status, 200);
    }
    let pool = world.get("/v1/pool").await?;
    assert_eq!(pool.at("/pools/0/pending"), &json!(3));
    world.end().await
}

#[tokio::test]
async fn a_create_that_waits_is_answered_once_it_runs() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.warm_server(1).await?;
    let mut bell = world.doorbell.listen();
    let body = json!({"name": "anna", "external_id": "rails-1"});
    let create = world.call(
        Method::POST,
        "/v1/instances",
        &[("prefer", "wait=20")],
        Some(&body),
    );
    let run = async {
        bell.hear().await;
        let shown = world.get("/v1/instances/anna").await?;
        assert_eq!(shown.text("/status"), "starting");
        world.run(shown.text("/id")).await
    };
    let (answer, ran) = tokio::join!(create, run);
    ran?;
    let answer = answer?;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.at("/warm"), &json!(true));
    assert_eq!(
        answer.at("/timings_ms"),
        &json!({"claim": 3, "agent_ack": 41, "total": 86})
    );
    assert_eq!(answer.text("/url"), "http://anna.localhost:8080");
    assert_eq!(answer.at("/operation"), &Value::Null);
    world.end().await
}

#[tokio::test]
async fn the_same_key_gets_the_same_answer_and_one_instance() -> anyhow::Result<()> {
    let world = World::start().await?;
    let key = [("idempotency-key", "k1")];
    let body = json!({"name": "anna"});
    let first = world
        .call(Method::POST, "/v1/instances", &key, Some(&body))
        .await?;
    let again = world
        .call(Method::POST, "/v1/instances", &key, Some(&body))
        .await?;
    assert_eq!((first.status, &first.body), (again.status, &again.body));
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert!(first.header("location").starts_with("/v1/operations/op_"));
    assert_eq!(first.header("location"), again.header("location"));
    let other = world
        .call(
            Method::POST,
            "/v1/instances",
            &key,
            Some(&json!({"name": "b"})),
        )
        .await?;
    assert_eq!(
        (other.status, other.text("/code")),
        (422, "idempotency_key_reused")
    );
    let list = world.get("/v1/instances").await?;
    assert_eq!(list.at("/data").as_array().map(Vec::len), Some(1));
    world.end().await
}

#[tokio::test]
async fn a_key_that_is_held_is_answered_in_progress() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.warm_server(1).await?;
    let body = json!({"name": "anna"});
    let headers = [("idempotency-key", "k1"), ("prefer", "wait=30")];
    let mut bell = world.doorbell.listen();
    let first = world.call(Method::POST, "/v1/instances", &headers, Some(&body));
    let second = async {
        bell.hear().await;
        let answer = world
            .call(Method::POST, "/v1/instances", &headers, Some(&body))
            .await?;
        let shown = world.get("/v1/instances/anna").await?;
        world.run(shown.text("/id")).await?;
        anyhow::Ok(answer)
    };
    let (first, second) = tokio::join!(first, second);
    let second = second?;
    assert_eq!(
        (second.status, second.text("/code")),
        (409, "idempotency_in_progress")
    );
    assert_eq!(second.header("retry-after"), "1");
    assert_eq!(first?.status, 201);
    world.end().await
}

#[tokio::test]
async fn a_refused_request_may_be_corrected_under_its_key() -> anyhow::Result<()> {
    let world = World::start().await?;
    let key = [("idempotency-key", "k1")];
    let bad = world
        .call(
            Method::POST,
            "/v1/instances",
            &key,
            Some(&json!({"name": "WWW"})),
        )
        .await?;
    assert_eq!(bad.status, 422);
    let good = world
        .call(
            Method::POST,
            "/v1/instances",
            &key,
            Some(&json!({"name": "anna"})),
        )
        .await?;
    assert_eq!(good.status, 202);
    world.end().await
}

#[tokio::test]
async fn answers_with_a_secret_take_no_key() -> anyhow::Result<()> {
    let world = World::start().await?;
    let key = [("idempotency-key", "k1")];
    let answer = world
        .call(
            Method::POST,
            "/v1/tokens",
            &key,
            Some(&json!({"name": "x"})),
        )
        .await?;
    assert_eq!(
        (answer.status, answer.text("/code")),
        (400, "invalid_parameter")
    );
    world.end().await
}

#[tokio::test]
async fn every_fault_of_a_wish_is_pointed_at() -> anyhow::Result<()> {
    let world = World::start().await?;
    let body = json!({"name": "www", "tier": "gold", "config": {"ui": {"nope": 1}, "gateway": {}}});
    let answer = world.post("/v1/instances", &body).await?;
    assert_eq!(answer.status, 422);
    assert_eq!(
        answer.faults(),
        [
            ("/name", "invalid_name"),
            ("/tier", "unknown_tier"),
            ("/config/gateway", "platform_owned")
        ]
    );
    let answer = world
        .post(
            "/v1/instances",
            &json!({"name": "a", "config": {"ui": {"nope": 1}}}),
        )
        .await?;
    assert_eq!(answer.faults(), [("/config/ui/nope", "unknown_field")]);
    let answer = world
        .post("/v1/instances", &json!({"nmae": "a", "external_id": 7}))
        .await?;
    let faults: HashSet<_> = answer.faults().into_iter().collect();
    let wanted = [
        ("/nmae", "unknown_field"),
        ("/name", "required"),
        ("/external_id", "type"),
    ];
    assert_eq!(faults, wanted.into());
    world.end().await
}

#[tokio::test]
async fn problems_look_like_this() -> anyhow::Result<()> {
    let world = World::start().await?;
    let id = [("x-request-id", "req-1")];
    let taken = world.create("anna").await?;
    assert_eq!(taken.status, 202);
    let body = json!({"name": "anna"});
    let taken = world
        .call(Method::POST, "/v1/instances", &id, Some(&body))
        .await?;
    insta::assert_json_snapshot!("name_taken", taken.body);
    let strange = world
        .call(Method::GET, "/v1/instances/nobody", &id, None)
        .await?;
    insta::assert_json_snapshot!("not_found", strange.body);
    let nobody = [
        ("x-request-id", "req-1"),
        ("authorization", "Bearer tp_x_y"),
    ];
    let stranger = world
        .call(Method::GET, "/v1/instances", &nobody, None)
        .await?;
    insta::assert_json_snapshot!("unauthorized", stranger.body);
    assert_eq!(stranger.header("x-request-id"), "req-1");
    world.end().await
}

#[tokio::test]
async fn a_body_that_is_no_json_or_too_large_is_refused() -> anyhow::Result<()> {
    let world = World::start().await?;
    let post = |kind: &'static str, body: Vec<u8>| {
        let request = world.http.post(format!("{}/v1/instances", world.url));
        request
            .bearer_auth(&world.token)
            .header("content-type", kind)
            .body(body)
            .send()
    };
    assert_eq!(
        post("application/json", b"{\"name\":".to_vec())
            .await?
            .status(),
        400
    );
    assert_eq!(post("text/plain", b"{}".to_vec()).await?.status(), 415);
    assert_eq!(
        post("application/json", vec![b' '; 1024 * 1024 + 1])
            .await?
            .status(),
        413
    );
    world.end().await
}

#[tokio::test]
async fn a_wild_request_id_is_replaced() -> anyhow::Result<()> {
    let world = World::start().await?;
    let long = "x".repeat(65);
    for id in ["a b", long.as_str()] {
        let answer = world
            .call(Method::GET, "/healthz", &[("x-request-id", id)], None)
            .await?;
        assert!(answer.header("x-request-id").starts_with("req_"), "{id}");
    }
    world.end().await
}

#[tokio::test]
async fn pages_hold_every_instance_once() -> anyhow::Result<()> {
    let world = World::start().await?;
    let mut wanted = HashSet::new();
    for number in 0..7 {
        wanted.insert(
            world
                .create(&format!("i{number}"))
                .await?
                .text("/id")
                .to_owned(),
        );
    }
    let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = world
            .get(&format!("/v1/instances?status=pending&limit=3{cursor}"))
            .await?;
        let data = page.at("/data").as_array().context("data")?;
        seen.extend(
            data.iter()
                .filter_map(|one| Some(one.get("id")?.as_str()?.to_owned())),
        );
        pages += 1;
        if page.at("/page/has_more") == &json!(false) {
            break;
        }
        cursor = format!("&cursor={}", page.text("/page/next_cursor"));
    }
    assert_eq!((pages, seen.len()), (3, 7));
    assert_eq!(seen.into_iter().collect::<HashSet<_>>(), wanted);
    assert_eq!(
        world.get("/v1/instances?status=running").await?.at("/data"),
        &json!([])
    );
    for bad in ["limit=0", "limit=201", "cursor=x", "status=odd", "nope=1"] {
        assert_eq!(
            world.get(&format!("/v1/instances?{bad}")).await?.status,
            400,
            "{bad}"
        );
    }
    world.end().await
}

#[tokio::test]
async fn a_configuration_changes_only_for_who_read_the_present_one() -> anyhow::Result<()> {
    let world = World::start().await?;
    let (id, server) = world.running("anna", 1).await?;
    let path = format!("/v1/instances/{id}/config");
    let patch =
        |headers: &'static [(&'static str, &'static str)], query: &'static str, body: Value| {
            let (world, path) = (&world, format!("{path}{query}"));
            async move { world.call(Method::PATCH, &path, headers, Some(&body)).await }
        };
    assert_eq!(world.get(&path).await?.header("etag"), "\"1\"");
    let color = |color: &str| json!({"ui": {"seamColor": color}});
    let tried = patch(&[("if-match", "\"1\"")], "?dry_run=true", color("red")).await?;
    assert_eq!((tried.status, tried.at("/config")), (200, &color("red")));
    assert_eq!(
        world.get(&path).await?.at("/config"),
        &json!({}),
        "a dry run changes nothing"
    );

    let changed = patch(&[("if-match", "\"1\"")], "", color("red")).await?;
    assert_eq!((changed.status, changed.header("etag")), (202, "\"2\""));
    let stale = patch(&[("if-match", "\"1\"")], "", color("blue")).await?;
    assert_eq!((stale.status, stale.text("/code")), (412, "stale"));
    let busy = patch(&[], "", color("blue")).await?;
    assert_eq!(
        (busy.status, busy.text("/code")),
        (409, "operation_in_progress")
    );
    assert_eq!(busy.text("/operation_id"), changed.text("/operation/id"));

    world
        .store
        .record_report(server, &report(1, 2), START_OF_REPORT)
        .await?
        .context("a report")?;
    let same = patch(&[], "", color("red")).await?;
    assert_eq!(
        (same.status, same.at("/operation")),
        (200, &Value::Null),
        "nothing to change"
    );
    assert_eq!(same.at("/observed_generation"), &json!(2));
    let odd = patch(&[("if-match", "abc")], "", color("blue")).await?;
    assert_eq!(odd.status, 400);
    let restart = world
        .post(&format!("/v1/instances/{id}/restart"), &json!({}))
        .await?;
    assert_eq!(
        (restart.status, restart.at("/generation")),
        (202, &json!(3))
    );
    world.end().await
}

#[tokio::test]
async fn a_suspension_is_shown_and_what_it_supersedes_and_refuses_is_told() -> anyhow::Result<()> {
    let world = World::start().await?;
    let (id, _) = world.running("anna", 1).await?;
    let path = format!("/v1/instances/{id}");
    let restart = world.post(&format!("{path}/restart"), &json!({})).await?;
    let why = json!({"reason": "abuse", "message": " Call us. "});
    let suspended = world.post(&format!("{path}/suspend"), &why).await?;
    assert_eq!(
        (suspended.status, suspended.text("/status")),
        (202, "suspended")
    );
    assert_eq!(suspended.text("/suspension/message"), "Call us.");
    assert_eq!(suspended.text("/operation/kind"), "suspend");
    let actions = suspended.at("/allowed_actions");
    assert_eq!(actions, &json!(["set_basic_auth", "unsuspend", "delete"]));
    let superseded = restart.text("/operation/id");
    let superseded = world.get(&format!("/v1/operations/{superseded}")).await?;
    assert_eq!(superseded.text("/state"), "canceled");
    for (rest, code) in [("suspend", 409), ("start", 409), ("login_links", 409)] {
        let body = if rest == "suspend" {
            why.clone()
        } else {
            json!({})
        };
        let refused = world.post(&format!("{path}/{rest}"), &body).await?;
        assert_eq!(
            (refused.status, refused.text("/code")),
            (code, "not_possible")
        );
    }
    let control = json!({"reason": "abuse", "message": "two\nlines"});
    let refused = world.post(&format!("{path}/suspend"), &control).await?;
    assert_eq!(refused.status, 422);
    let back = world.post(&format!("{path}/unsuspend"), &json!({})).await?;
    assert_eq!((back.status, back.text("/status")), (202, "starting"));
    assert_eq!(back.at("/suspension"), &Value::Null);
    let again = world.post(&format!("{path}/unsuspend"), &json!({})).await?;
    assert_eq!((again.status, again.text("/code")), (409, "not_possible"));
    world.end().await
}

const START_OF_REPORT: tidepool_coordinator::ambient::Moment =
    tidepool_coordinator::ambient::Moment(1_795_417_201_000_000);

#[tokio::test]
async fn waiting_ends_with_the_status_the_time_or_the_impossible() -> anyhow::Result<()> {
    let world = World::start().await?;
    let id = world.create("anna").await?.text("/id").to_owned();
    let late = world.get("/v1/instances/anna/wait?timeout_s=0").await?;
    assert_eq!((late.status, late.text("/status")), (408, "pending"));
    let deleted = world
        .call(Method::DELETE, "/v1/instances/anna", &[], None)
        .await?;
    assert_eq!((deleted.status, deleted.text("/status")), (202, "purged"));
    let never = world
        .get(&format!("/v1/instances/{id}/wait?timeout_s=60"))
        .await?;
    assert_eq!((never.status, never.text("/status")), (408, "purged"));
    let again = world
        .call(Method::DELETE, &format!("/v1/instances/{id}"), &[], None)
        .await?;
    assert_eq!(again.status, 200);
    assert_eq!(
        world.get("/v1/instances/anna").await?.status,
        404,
        "its name is free"
    );
    world.end().await
}

#[tokio::test]
async fn a_token_opens_the_door_until_it_is_revoked_or_expires() -> anyhow::Result<()> {
    let world = World::start().await?;
    let made = world
        .post("/v1/tokens", &json!({"name": "ci", "ttl_s": 60}))
        .await?;
    assert_eq!(made.status, 201);
    let text = made.text("/token").to_owned();
    let whoami = async |token: &str| {
        let bearer = format!("Bearer {token}");
        world
            .call(
                Method::GET,
                "/v1/whoami",
                &[("authorization", &bearer)],
                None,
            )
            .await
    };
    assert_eq!(whoami(&text).await?.text("/token/name"), "ci");
    let mut forged = text.clone();
    forged.pop();
    assert_eq!(whoami(&forged).await?.status, 401);
    assert_eq!(whoami(&format!("{forged}Z")).await?.status, 401);
    world.clock.advance(Duration::from_mins(1));
    assert_eq!(whoami(&text).await?.status, 401, "expired");

    let made = world.post("/v1/tokens", &json!({"name": "ci"})).await?;
    let path = format!("/v1/tokens/{}", made.text("/id"));
    assert_eq!(
        world.call(Method::DELETE, &path, &[], None).await?.status,
        204
    );
    assert_eq!(whoami(made.text("/token")).await?.status, 401, "revoked");
    assert_eq!(
        world.call(Method::DELETE, &path, &[], None).await?.status,
        404
    );
    let list = world.get("/v1/tokens").await?;
    assert!(
        !list.body.to_string().contains("hash"),
        "no trace of secrets"
    );
    world.end().await
}

#[tokio::test]
async fn a_server_is_revoked_over_the_api_and_its_link_is_told() -> anyhow::Result<()> {
    let world = World::start().await?;
    let id = world.warm_server(1).await?;
    let mut bell = world.doorbell.listen();
    for _ in 0..2 {
        let path = format!("/v1/servers/{id}/revoke");
        let answer = world.call(Method::POST, &path, &[], None).await?;
        assert_eq!(answer.status, 204);
    }
    assert_eq!(bell.hear().await, Heard::Ring(Ring::Server(id)));
    let pool = world.get("/v1/pool").await?;
    assert_eq!(pool.at("/servers/0/revoked"), &json!(true));
    let events = world.store.events_after(0, None, 100).await?;
    let audit = events.last().context("no event")?;
    assert_eq!(
        (audit.kind.as_str(), audit.server),
        ("security.revoked", Some(id))
    );
    for stranger in ["x", "srv_00000000000000000000000009"] {
        let path = format!("/v1/servers/{stranger}/revoke");
        let answer = world.call(Method::POST, &path, &[], None).await?;
        assert_eq!((answer.status, answer.text("/code")), (404, "not_found"));
    }
    world.end().await
}

#[tokio::test]
async fn no_route_but_three_answers_a_stranger() -> anyhow::Result<()> {
    let world = World::start().await?;
    let document: Value = world.get("/v1/openapi.json").await?.body;
    let none = [("authorization", "")];
    for (path, item) in document
        .get("paths")
        .and_then(Value::as_object)
        .context("paths")?
    {
        for method in item.as_object().context("methods")?.keys() {
            let path = path.replace("{id}", "x");
            let method: Method = method.to_uppercase().parse()?;
            let wanted = if path == "/healthz" { 200 } else { 401 };
            let answer = world.call(method.clone(), &path, &none, None).await?;
            assert_eq!(answer.status, wanted, "{method} {path}");
        }
    }
    world.end().await
}

#[tokio::test]
async fn a_stream_goes_on_where_it_broke_and_then_live() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.create("a").await?;
    world.create("b").await?;
    let all = world.get("/v1/events?limit=1").await?;
    let first = all.text("/data/0/id").to_owned();
    assert_eq!(all.at("/page/has_more"), &json!(true));
    let rest = world.get(&format!("/v1/events?after={first}")).await?;
    let rest: Vec<String> = rest
        .at("/data")
        .as_array()
        .context("data")?
        .iter()
        .filter_map(|event| Some(event.get("id")?.as_str()?.to_owned()))
        .collect();
    ensure!(!rest.is_empty(), "more than one event");

    let request = world
        .http
        .get(format!("{}/v1/events/stream", world.url))
        .bearer_auth(&world.token);
    let response = request.header("last-event-id", &first).send().await?;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let (mut pieces, mut text) = (response.bytes_stream(), String::new());
    let mut ids_until = async |count: usize| -> anyhow::Result<Vec<String>> {
        loop {
            let ids: Vec<String> = text
                .lines()
                .filter_map(|line| line.strip_prefix("id: "))
                .map(str::to_owned)
                .collect();
            if ids.len() >= count && text.ends_with("\n\n") {
                return Ok(ids);
            }
            let piece = tokio::time::timeout(Duration::from_secs(20), pieces.next()).await?;
            text.push_str(std::str::from_utf8(&piece.context("the stream goes on")??)?);
        }
    };
    assert_eq!(ids_until(rest.len()).await?, rest);
    world.create("c").await?;
    let live = ids_until(rest.len() + 1).await?;
    ensure!(
        !rest.contains(live.last().context("an event")?),
        "nothing twice"
    );
    world.end().await
}

#[tokio::test]
async fn a_stream_ends_with_its_token() -> anyhow::Result<()> {
    let world = World::start().await?;
    let made = world.post("/v1/tokens", &json!({"name": "short"})).await?;
    let mut stream = world
        .http
        .get(format!("{}/v1/events/stream", world.url))
        .bearer_auth(made.text("/token"))
        .send()
        .await?
        .bytes_stream();
    let id = made.text("/id").to_owned();
    let now = world.clock.now();
    world.store.revoke_api_token(id.parse()?, now).await?;
    world.create("a").await?;
    let end = tokio::time::timeout(Duration::from_secs(20), stream.next()).await?;
    ensure!(end.is_none(), "an event after the end: {end:?}");
    world.end().await
}

#[tokio::test]
async fn a_login_link_is_stored_by_its_hash_for_its_own_instance() -> anyhow::Result<()> {
    let world = World::start().await?;
    let id = world.create("anna").await?.text("/id").to_owned();
    let link = world
        .post("/v1/instances/anna/login_links", &json!({"ttl_s": 5}))
        .await?;
    assert_eq!(link.status, 201);
    let secret = link
        .text("/url")
        .strip_prefix("http://anna.localhost:8080/.tidepool/login?token=")
        .context("a link")?;
    let (hash, now) = (auth::hash(secret), START_OF_REPORT);
    assert!(
        world
            .store
            .redeem_login_link(
                hash,
                id.parse()?,
                [1; 32],
                now.plus(Duration::from_secs(9)),
                now
            )
            .await?
    );
    for ttl_s in [0, 301] {
        let answer = world
            .post("/v1/instances/anna/login_links", &json!({"ttl_s": ttl_s}))
            .await?;
        assert_eq!(answer.faults().first().map(|fault| fault.0), Some("/ttl_s"));
    }
    world.end().await
}

#[tokio::test]
async fn all_sessions_of_an_instance_are_ended_at_once() -> anyhow::Result<()> {
    let world = World::start().await?;
    let id = world.create("anna").await?.text("/id").parse()?;
    let (now, later) = (
        START_OF_REPORT,
        START_OF_REPORT.plus(Duration::from_secs(9)),
    );
    for session in [[1; 32], [2; 32]] {
        world
            .store
            .create_login_link(session, id, later, now)
            .await?;
        world
            .store
            .redeem_login_link(session, id, session, later, now)
            .await?;
    }
    let path = "/v1/instances/anna/sessions";
    for ended in [2, 0] {
        let answer = world.call(Method::DELETE, path, &[], None).await?;
        assert_eq!((answer.status, answer.at("/ended")), (200, &json!(ended)));
    }
    assert_eq!(world.store.session([1; 32], now).await?, None);
    let unknown = "/v1/instances/nobody/sessions";
    let answer = world.call(Method::DELETE, unknown, &[], None).await?;
    assert_eq!(answer.status, 404);
    world.end().await
}

#[tokio::test]
async fn a_basic_auth_password_is_long_or_made_and_shown_once() -> anyhow::Result<()> {
    let world = World::start().await?;
    let (_, _) = world.running("anna", 1).await?;
    let path = "/v1/instances/anna/basic_auth";
    let put = async |body: Value| world.call(Method::PUT, path, &[], Some(&body)).await;
    let made = put(json!({"username": "a"})).await?;
    assert_eq!(made.text("/password").len(), 64);
    let own = put(json!({"username": "a", "password": "correct horse"})).await?;
    assert_eq!(own.at("/password"), &Value::Null);
    let short = put(json!({"username": "a", "password": "secret-4711"})).await?;
    assert_eq!(short.faults(), [("/password", "minLength")]);
    assert!(!short.body.to_string().contains("4711"), "{}", short.body);
    assert_eq!(put(json!({"username": "a:b"})).await?.status, 422);
    assert_eq!(
        world.call(Method::DELETE, path, &[], None).await?.status,
        204
    );
    world.end().await
}

#[tokio::test]
async fn a_log_without_a_link_says_to_come_again() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.running("anna", 1).await?;
    world.create("b").await?;
    let answer = world.get("/v1/instances/anna/logs").await?;
    assert_eq!(
        (answer.status, answer.text("/code")),
        (503, "server_unreachable")
    );
    assert_eq!(
        world.get("/v1/instances/b/logs").await?.text("/code"),
        "not_possible"
    );
    assert_eq!(
        world
            .get("/v1/instances/anna/logs?lines=1001")
            .await?
            .status,
        400
    );
    world.end().await
}

#[tokio::test]
async fn sixty_four_customers_at_once_share_eight_servers_without_a_double() -> anyhow::Result<()> {
    let world = World::start().await?;
    for number in 1..=8 {
        world.warm_server(number).await?;
    }
    let names: Vec<String> = (0..64).map(|number| format!("i{number}")).collect();
    let answers = try_join_all(names.iter().map(|name| world.create(name))).await?;
    let count = |status: &str| {
        answers
            .iter()
            .filter(|answer| answer.text("/status") == status)
            .count()
    };
    assert_eq!((count("starting"), count("pending")), (8, 56));
    let pool = world.get("/v1/pool").await?;
    let owners: HashSet<_> = pool
        .at("/servers")
        .as_array()
        .context("servers")?
        .iter()
        .filter_map(|server| server.get("instance_id")?.as_str())
        .collect();
    assert_eq!(owners.len(), 8);
    world.end().await
}

#[tokio::test]
async fn the_document_is_as_promised() -> anyhow::Result<()> {
    let world = World::start().await?;
    let document = world.get("/v1/openapi.json").await?;
    assert_eq!(document.text("/openapi"), "3.1.0");
    insta::assert_json_snapshot!("openapi", document.body);
    world.end().await
}

#[tokio::test]
async fn the_console_runs_no_script_but_its_own() -> anyhow::Result<()> {
    let world = World::start().await?;
    let page = world.http.get(&world.url).send().await?;
    let policy = page.headers()["content-security-policy"]
        .to_str()?
        .to_owned();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'sha256-"),
        "{policy}"
    );
    assert!(page.text().await?.contains("sessionStorage"));
    world.end().await
}
