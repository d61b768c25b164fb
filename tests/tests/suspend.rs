//! An instance is switched off and on again, by its operator and by its customer: the whole path on one machine.

use std::{fs, net::IpAddr, time::Duration};

use anyhow::{Context as _, ensure};
use futures_util::StreamExt as _;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tidepool_shared::user_data::UserData;
use tidepool_tests::{
    api::Api,
    customer::Customer,
    deployment::{Deployment, Options},
};
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_mins(2);

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// All that was asked for has been done.
fn at_rest(instance: &Value, status: &str) -> bool {
    text(instance, "status") == status
        && instance.get("operation") == Some(&Value::Null)
        && instance.get("generation") == instance.get("observed_generation")
}

async fn until(api: &Api, status: &str) -> anyhow::Result<Value> {
    let is_so = |instance: &Value| at_rest(instance, status);
    api.until("/instances/alice", PATIENCE, is_so).await
}

/// The command line, which must be content; what it printed.
async fn tidepool(deployment: &Deployment, arguments: &[&str]) -> anyhow::Result<String> {
    let output = deployment.tidepool(arguments).await?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.success(), "{arguments:?}: {said}");
    Ok(String::from_utf8(output.stdout)?)
}

/// What the proxy says to the only server.
async fn model(deployment: &Deployment, address: IpAddr) -> anyhow::Result<(StatusCode, Value)> {
    let server = deployment.servers().pop().context("the only server")?;
    let user_data = fs::read(server.join("user-data.json"))?;
    let user_data: UserData = serde_json::from_slice(&user_data)?;
    let client = reqwest::Client::builder()
        .no_proxy()
        .local_address(address)
        .build()?;
    let words = json!({"model": "default", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
    let asked = client.post(format!("{}/v1/messages", user_data.proxy));
    let asked = asked.header("anthropic-version", "2023-06-01");
    let answer = asked.json(&words).send().await?;
    Ok((answer.status(), answer.json().await?))
}

/// Waits until the proxy has heard whether it serves the only server.
async fn models_are_served(
    deployment: &Deployment,
    address: IpAddr,
    served: bool,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (status, answer) = model(deployment, address).await?;
        let is_refused = status == StatusCode::FORBIDDEN
            && answer.pointer("/error/type") == Some(&json!("permission_error"));
        if is_refused != served {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{status}: {answer}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_suspended_instance_is_out_of_reach_and_comes_back_as_it_was() -> anyhow::Result<()> {
    let options = Options {
        pool_size: 1,
        max_servers: 1,
        ..Options::default()
    };
    let deployment = Deployment::start("suspend", options).await?;
    let api = deployment.api()?;
    let alice = api.create("alice", 60).await?;
    until(&api, "running").await?;
    let pool = api.get("/pool").await?;
    let address = pool.pointer("/servers/0/address").and_then(Value::as_str);
    let address: IpAddr = address.context("the server has an address")?.parse()?;
    let owner = Customer::owner_of(&api, &alice).await?;
    let (mut socket, _) = owner.hello().await?;
    let mut download = owner.request("/download").send().await?.bytes_stream();
    let first = download.next().await.context("it comes")??;
    ensure!(first.starts_with(b"drop"), "it is another page");
    let link = api.login_link(text(&alice, "id")).await?;
    ensure!(deployment.programs("stub-gateway").len() == 1);

    let arguments = ["instance", "suspend", "alice", "--reason", "billing"];
    let arguments = [&arguments[..], &["--message", "Your card <b>expired</b>."]].concat();
    let said = tidepool(&deployment, &arguments).await?;
    ensure!(said.contains("alice is suspended"), "{said}");
    let cut = async {
        while let Some(Ok(_)) = socket.next().await {}
        while let Some(Ok(_)) = download.next().await {}
    };
    tokio::time::timeout(PATIENCE, cut)
        .await
        .context("what was open stays open")?;
    let page = owner.request("/").header("accept", "text/html");
    let page = page.send().await?;
    ensure!(page.status() == StatusCode::SERVICE_UNAVAILABLE);
    ensure!(page.headers().contains_key("retry-after"));
    let page = page.text().await?;
    ensure!(
        page.contains("Your card &lt;b&gt;expired&lt;/b&gt;."),
        "{page}"
    );
    ensure!(
        !Customer::at(text(&alice, "url"))?
            .open_link_when_closed(&link)
            .await?
    );
    let hook = owner
        .post("/hooks/wake")
        .bearer_auth("token")
        .send()
        .await?;
    ensure!(hook.status() == StatusCode::SERVICE_UNAVAILABLE);
    ensure!(hook.headers().contains_key("retry-after"));

    // Its gateway ends, its server stays.
    let suspended = until(&api, "suspended").await?;
    ensure!(suspended.pointer("/suspension/reason") == Some(&json!("billing")));
    ensure!(deployment.programs("stub-gateway").is_empty());
    let pool = api.get("/pool").await?;
    ensure!(
        pool.pointer("/servers/0/state") == Some(&json!("claimed")),
        "{pool}"
    );
    ensure!(text(&suspended, "health") == "unknown", "{suspended}");
    models_are_served(&deployment, address, false).await?;
    let shown = tidepool(&deployment, &["instance", "show", "alice"]).await?;
    ensure!(shown.contains("suspended   for billing since"), "{shown}");
    what_makes_no_sense_is_refused(&api, &suspended).await?;

    tidepool(&deployment, &["instance", "unsuspend", "alice"]).await?;
    until(&api, "running").await?;
    // The same session, the same server.
    ensure!(owner.is_owner().await?);
    owner.hello().await?;
    models_are_served(&deployment, address, true).await?;

    // The same request again is answered as the first one was, whatever has become of it.
    let path = format!("/instances/{}/stop", text(&alice, "id"));
    let key = [("idempotency-key", "once")];
    for _ in 0..2 {
        let (status, answer) = api
            .send(Method::POST, &path, &key, Some(&json!({})))
            .await?;
        ensure!(status == StatusCode::ACCEPTED, "{status} {answer}");
    }
    until(&api, "stopped").await?;
    ensure!(deployment.programs("stub-gateway").is_empty());
    ensure!(owner.status("/").await? == StatusCode::SERVICE_UNAVAILABLE);
    tidepool(&deployment, &["instance", "start", "alice"]).await?;
    until(&api, "running").await?;
    ensure!(owner.is_owner().await?);
    the_log_tells_it(&api).await
}

async fn what_makes_no_sense_is_refused(api: &Api, suspended: &Value) -> anyhow::Result<()> {
    let path = |rest: &str| format!("/instances/{}/{rest}", text(suspended, "id"));
    let long = "x".repeat(501);
    for (rest, body, status) in [
        ("suspend", json!({"reason": "abuse"}), StatusCode::CONFLICT),
        ("stop", json!({}), StatusCode::CONFLICT),
        ("start", json!({}), StatusCode::CONFLICT),
        ("restart", json!({}), StatusCode::CONFLICT),
        ("login_links", json!({}), StatusCode::CONFLICT),
        (
            "suspend",
            json!({"reason": "spite"}),
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        (
            "suspend",
            json!({"reason": "abuse", "message": long}),
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
    ] {
        let (got, problem) = api
            .send(Method::POST, &path(rest), &[], Some(&body))
            .await?;
        ensure!(got == status, "{rest} {body}: {got} {problem}");
    }
    Ok(())
}

async fn the_log_tells_it(api: &Api) -> anyhow::Result<()> {
    let events = api.events().await?;
    let moves: Vec<_> = events
        .iter()
        .filter(|event| text(event, "type") == "instance.status_changed")
        .filter_map(|event| event.pointer("/data/to").and_then(Value::as_str))
        .collect();
    // Perhaps it had to wait for its server before.
    let wanted = [
        "running",
        "suspended",
        "starting",
        "running",
        "stopped",
        "starting",
        "running",
    ];
    ensure!(moves.ends_with(&wanted), "{moves:?}");
    let reason = events
        .iter()
        .find_map(|event| event.pointer("/data/reason"));
    ensure!(reason == Some(&json!("billing")), "{reason:?}");
    Ok(())
}
