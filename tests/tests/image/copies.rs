//! A disk that was another server's.

use std::{process::Command, time::Duration};

use anyhow::{Context as _, ensure};
use tidepool_coordinator::cloud::nspawn::{NspawnCloud, NspawnSettings, server_dir};
use tidepool_tests::rack::{self, Gateway, Rack, Server};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Makes a server of a cloud of its own from the disk of another one, with this user data.
async fn copy(
    cloud: &NspawnCloud,
    settings: &NspawnSettings,
    original: &Server,
    name: &str,
    user_data: &[u8],
) -> anyhow::Result<Server> {
    cloud.reserve(name, user_data).await?;
    let dir = server_dir(&settings.directory, name);
    let copied = Command::new("cp")
        .args(["-a", "--"])
        .arg(original.dir.join("disk"))
        .arg(&dir)
        .status()?;
    ensure!(copied.success());
    cloud.boot(name).await?;
    Server::read(&dir)
}

async fn refuses(server: &Server) -> anyhow::Result<()> {
    let state = "systemctl show -p ActiveState -p ExecMainStatus tidepool-agent";
    let over =
        |state: &str| state.contains("ActiveState=failed") && state.contains("ExecMainStatus=78");
    server.until(state, over).await?;
    let journal = server.run("journalctl -u tidepool-agent -o cat").await?;
    ensure!(journal.contains("this disk was copied"), "{journal}");
    runs_nothing(server).await
}

/// Neither is the customer's name served from here, nor has Docker started their gateway, as it does by itself
/// after a power cut.
async fn runs_nothing(server: &Server) -> anyhow::Result<()> {
    ensure!(server.run("systemctl is-active docker").await.is_err());
    let docker = "journalctl -b -u docker -o cat | grep -c 'Starting up' || true";
    ensure!(server.run(docker).await? == "0", "Docker has run");
    ensure!(server.run("pgrep -x 'nginx|stub-gateway'").await.is_err());
    Ok(())
}

/// A disk that is in a machine of which no cloud says whose it is.
async fn waits(server: &Server) -> anyhow::Result<()> {
    let asks = "systemctl is-active tidepool-server || true";
    server.until(asks, |state| state == "activating").await?;
    // As long as the agent and Docker together take, where they may.
    sleep(Duration::from_secs(5)).await;
    ensure!(server.run(asks).await? == "activating");
    runs_nothing(server).await
}

#[tokio::test]
async fn a_copy_of_an_enrolled_disk_refuses_to_run_as_who_it_was() -> anyhow::Result<()> {
    let rack = Rack::of(&rack::image()?, "copies", 1, Gateway::Own).await?;
    rack.warm(1).await?;
    rack.api.create("alice", 60).await?;
    let original = rack.server()?;
    let own = std::fs::read(original.dir.join("user-data.json"))?;
    let mut other: serde_json::Value = serde_json::from_slice(&own)?;
    other["server"] = "srv_00000000000000000000000001".into();
    original.run("sync").await?;

    let (_dir, settings) = rack::place(&rack::image()?, "copied")?;
    // The same image below, as of any disk that is copied.
    let image = std::fs::read_dir(&rack.settings().directory)?
        .filter_map(Result::ok)
        .find(|entry| entry.file_name().to_string_lossy().starts_with("image-"))
        .context("the unpacked image")?;
    std::os::unix::fs::symlink(image.path(), settings.directory.join(image.file_name()))?;
    let cloud = NspawnCloud::open(settings.clone()).await?;
    let cancel = CancellationToken::new();
    let tried = async {
        // As a snapshot that was taken of a server and not of an image; and as a careless restore.
        let as_another = serde_json::to_vec(&other)?;
        for (name, user_data) in [("another", as_another), ("the-same", own)] {
            let server = copy(&cloud, &settings, &original, name, &user_data).await?;
            refuses(&server).await.context(name)?;
        }
        let lost = copy(&cloud, &settings, &original, "lost", b"").await?;
        waits(&lost).await.context("without user data")
    };
    let tried = async {
        let tried = tried.await;
        cancel.cancel();
        tried
    };
    // To its end, so that it boots nothing while all is torn down.
    let (tried, ()) = tokio::join!(tried, cloud.supervise(cancel.clone()));
    let torn_down = rack::tear_down(&settings);
    tried?;
    torn_down?;
    rack.end().await
}
