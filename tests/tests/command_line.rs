//! The operator's command line, as the program that an operator runs.

use std::{process::Output, sync::Arc};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tidepool_certs::sealed::MasterKeys;
use tidepool_coordinator::{
    ambient::{Chance, Moment},
    model::Provider,
    store::{KeyStore as _, ModelStore as _, sqlite::SqliteStore},
};
use tidepool_tests::{
    deployment::{Deployment, Options},
    evidence, programs,
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

#[tokio::test]
async fn a_rotated_master_key_seals_everything_again_and_the_old_one_is_forgotten_when_asked()
-> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("master.keys");
    let keys = MasterKeys::read_or_create(&file)?;
    let chance = Arc::new(Chance::from_os());
    let store = SqliteStore::open(&dir.path().join("tidepool.db"), chance).await?;
    let provider = |name: &str, key: &str| Provider {
        name: name.to_owned(),
        kind: "openai".to_owned(),
        base_url: "https://one.example".to_owned(),
        sealed_key: Some(keys.seal(key, &format!("provider/{name}"))),
        created_at: Moment(0),
        updated_at: Moment(0),
    };
    let (one, two) = (provider("one", "sk-one"), provider("two", "sk-two"));
    store.put_provider(&one).await?;
    store.put_provider(&two).await?;
    let rotate = async |arguments: &[&str]| {
        tokio::process::Command::new(programs::program("tidepool")?)
            .args([
                "--data-dir",
                &dir.path().to_string_lossy(),
                "secrets",
                "rotate",
            ])
            .args(arguments)
            .env_remove("TIDEPOOL_DATABASE_URL")
            .output()
            .await
            .context("run tidepool")
    };
    let told = json(&rotate(&["--json"]).await?)?;
    ensure!(told.get("resealed") == Some(&Value::from(2)), "{told}");
    let newer = MasterKeys::read(&file)?;
    for (sealed, secret) in store.sealed().await?.iter().zip(["sk-one", "sk-two"]) {
        ensure!(newer.is_newest(&sealed.bytes));
        ensure!(
            newer
                .open(&sealed.bytes, &sealed.place.to_string())?
                .expose()
                == secret
        );
    }
    // As long as the old key is there, what an older coordinator sealed opens, and is sealed again at last.
    store.put_provider(&one).await?;
    let told = json(&rotate(&["--forget-old", "--json"]).await?)?;
    ensure!(told.get("resealed") == Some(&Value::from(1)), "{told}");
    let newest = MasterKeys::read(&file)?;
    ensure!(
        newest
            .open(
                one.sealed_key.as_deref().unwrap_or_default(),
                "provider/one"
            )
            .is_err()
    );
    // What does not open stops everything before anything changes.
    store.put_provider(&one).await?;
    let before = std::fs::read(&file)?;
    let refused = rotate(&[]).await?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(
        refused.status.code() == Some(1) && said.contains("provider/one"),
        "{said}"
    );
    ensure!(std::fs::read(&file)? == before);
    Ok(())
}
