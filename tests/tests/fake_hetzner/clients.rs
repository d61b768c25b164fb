//! Clients that others wrote: Hetzner's Python library and its command line.

use std::{
    process::{Output, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tidepool_tests::fake_hetzner::{Kind, Settings};
use tokio::{process::Command, time::timeout};

use crate::world::{Answer, PATIENCE, World};

/// So small that every list of a client shows how it pages.
const PER_PAGE: usize = 2;

async fn world() -> anyhow::Result<World> {
    let mut settings = Settings::quick().with_room("cx23", "nbg1", 10);
    settings.max_per_page = PER_PAGE;
    // Long enough that a lock is seen.
    settings.pace.snapshot = Duration::from_secs(2);
    World::with(settings).await
}

pub(crate) async fn run(command: &mut Command) -> anyhow::Result<Output> {
    let command = command.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output());
    output.await.context("it did not end")?.context("run it")
}

pub(crate) fn text(output: &Output) -> String {
    let streams = [&output.stdout, &output.stderr];
    streams.map(|bytes| String::from_utf8_lossy(bytes)).concat()
}

#[tokio::test]
async fn hetzners_python_client_is_content() -> anyhow::Result<()> {
    let Some(python) = std::env::var_os("TIDEPOOL_HCLOUD_PYTHON") else {
        eprintln!("SKIPPED: TIDEPOOL_HCLOUD_PYTHON is not set; run `./tidepool test`");
        return Ok(());
    };
    let world = world().await?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/hetzner/drive.py");
    let mut command = Command::new(python);
    command.arg(script).arg(world.fake.url()).arg(&world.token);
    let output = run(&mut command).await?;
    ensure!(output.status.success(), "{}", text(&output));
    ensure!(text(&output).contains("driven"), "{}", text(&output));
    let books = world.fake.books();
    assert_eq!(books.ever(Kind::Server).count(), 7);
    let left: Vec<_> = books
        .entries
        .iter()
        .filter(|entry| entry.exists())
        .collect();
    ensure!(left.is_empty(), "left behind: {left:?}");
    world.end().await
}

#[tokio::test]
async fn hetzners_command_line_is_content() -> anyhow::Result<()> {
    if run(Command::new("hcloud").arg("version")).await.is_err() {
        eprintln!("SKIPPED: `hcloud` is not installed (package hcloud-cli); run `./tidepool test`");
        return Ok(());
    }
    let world = world().await?;
    let home = tempfile::tempdir()?;
    let hcloud = async |line: &str| {
        let mut command = Command::new("hcloud");
        command
            .args(line.split(' '))
            .env("HCLOUD_ENDPOINT", world.fake.url())
            .env("HCLOUD_TOKEN", &world.token)
            .env("HOME", home.path());
        run(&mut command).await
    };
    let good = async |line: &str| -> anyhow::Result<String> {
        let output = hcloud(line).await?;
        ensure!(output.status.success(), "{line}: {}", text(&output));
        Ok(text(&output))
    };
    for name in ["a", "b", "c"] {
        let line = format!(
            "server create --name {name} --type cx23 --location nbg1 --image debian-13 --label env=t"
        );
        good(&line).await?;
    }
    let again = hcloud("server create --name a --type cx23 --location nbg1 --image debian-13");
    let again = again.await?;
    ensure!(
        !again.status.success() && text(&again).contains("uniqueness_error"),
        "{again:?}"
    );
    let listed: Value = serde_json::from_str(&good("server list -o json").await?)?;
    assert_eq!(listed.as_array().map(Vec::len), Some(3), "it follows pages");
    let selected = good("server list --selector env=t -o columns=name,status").await?;
    ensure!(selected.matches("running").count() == 3, "{selected}");
    let described: Value = serde_json::from_str(&good("server describe a -o json").await?)?;
    assert_eq!(described["status"], "running");
    good("server create-image a --type snapshot --description golden").await?;
    let images = good("image list --type snapshot -o columns=id,description").await?;
    ensure!(images.contains("golden"), "{images}");
    good("firewall create --name edge").await?;
    good("firewall apply-to-resource edge --type server --server a").await?;
    let used = hcloud("firewall delete edge").await?;
    ensure!(text(&used).contains("resource_in_use"), "{used:?}");
    good("firewall remove-from-resource edge --type server --server a").await?;
    good("firewall delete edge").await?;
    for name in ["a", "b", "c"] {
        good(&format!("server delete {name}")).await?;
    }
    // It does not wait for deletions.
    let none = |answer: &Answer| answer.rows("servers").is_empty();
    world.until("/servers", none).await?;
    world.end().await
}
