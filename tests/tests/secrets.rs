//! What a customer configures as a secret is in no log, taken or refused, and no refusal quotes it.

use std::time::Duration;

use anyhow::ensure;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tidepool_tests::{
    deployment::{Deployment, Options},
    evidence,
};

const PATIENCE: Duration = Duration::from_mins(1);

/// Like a bot's token: found nowhere by chance.
fn secret() -> String {
    format!("{:032x}", rand::random::<u128>())
}

#[tokio::test]
async fn a_customers_secret_is_in_no_log_whether_it_was_taken_or_refused() -> anyhow::Result<()> {
    let options = Options {
        pool_size: 1,
        ..Options::default()
    };
    let tidepool = Deployment::start("customers-secrets", options).await?;
    let api = tidepool.api()?;
    api.create("alice", 60).await?;
    let path = "/instances/alice/config";
    let patch = async |body: Value| api.send(Method::PATCH, path, &[], Some(&body)).await;

    let taken = secret();
    let body = json!({ "channels": { "telegram": { "botToken": taken } } });
    let (status, answer) = patch(body).await?;
    ensure!(status.is_success(), "{status} {answer}");
    let applied = |instance: &Value| {
        instance.get("observed_generation") == Some(&json!(2))
            && instance.get("operation") == Some(&Value::Null)
    };
    api.until("/instances/alice", PATIENCE, applied).await?;

    // Refused by the schema, for its place and for its type.
    let misplaced = secret();
    let body = json!({ "ui": { "botToken": misplaced } });
    let (status, at_once) = patch(body).await?;
    ensure!(status == StatusCode::UNPROCESSABLE_ENTITY, "{at_once}");
    let mistyped = secret();
    evidence::note_secret(&mistyped);
    let (status, of_type) = patch(json!({ "channels": mistyped })).await?;
    ensure!(status == StatusCode::UNPROCESSABLE_ENTITY, "{of_type}");

    // Refused by the gateway itself, which alone knows every key.
    let refused = secret();
    let body = json!({ "nonsense": { "botToken": refused } });
    let (status, answer) = patch(body).await?;
    ensure!(status.is_success(), "{status} {answer}");
    let done = |instance: &Value| instance.get("operation") == Some(&Value::Null);
    api.until("/instances/alice", PATIENCE, done).await?;
    let events = json!(api.events().await?);
    ensure!(events.to_string().contains("config.rejected"), "{events}");

    // A password and a token of the API, which only its answers hold.
    let made = api
        .send(
            Method::PUT,
            "/instances/alice/basic_auth",
            &[],
            Some(&json!({ "username": "alice" })),
        )
        .await?;
    let token = api.post("/tokens", &json!({ "name": "web" })).await?;
    let told = |answer: &Value, field: &str| {
        let text = answer.get(field).and_then(Value::as_str);
        text.map(|text| text.rsplit('_').next().unwrap_or(text).to_owned())
    };
    let (Some(password), Some(token)) = (told(&made.1, "password"), told(&token, "token")) else {
        anyhow::bail!("no password or no token: {} {token}", made.1);
    };

    let said = format!("{at_once} {of_type} {events}");
    for secret in [taken, misplaced, mistyped, refused, password, token] {
        ensure!(!said.contains(&secret), "a refusal quotes a secret: {said}");
        let logs = evidence::logs_holding(&tidepool.data_dir(), &secret);
        ensure!(logs.is_empty(), "a secret is in {logs:?}");
    }
    Ok(())
}
