//! The contract, a sentence a function; each takes a gateway that has started.

use std::{fs, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tidepool_agent::{
    converge::body::Gateway as _,
    gateway::{As, Readiness, Startup},
    openclaw::{ORIGIN, OWNER, Stage, neutral},
    reload::{How, Outcome},
    runtime::{Started, State, Stopped},
};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

use crate::{bench::Bench, rows};

/// All of them on one gateway, in an order in which each leaves it usable for the next.
pub(crate) async fn all(bench: &Bench) {
    of_a_configuration(bench).await;
    rows::the_gateway_does_what_the_table_says(bench, rows::some()).await;
    of_a_life(bench).await;
}

/// How it takes what it is told.
pub(crate) async fn of_a_configuration(bench: &Bench) {
    health_is_told_by_the_body(bench).await;
    only_the_owner_is_let_in(bench).await;
    a_foreign_origin_is_refused_at_connect(bench).await;
    the_warm_up_turn_asks_the_model_and_leaves_no_trace(bench).await;
    a_gateway_warmed_up_twice_still_holds_no_trace(bench).await;
    a_customers_configuration_is_applied_while_serving(bench).await;
    a_configuration_against_the_schema_is_not_even_written(bench).await;
    a_configuration_that_the_gateway_refuses_is_taken_back(bench).await;
    what_the_gateway_wrote_itself_survives(bench).await;
}

/// How it is found, restarts and ends.
pub(crate) async fn of_a_life(bench: &Bench) {
    a_running_gateway_is_adopted_after_the_agents_death(bench).await;
    what_it_takes_is_told(bench).await;
    the_restart_signal_restarts_in_the_process(bench).await;
    a_stop_is_heard(bench).await;
}

pub(crate) async fn health_is_told_by_the_body(bench: &Bench) {
    assert_eq!(bench.gateway.startup().await, Startup::Started);
    assert!(bench.gateway.is_live().await);
    assert_eq!(bench.gateway.readiness().await, Readiness::Ready);
}

pub(crate) async fn only_the_owner_is_let_in(bench: &Bench) {
    assert!(bench.gateway.admits(As::Owner).await);
    assert!(!bench.gateway.admits(As::Nobody).await);
}

pub(crate) async fn a_foreign_origin_is_refused_at_connect(bench: &Bench) {
    let own = connect(bench, ORIGIN).await;
    assert_eq!(own["payload"]["type"], "hello-ok", "{own}");
    let foreign = connect(bench, "https://evil.example").await;
    assert_eq!(foreign["ok"], false, "{foreign}");
}

pub(crate) async fn the_warm_up_turn_asks_the_model_and_leaves_no_trace(bench: &Bench) {
    bench.gateway.warm_up().await.expect("warm up");
    // The real one also asks for small things, such as a label for the session.
    assert!((1..=4).contains(&bench.calls()), "{} calls", bench.calls());
    holds_no_trace(bench).await;
}

/// A pool server's gateway that died is warmed up again, on the disk that it had.
pub(crate) async fn a_gateway_warmed_up_twice_still_holds_no_trace(bench: &Bench) {
    let openclaw = bench.openclaw();
    for round in 1..=2 {
        let before = bench.calls();
        let warmed = openclaw.warm_up().await;
        let log = || bench.runtime.log().tail(60);
        warmed.unwrap_or_else(|error| panic!("round {round}: {error:#}: {:#?}", log()));
        assert!(bench.calls() > before, "round {round} asked no model");
        holds_no_trace(bench).await;
    }
    assert_eq!(
        bench.on_disk().pointer("/logging/audit"),
        None,
        "the customer's own turns must be recorded"
    );
}

async fn holds_no_trace(bench: &Bench) {
    let mut session = Session::open(bench, ORIGIN).await;
    session.call("connect", hello()).await;
    let traces = [
        ("sessions.list", json!({}), "/payload/sessions"),
        (
            "sessions.list",
            json!({"archived": true}),
            "/payload/sessions",
        ),
        ("sessions.usage", json!({}), "/payload/sessions"),
        ("audit.list", json!({}), "/payload/events"),
    ];
    for (method, params, list) in traces {
        let answer = session.call(method, params).await;
        assert_eq!(answer.pointer(list), Some(&json!([])), "{method}: {answer}");
    }
    let transcripts = bench.place.state_dir().join("agents/main/sessions");
    let left = fs::read_dir(transcripts).map_or(0, Iterator::count);
    assert_eq!(left, 0, "transcripts on disk");
}

pub(crate) async fn a_customers_configuration_is_applied_while_serving(bench: &Bench) {
    let outcome = bench.apply(&named("Ada")).await;
    let Outcome::Applied {
        how: How::Hot,
        took,
    } = outcome
    else {
        panic!("{outcome:?}: {:?}", bench.runtime.log().tail(20));
    };
    eprintln!("hot reload took {took:?}");
    assert_eq!(
        bench
            .on_disk()
            .pointer("/agents/entries/main/identity/name"),
        Some(&json!("Ada"))
    );
    let again = bench.apply(&named("Ada")).await;
    assert!(
        matches!(
            again,
            Outcome::Applied {
                how: How::Unchanged,
                ..
            }
        ),
        "{again:?}"
    );
}

pub(crate) async fn a_configuration_against_the_schema_is_not_even_written(bench: &Bench) {
    let before = bench.on_disk();
    let outcome = bench.apply(&json!({"nonsense": {"really": true}})).await;
    let Outcome::RolledBack { reason } = outcome else {
        panic!("{outcome:?}");
    };
    assert!(reason.contains("nonsense"), "{reason}");
    assert_eq!(bench.on_disk(), before);
    assert_eq!(bench.gateway.startup().await, Startup::Started);
}

pub(crate) async fn what_the_gateway_wrote_itself_survives(bench: &Bench) {
    bench.apply(&named("Grace")).await;
    let mut disk = bench.on_disk();
    disk["messages"] = json!({"responsePrefix": "mine"});
    fs::write(bench.config_path(), disk.to_string()).expect("write as the gateway would");
    // It knows of what it wrote. A second write before it has seen the first can leave it deaf.
    bench.until_accepted(&disk.to_string()).await;
    let outcome = bench.apply(&named("Joan")).await;
    assert!(matches!(outcome, Outcome::Applied { .. }), "{outcome:?}");
    let disk = bench.on_disk();
    assert_eq!(disk["messages"]["responsePrefix"], "mine");
    assert_eq!(
        disk["agents"]["entries"]["main"]["identity"]["name"],
        "Joan"
    );
}

pub(crate) async fn a_configuration_that_the_gateway_refuses_is_taken_back(bench: &Bench) {
    bench.apply(&named("Ada")).await;
    let before = bench.on_disk();
    let bad = json!({"bogus": {}, "messages": {"responsePrefix": "not yet"}});
    let outcome = bench.apply_unchecked(&bad).await;
    let Outcome::RolledBack { reason } = outcome else {
        panic!("{outcome:?}");
    };
    assert!(reason.contains("bogus"), "{reason}");
    assert_eq!(bench.on_disk(), before);
    assert_eq!(bench.gateway.startup().await, Startup::Started);
    let next = bench.apply(&named("Joan")).await;
    assert!(
        matches!(next, Outcome::Applied { how: How::Hot, .. }),
        "{next:?}"
    );
}

/// The agent died after it had written a file that the gateway refused, and before taking it back.
pub(crate) async fn a_cut_off_try_is_ended_by_the_next(bench: &Bench) {
    bench.apply(&named("Ada")).await;
    let good = bench.on_disk();
    fs::write(bench.place.records.join("intent.json"), r#"{"digest":""}"#).expect("an intent");
    let mut bad = good.clone();
    bad["bogus"] = json!({});
    fs::write(bench.config_path(), bad.to_string()).expect("a bad file");
    let outcome = bench.apply_unchecked(&json!({"bogus": {}})).await;
    assert!(matches!(outcome, Outcome::RolledBack { .. }), "{outcome:?}");
    assert_eq!(bench.on_disk(), good);
}

pub(crate) async fn a_running_gateway_is_adopted_after_the_agents_death(bench: &Bench) {
    let next = bench.another_runtime();
    assert_eq!(next.state().await, State::Running);
    assert_eq!(next.start().await.expect("start"), Started::Adopted);
    // Also when the agent died before it had recorded what it started.
    fs::remove_file(bench.place.process_record()).expect("the record");
    assert_eq!(next.start().await.expect("start"), Started::Adopted);
    assert_eq!(next.state().await, State::Running);
}

pub(crate) async fn the_restart_signal_restarts_in_the_process(bench: &Bench) {
    let mut since = bench.runtime.log().end();
    let signal = bench.table.restart_signal();
    bench.runtime.restart_by(signal).await.expect("signal");
    let mut said = Vec::new();
    let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
    while !said
        .iter()
        .any(|line: &String| line.ends_with("[gateway] ready"))
    {
        said.extend(bench.runtime.log().read(&mut since).expect("the log"));
        assert!(tokio::time::Instant::now() < deadline, "{said:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(bench.runtime.state().await, State::Running);
    assert!(bench.gateway.started_within(Duration::from_secs(30)).await);
    assert!(!said.iter().any(|line| line.contains("Debugger listening")));
}

pub(crate) async fn what_it_takes_is_told(bench: &Bench) {
    let taken = bench.runtime.taken().await.expect("it runs");
    assert!(taken.memory_bytes > 1 << 20, "{taken:?}");
    assert!(taken.pids > 0, "{taken:?}");
    let later = bench.runtime.taken().await.expect("it runs");
    assert!(later.cpu >= taken.cpu, "{later:?}");
}

pub(crate) async fn a_stop_is_heard(bench: &Bench) {
    let stopped = bench.runtime.stop(Duration::from_secs(20)).await;
    assert_eq!(stopped.expect("stop"), Stopped::ByItself);
    assert!(matches!(bench.runtime.state().await, State::Stopped { .. }));
    assert_eq!(bench.gateway.startup().await, Startup::Absent);
    assert_eq!(bench.runtime.taken().await, None);
    let again = bench.runtime.stop(Duration::from_secs(1)).await;
    assert_eq!(again.expect("stop"), Stopped::Already);
    let neutral = neutral(&bench.place, Stage::Ready);
    assert_eq!(neutral["gateway"]["mode"], "local");
}

fn named(name: &str) -> Value {
    json!({"agents": {"entries": {"main": {"identity": {"name": name}}}}})
}

/// The answer to `connect` from this origin, as the owner.
async fn connect(bench: &Bench, origin: &str) -> Value {
    Session::open(bench, origin)
        .await
        .call("connect", hello())
        .await
}

fn hello() -> Value {
    json!({
        "minProtocol": 4, "maxProtocol": 4, "role": "operator", "caps": [],
        "client": {"id": "openclaw-control-ui", "version": "1", "platform": "linux", "mode": "ui"},
        "scopes": ["operator.admin", "operator.read", "operator.write"],
    })
}

/// A browser's session, through a proxy that proved the owner.
struct Session(WebSocketStream<TcpStream>);

impl Session {
    async fn open(bench: &Bench, origin: &str) -> Self {
        let source = bench.place.source.expect("a source");
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((source, 0).into()).expect("its address");
        let stream = socket.connect(bench.place.gateway).await.expect("connect");
        let mut request = format!("ws://{}/", bench.place.gateway)
            .into_client_request()
            .expect("a request");
        let headers = [
            ("origin", origin),
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "gateway.tidepool.internal"),
            ("x-forwarded-user", OWNER),
        ];
        for (name, value) in headers {
            request
                .headers_mut()
                .insert(name, value.parse().expect("a header"));
        }
        let (socket, _) = client_async(request, stream).await.expect("upgrade");
        Self(socket)
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        let request = json!({"type": "req", "id": method, "method": method, "params": params});
        self.0
            .send(Message::text(request.to_string()))
            .await
            .expect("send");
        loop {
            let message = self.0.next().await.expect("an answer").expect("a frame");
            let frame: Value = match message {
                Message::Text(text) => serde_json::from_str(&text).expect("JSON"),
                _ => continue,
            };
            if frame["type"] == "res" {
                return frame;
            }
        }
    }
}
