//! Making servers: one for a name, whatever happens to the call.

use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use super::{
    Reply, Seen, Stage, fault,
    miniature::{Miniature, server},
    order, ours, refusal, whole,
};
use crate::cloud::{Cloud as _, Fault, Labels};

const NAME: &str = "tidepool-a";

fn is_making(seen: &Seen) -> bool {
    seen.is(&Method::POST, "servers")
}

/// Something happens to the first call that makes a server, after or before it is carried out.
fn first_making(
    mut happens: impl FnMut(&Seen, &mut Miniature) -> Reply + Send + 'static,
) -> impl FnMut(&Seen, &mut Miniature) -> Option<Reply> + Send + 'static {
    let mut first = true;
    move |seen, miniature| {
        let now = is_making(seen) && std::mem::take(&mut first);
        now.then(|| happens(seen, miniature))
    }
}

/// Creates on this stage; says how many calls made a server and how many servers there are.
async fn made_on(stage: &Stage) -> (usize, usize) {
    let made = stage.cloud.create(&order(NAME)).await.unwrap();
    assert_eq!((made.id.as_str(), made.name.as_str()), ("40", NAME));
    assert_eq!(made.address.to_string(), "198.51.100.9");
    let servers = stage.miniature(|miniature| miniature.servers.len());
    (stage.count(&Method::POST, "servers"), servers)
}

