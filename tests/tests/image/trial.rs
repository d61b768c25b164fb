//! An image is tried on a machine of its own, one that starts too slowly is refused, and a good one is rolled out.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tidepool_tests::{
    programs,
    rack::{self, Gateway, Rack},
};
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_mins(3);

const MANIFEST: &str = "usr/share/tidepool/manifest.json";

/// Over half as much again as any start of the stub, and five seconds.
const SLOW: &str = "STUB_BOOT_MS=14000";

/// The run's image under three names.
fn shelf() -> anyhow::Result<tempfile::TempDir> {
    let (archive, shelf) = (rack::image()?, tempfile::tempdir()?);
    let path = archive.display().to_string();
    let manifest = path.strip_suffix(".tar.zst").context("an archive")?;
    for name in ["first", "slow", "good"] {
        symlink(&archive, shelf.path().join(format!("{name}.tar.zst")))?;
        let manifest = format!("{manifest}.json");
        symlink(manifest, shelf.path().join(format!("{name}.json")))?;
    }
    Ok(shelf)
}

/// Unpacks another image as the first is: with the stub in it, and with these switches.
fn unpack(rack: &Rack, name: &str, switches: &[&str]) -> anyhow::Result<()> {
    let place = |name: &str| rack.settings().directory.join(name);
    let partial = place(&format!(".image-{name}"));
    let linked = Command::new("cp")
        .arg("-al")
        .args([place("image-first"), partial.clone()])
        .status()?;
    ensure!(linked.success());
    let path = partial.join("root").join(MANIFEST);
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path)?)?;
    let gateway = manifest["gateway"].as_array_mut().context("a gateway")?;
    gateway.extend(switches.iter().map(|&switch| json!(switch)));
    // It is the other image's file as well.
    fs::remove_file(&path)?;
    fs::write(&path, serde_json::to_vec(&manifest)?)?;
    fs::rename(partial, place(&format!("image-{name}")))?;
    Ok(())
}

async fn tidepool(configuration: &Path, arguments: &[&str]) -> anyhow::Result<Output> {
    tokio::process::Command::new(programs::program("tidepool")?)
        .arg("image")
        .args(arguments)
        .arg("--config")
        .arg(configuration)
        .output()
        .await
        .context("run `tidepool image`")
}

fn said(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{out}{err}")
}

/// The images of idle servers.
fn idle(pool: &Value) -> Vec<&str> {
    let servers = pool["servers"].as_array();
    let of = |server: &'_ Value| server["state"] == "warm" && server["tier"] == "basic";
    let idle = servers.into_iter().flatten().filter(|server| of(server));
    idle.filter_map(|server| server["image"].as_str()).collect()
}

#[tokio::test]
async fn an_image_is_tried_on_a_machine_a_slow_one_is_refused_and_a_good_one_rolled_out()
-> anyhow::Result<()> {
    let shelf = shelf()?;
    let first = shelf.path().join("first.tar.zst");
    let rack = Rack::with_room(&first, "trial", [1, 3], Gateway::Stub).await?;
    rack.warm(1).await?;
    unpack(&rack, "slow", &[SLOW])?;
    unpack(&rack, "good", &[])?;
    let configuration = rack.configuration();

    let tried = tidepool(&configuration, &["verify", "first"]).await?;
    ensure!(tried.status.success(), "{}", said(&tried));
    ensure!(
        said(&tried).contains("nothing to compare with"),
        "{}",
        said(&tried)
    );

    let tried = tidepool(&configuration, &["verify", "slow"]).await?;
    ensure!(tried.status.code() == Some(1), "{}", said(&tried));
    ensure!(
        said(&tried).contains("refused: gateway_start"),
        "{}",
        said(&tried)
    );
    ensure!(said(&tried).contains("s  enrolled"), "{}", said(&tried));
    let promoted = tidepool(&configuration, &["promote", "slow"]).await?;
    ensure!(
        said(&promoted).contains("verify it first"),
        "{}",
        said(&promoted)
    );

    let tried = tidepool(&configuration, &["verify", "good", "--json"]).await?;
    ensure!(tried.status.success(), "{}", said(&tried));
    let trial: Value = serde_json::from_slice(&tried.stdout)?;
    ensure!(trial["compared_with"] == "first", "{trial}");
    ensure!(trial["agent_version"].is_string(), "{trial}");
    let promoted = tidepool(&configuration, &["promote", "good"]).await?;
    ensure!(promoted.status.success(), "{}", said(&promoted));

    let deadline = Instant::now() + PATIENCE;
    loop {
        let pool = rack.api.get("/pool").await?;
        let idle = idle(&pool);
        ensure!(!idle.is_empty(), "below the floor: {pool}");
        if idle.iter().all(|image| *image == "good") {
            break;
        }
        ensure!(Instant::now() < deadline, "not rolled out: {pool}");
        sleep(Duration::from_millis(50)).await;
    }
    // Machines of trials are gone, and that of the image before.
    let gone = |pool: &Value| pool["servers"].as_array().is_some_and(|all| all.len() == 1);
    rack.api.until("/pool", PATIENCE, gone).await?;
    ensure!(rack.servers()?.len() == 1);
    let listed = tidepool(&configuration, &["list", "--json"]).await?;
    let listed: Value = serde_json::from_slice(&listed.stdout)?;
    let images = listed["data"].as_array().context("images")?;
    let promoted = images
        .iter()
        .filter(|image| image["promoted"] == json!(true));
    let promoted: Vec<_> = promoted.map(|image| &image["id"]).collect();
    ensure!(promoted == ["good"] && images.len() == 3, "{listed}");
    rack.end().await
}
