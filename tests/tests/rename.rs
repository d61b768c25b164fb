//! An instance gets another name: it answers there, the old URL leads there, and nobody else gets it.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tidepool_tests::{
    customer::Customer,
    deployment::{Deployment, Options},
};

const PATIENCE: Duration = Duration::from_mins(2);

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Waits until a change has been applied.
fn at_rest(instance: &Value) -> bool {
    instance.get("operation") == Some(&Value::Null)
        && instance.get("generation") == instance.get("observed_generation")
}

#[tokio::test]
async fn a_renamed_instance_answers_at_its_new_name_and_the_old_one_leads_there()
-> anyhow::Result<()> {
    let options = Options {
        pool_size: 1,
        max_servers: 1,
        ..Options::default()
    };
    let tidepool = Deployment::start("rename", options).await?;
    let api = tidepool.api()?;
    let alice = api.create("alice", 60).await?;
    api.until("/instances/alice", PATIENCE, at_rest).await?;
    let before = Customer::owner_of(&api, &alice).await?;
    ensure!(before.is_owner().await?);
    let (mut socket, _) = before.hello().await?;

    let path = format!("/instances/{}/rename", text(&alice, "id"));
    let refused = async |name: &str| {
        let body = json!({ "name": name });
        let (status, problem) = api.send(Method::POST, &path, &[], Some(&body)).await?;
        anyhow::Ok((status, text(&problem, "code").to_owned()))
    };
    ensure!(refused("No Name").await?.0 == StatusCode::UNPROCESSABLE_ENTITY);
    ensure!(refused("alice").await? == (StatusCode::CONFLICT, "not_possible".to_owned()));

    let renamed = tidepool
        .tidepool(&["instance", "rename", "alice", "bob"])
        .await?;
    let said = String::from_utf8(renamed.stdout)?;
    ensure!(
        renamed.status.success() && said.contains("alice is bob now"),
        "{said}"
    );
    let ended =
        async { while let Some(Ok(_)) = futures_util::StreamExt::next(&mut socket).await {} };
    tokio::time::timeout(PATIENCE, ended)
        .await
        .context("an open WebSocket stays")?;

    let bob = api.until("/instances/bob", PATIENCE, at_rest).await?;
    ensure!(text(&bob, "id") == text(&alice, "id") && text(&bob, "status") == "running");
    let owner = Customer::owner_of(&api, &bob).await?;
    let known = async {
        while !owner.is_owner().await? {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, known).await??;
    owner.hello().await?;

    let moved = before.request("/chat?session=main").send().await?;
    ensure!(
        moved.status() == StatusCode::PERMANENT_REDIRECT,
        "{}",
        moved.status()
    );
    let location = moved.headers().get("location").context("where to")?;
    let wanted = format!("{}/chat?session=main", text(&bob, "url"));
    ensure!(location.to_str()? == wanted, "{location:?}");
    let (status, _) = api
        .send(
            Method::POST,
            "/instances",
            &[],
            Some(&json!({ "name": "alice" })),
        )
        .await?;
    ensure!(status == StatusCode::CONFLICT, "{status}");

    // And back: its own old name is free to it.
    api.post(&path, &json!({ "name": "alice" })).await?;
    api.until("/instances/alice", PATIENCE, at_rest).await?;
    let moved = owner.request("/").send().await?;
    ensure!(
        moved.status() == StatusCode::PERMANENT_REDIRECT,
        "{}",
        moved.status()
    );
    let kinds = api.events().await?;
    let renames = kinds
        .iter()
        .filter(|event| text(event, "type") == "instance.renamed");
    ensure!(renames.count() == 2);
    Ok(())
}