#[tokio::test(start_paused = true)]
async fn one_call_makes_a_server_with_labels_firewall_and_user_data() {
    let stage = Stage::smooth();
    assert_eq!(made_on(&stage).await, (1, 1));
    let body = stage.seen(is_making).remove(0).body;
    let user_data: Value = serde_json::from_str(body["user_data"].as_str().unwrap()).unwrap();
    assert_eq!(user_data["enrolment_token"], "einmalig");
    let mut rest = body;
    rest.as_object_mut().unwrap().remove("user_data");
    assert_eq!(
        rest,
        json!({
            "name": NAME,
            "server_type": "cx23",
            "location": "nbg1",
            "image": 77,
            "labels": ours(),
            "firewalls": [{"firewall": 5}],
            "public_net": {"enable_ipv4": true, "enable_ipv6": true},
            "start_after_create": true,
        })
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_of_an_earlier_try_is_found_and_not_made_again() {
    let stage = Stage::smooth();
    stage.miniature(|miniature| miniature.servers.push(server(40, NAME, &ours())));
    assert_eq!(made_on(&stage).await, (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_server_whose_call_timed_out_after_it_was_made_is_adopted() {
    let stage = Stage::with(first_making(|seen, miniature| {
        miniature.make_server(&seen.body);
        Reply::Never
    }));
    assert_eq!(made_on(&stage).await, (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_server_whose_answer_was_lost_or_garbled_is_adopted() {
    for answer in [
        || Reply::Lost,
        || Reply::Page(502),
        || Reply::Page(201),
        || refusal(500, "server_error"),
        || refusal(503, "unavailable"),
        || refusal(504, "timeout"),
        || Reply::Json(201, json!({"server": "new form"})),
    ] {
        let stage = Stage::with(first_making(move |seen, miniature| {
            miniature.make_server(&seen.body);
            answer()
        }));
        assert_eq!(made_on(&stage).await, (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_lost_on_its_way_there_is_sent_again_only_after_looking_for_long() {
    let stage = Stage::with(first_making(|_, _| Reply::Lost));
    let start = Instant::now();
    assert_eq!(made_on(&stage).await, (2, 1));
    assert!(start.elapsed() >= Duration::from_secs(30));
    assert!(stage.seen(|seen| seen.query("name") == Some(NAME)).len() >= 5);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_appears_late_is_adopted_without_a_second_call() {
    let mut looks = 0;
    let stage = Stage::with(move |seen, miniature| {
        if is_making(seen) {
            return Some(Reply::Lost);
        }
        if seen.is(&Method::GET, "servers") {
            looks += 1;
            if looks == 4 {
                miniature.servers.push(server(40, NAME, &ours()));
            }
        }
        None
    });
    assert_eq!(made_on(&stage).await, (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_taken_by_ours_is_adopted() {
    // The first look comes before the server of an earlier call has appeared.
    let stage = Stage::with(first_making(|seen, miniature| {
        miniature.make_server(&seen.body);
        miniature.make_server(&seen.body)
    }));
    assert_eq!(made_on(&stage).await, (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_taken_by_somebody_else_is_neither_adopted_nor_tried_again() {
    let stage = Stage::with(first_making(|_, miniature| {
        miniature
            .servers
            .push(server(40, NAME, &json!({"env": "test"})));
        refusal(409, "uniqueness_error")
    }));
    assert_eq!(
        fault(stage.cloud.create(&order(NAME)).await),
        Fault::Invalid
    );
    assert_eq!(stage.count(&Method::POST, "servers"), 1);
    assert_eq!(
        fault(stage.cloud.create(&order(NAME)).await),
        Fault::Invalid
    );
    assert_eq!(stage.count(&Method::POST, "servers"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_creation_that_stays_in_doubt_says_so_and_sends_few_calls() {
    let stage = Stage::with(|seen, _| is_making(seen).then_some(Reply::Lost));
    assert_eq!(
        fault(stage.cloud.create(&order(NAME)).await),
        Fault::Unknown
    );
    assert_eq!(stage.count(&Method::POST, "servers"), 3);

    let taken = Stage::with(|seen, _| is_making(seen).then(|| refusal(409, "uniqueness_error")));
    assert_eq!(
        fault(taken.cloud.create(&order(NAME)).await),
        Fault::Unknown
    );
}

#[tokio::test(start_paused = true)]
async fn what_hetzner_refuses_for_good_is_sent_once() {
    for (status, code, expected) in [
        (412, "resource_unavailable", Fault::NoCapacity),
        (422, "placement_error", Fault::NoCapacity),
        (403, "resource_limit_exceeded", Fault::LimitReached),
        (401, "unauthorized", Fault::Unauthorized),
        (422, "invalid_input", Fault::Invalid),
        (404, "not_found", Fault::Invalid),
        (403, "maintenance", Fault::Busy),
    ] {
        let stage = Stage::with(move |seen, _| is_making(seen).then(|| refusal(status, code)));
        let outcome = stage.cloud.create(&order(NAME)).await;
        assert_eq!(fault(outcome), expected, "{code}");
        assert_eq!(stage.count(&Method::POST, "servers"), 1, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_hetzner_did_not_do_for_now_is_sent_again() {
    for (status, code) in [
        (429, "rate_limit_exceeded"),
        (409, "conflict"),
        (422, "service_error"),
    ] {
        let stage = Stage::with(first_making(move |_, _| refusal(status, code)));
        assert_eq!(made_on(&stage).await, (2, 1), "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_than_five_servers_are_made_at_once() {
    let stage = Stage::with(|seen, _| is_making(seen).then_some(Reply::Never));
    let names: Vec<String> = (0..8).map(|number| format!("tidepool-{number}")).collect();
    let orders: Vec<_> = names.iter().map(|name| order(name)).collect();
    let all = join_all(orders.iter().map(|order| stage.cloud.create(order)));
    let in_time = tokio::time::timeout(Duration::from_secs(30), all).await;
    assert!(in_time.is_err());
    assert_eq!(stage.count(&Method::POST, "servers"), 5);
}

#[tokio::test(start_paused = true)]
async fn labels_that_hetzner_would_refuse_are_not_sent() {
    for (key, value) in [("two words", "a"), ("a", "two words"), ("env", "prod")] {
        let stage = Stage::smooth();
        let mut order = order(NAME);
        order.labels = Labels::from([(key.to_owned(), value.to_owned())]);
        assert_eq!(fault(stage.cloud.create(&order).await), Fault::Invalid);
        assert!(stage.seen(|_| true).is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn without_an_image_or_a_type_nothing_is_asked_for() {
    for missing in ["images", "server_types"] {
        let stage = Stage::with(move |seen, _| {
            let asked = seen.is(&Method::GET, missing);
            asked.then(|| super::miniature::page(missing, &[]))
        });
        assert_eq!(
            fault(stage.cloud.create(&order(NAME)).await),
            Fault::Invalid
        );
        assert_eq!(stage.count(&Method::POST, "servers"), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_names_the_correlation_id_and_no_secret() {
    for answer in [
        || refusal(422, "invalid_input"),
        || {
            Reply::Json(
                201,
                json!({"server": "new form", "root_password": "hunter2"}),
            )
        },
    ] {
        let stage = Stage::with(move |seen, _| is_making(seen).then(answer));
        let error = stage.cloud.create(&order(NAME)).await.unwrap_err();
        let text = format!("{} {error:?}", whole(&error));
        assert!(text.contains("c0ffee"), "{text}");
        for secret in ["geheim", "einmalig", "hunter2"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}
