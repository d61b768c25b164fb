//! Debian's Packer and our template: what it asks of the cloud, and what is left when it is done.
//!
//! The fake's servers have no machines, so nobody can log in and the scripts are left out; they are the ones
//! that the image of this very run was made with.

use std::{fs, path::PathBuf, process::Command as Program, time::Duration};

use anyhow::{Context as _, ensure};
use tidepool_tests::fake_hetzner::{Entry, Kind, Settings};
use tokio::{
    process::Command,
    time::{Instant, sleep},
};

use crate::{
    clients::{run, text},
    world::World,
};

const PATIENCE: Duration = Duration::from_mins(1);

fn folder() -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../snapshot-image/packer"
    ))
}

#[test]
fn the_template_is_valid_and_formatted() -> anyhow::Result<()> {
    let packer = |arguments: &[&str]| {
        Program::new("packer")
            .args(arguments)
            .env("HCLOUD_TOKEN", "none")
            .env("CHECKPOINT_DISABLE", "1")
            .current_dir(folder())
            .output()
            .context("run packer (Debian: packer)")
    };
    // The other file is for newer ones, which have no builders of their own.
    let valid = packer(&["validate", "-var", "agent=/bin/true", "tidepool.pkr.hcl"])?;
    ensure!(valid.status.success(), "{}", text(&valid));
    let formatted = packer(&["fmt", "-check", "-diff", "."])?;
    ensure!(formatted.status.success(), "{}", text(&formatted));
    Ok(())
}

#[tokio::test]
async fn a_build_leaves_a_labelled_snapshot_and_nothing_else() -> anyhow::Result<()> {
    let settings = Settings::quick().with_room("cx23", "nbg1", 1);
    let world = World::with(settings).await?;
    let dir = tempfile::tempdir()?;
    let template = fs::read_to_string(folder().join("tidepool.pkr.hcl"))?;
    let provisioners = template.find("  provisioner ").context("provisioners")?;
    let without = format!(
        "{}}}\n",
        template
            .get(..provisioners)
            .unwrap_or_default()
            .replace("ssh_username  = \"root\"", "communicator = \"none\"")
    );
    ensure!(without.contains("communicator"), "no one to log in as");
    let file = dir.path().join("tidepool.pkr.hcl");
    fs::write(&file, without)?;
    let mut command = Command::new("packer");
    command
        .args([
            "build",
            "-color=false",
            "-var",
            "env=test",
            "-var",
            "agent=/bin/true",
        ])
        .args(["-var", "inputs=abc", "-var", "poll_interval=50ms"])
        .args(["-var", &format!("endpoint={}", world.fake.url())])
        .arg(&file)
        .env("HCLOUD_TOKEN", &world.token)
        .env("CHECKPOINT_DISABLE", "1")
        .env("HOME", dir.path())
        .current_dir(dir.path());
    let built = run(&mut command).await?;
    ensure!(built.status.success(), "{}", text(&built));
    let label = "managed-by%3Dtidepool,env%3Dtest,role%3Dtidepool-image";
    let found = world
        .get(&format!(
            "/images?type=snapshot&status=available&label_selector={label}"
        ))
        .await?;
    ensure!(found.rows("images").len() == 1, "{found:?}");
    assert_eq!(found.at("/images/0/labels/inputs"), "abc");
    // A person says when servers are made from it.
    assert_eq!(
        found.at("/images/0/labels/promoted"),
        &serde_json::Value::Null
    );
    // Packer does not wait for the end of a deletion.
    let left = || {
        let entries = world.fake.books().entries;
        entries
            .into_iter()
            .filter(Entry::exists)
            .collect::<Vec<_>>()
    };
    let deadline = Instant::now() + PATIENCE;
    while left().len() > 1 {
        ensure!(
            Instant::now() < deadline,
            "the snapshot alone: {:?}",
            left()
        );
        sleep(Duration::from_millis(50)).await;
    }
    let books = world.fake.books();
    assert_eq!(books.existing(Kind::Image).count(), 1);
    world.end().await
}
