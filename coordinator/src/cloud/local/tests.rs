//! What the local cloud does when a part of it is broken. Its agent is a shell script that leaves marks.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use tempfile::TempDir;

use super::*;

/// Its servers' agent writes the verb that it was started with into its server's directory.
fn cloud(directory: &TempDir) -> io::Result<LocalCloud> {
    let agent = directory.path().join("agent.sh");
    fs::write(&agent, "#!/bin/sh\ntouch \"$1\"\n")?;
    fs::set_permissions(&agent, PermissionsExt::from_mode(0o700))?;
    LocalCloud::open(LocalSettings {
        directory: directory.path().join("servers"),
        agent,
        manifest: directory.path().join("manifest.json"),
        image: "image-1".to_owned(),
        network: [127, 0, 78],
        http_port: 8080,
        gateway_ports: 1,
    })
}

/// Puts a server's record into a directory.
fn place(dir: &Path, name: &str) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let record = ServerRecord {
        name: name.to_owned(),
        address: Ipv4Addr::LOCALHOST,
        gateway_port: 1,
        image: None,
        power: Power::On,
    };
    fs::write(dir.join("server.json"), serde_json::to_vec(&record)?)
}

#[tokio::test]
async fn a_server_that_cannot_be_stopped_keeps_no_other_running() -> io::Result<()> {
    let directory = TempDir::new()?;
    let cloud = cloud(&directory)?;
    let servers = directory.path().join("servers");
    // Its record names a directory that is not there, so nothing can be started for it.
    place(&servers.join("a"), "elsewhere")?;
    place(&servers.join("b"), "b")?;
    // An agent that is not gone at once, so that the broken one is found out first.
    let mut agent = Command::new("sleep").arg("60").kill_on_drop(true).spawn()?;
    let mark = agent
        .id()
        .and_then(ProcessMark::of)
        .ok_or(io::ErrorKind::NotFound)?;
    mark.write(&servers.join("b/agent.pid"))?;
    let stopped = cloud.power_off().await;
    assert!(stopped.is_err_and(|error| error.to_string() == "not stopped: elsewhere"));
    assert!(servers.join("b/stop-all").exists());
    assert!(!agent.wait().await?.success());
    Ok(())
}

#[tokio::test]
async fn a_directory_that_a_crash_left_without_a_record_is_removed() -> io::Result<()> {
    let directory = TempDir::new()?;
    let cloud = cloud(&directory)?;
    let dir = directory.path().join("servers/half-made");
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("user-data.json"), "{}")?;
    cloud.unmake("half-made").await?;
    assert!(!dir.exists());
    cloud.unmake("half-made").await
}
