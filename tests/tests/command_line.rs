//! The operator's command line, as the program that an operator runs.

use std::process::Output;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tidepool_tests::{
    deployment::{Deployment, Options},
    evidence,
};

fn json(output: &Output) -> anyhow::Result<Value> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}", output.status);
    serde_json::from_slice(&output.stdout).with_context(|| format!("not JSON; said: {said}"))
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn an_operator_lives_an_agents_whole_life_from_the_command_line() -> anyhow::Result<()> {
    let tidepool = Deployment::start("command-line", Options::default()).await?;
    let created = tidepool
        .tidepool(&["instance", "create", "shell", "--wait"])
        .await?;
    let said = text(&created);
    ensure!(created.status.success(), "{said}");
    for wanted in ["http://shell.localhost:", "sign in", "running", "total"] {
        ensure!(said.contains(wanted), "`{wanted}` is missing: {said}");
    }
    let secret = said.split("token=").nth(1).context("a login link")?;
    evidence::note_secret(secret.split_whitespace().next().unwrap_or_default());

    let shown = json(
        &tidepool
            .tidepool(&["instance", "show", "shell", "--json"])
            .await?,
    )?;
    ensure!(
        shown.get("status").and_then(Value::as_str) == Some("running"),
        "{shown}"
    );
    let listed = json(&tidepool.tidepool(&["instance", "list", "--json"]).await?)?;
    ensure!(listed.to_string().contains("\"shell\""), "{listed}");
    json(&tidepool.tidepool(&["pool", "--json"]).await?)?;
    let logs = tidepool.tidepool(&["instance", "logs", "shell"]).await?;
    ensure!(
        text(&logs).contains("[gateway] ready"),
        "no log: {}",
        text(&logs)
    );
    let events = tidepool.tidepool(&["events"]).await?;
    ensure!(
        text(&events).contains("instance.ready"),
        "{}",
        text(&events)
    );

    // What is shown once is in no log.
    let token = tidepool.tidepool(&["token", "create", "web"]).await?;
    let set = ["instance", "basic-auth", "set", "shell", "ann"];
    let password = tidepool.tidepool(&set).await?;
    for shown in [&token, &password] {
        let said = text(shown);
        let secret = said.trim().rsplit(['_', ':']).next().unwrap_or_default();
        ensure!(secret.len() >= 32, "no secret was shown: {said}");
        evidence::note_secret(secret);
    }

    let gone = tidepool.tidepool(&["instance", "delete", "shell"]).await?;
    ensure!(gone.status.success());
    Ok(())
}

#[tokio::test]
async fn a_refusal_is_told_in_words_and_by_the_exit_code() -> anyhow::Result<()> {
    let tidepool = Deployment::start("refusals", Options::default()).await?;
    let missing = tidepool.tidepool(&["instance", "show", "nobody"]).await?;
    ensure!(missing.status.code() == Some(1), "{:?}", missing.status);
    let misnamed = tidepool
        .tidepool(&["instance", "create", "No Such Name"])
        .await?;
    let said = String::from_utf8_lossy(&misnamed.stderr);
    ensure!(
        misnamed.status.code() == Some(1) && said.contains("/name"),
        "{said}"
    );
    let misused = tidepool.tidepool(&["instance", "frobnicate"]).await?;
    ensure!(misused.status.code() == Some(2), "{:?}", misused.status);
    let nowhere = ["pool", "--url", "http://127.0.0.1:1", "--token", "tp_none"];
    let unreachable = tidepool.tidepool(&nowhere).await?;
    ensure!(
        unreachable.status.code() == Some(69),
        "{:?}",
        unreachable.status
    );
    Ok(())
}
