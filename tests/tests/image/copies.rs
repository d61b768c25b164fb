//! A disk that was another server's.

use std::process::Command;

use anyhow::{Context as _, ensure};
use tidepool_coordinator::cloud::nspawn::{NspawnCloud, NspawnSettings, server_dir};
use tidepool_tests::rack::{self, Rack, Server};
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
    // Neither the customer's gateway nor their name is served from here.
    ensure!(server.run("pgrep -x 'nginx|stub-gateway'").await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_copy_of_an_enrolled_disk_refuses_to_run_as_who_it_was() -> anyhow::Result<()> {
    let rack = Rack::start("copies", 1).await?;
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
        anyhow::Ok(())
    };
    let tried = tokio::select! {
        tried = tried => tried,
        () = cloud.supervise(cancel.clone()) => Err(anyhow::anyhow!("supervision ended")),
    };
    rack::tear_down(&settings);
    tried
}
