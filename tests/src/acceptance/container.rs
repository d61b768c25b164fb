//! The gateway's container in the acceptance run: the stub where OpenClaw is, with a shell and what a curious
//! customer would use. A real gateway does not come up on an emulated processor.
//!
//! It is an archive as `snapshot-image/openclaw/container.sh` makes it, so that provisioning, manifest and agent
//! take it for the real one. The same programs give the same archive, and so the same image.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use tokio::process::Command;

use super::execute;
use crate::{docker, programs};

/// Of this machine, and where they are in the container.
const PROGRAMS: &[(&str, &str)] = &[
    ("/bin/dash", "bin/sh"),
    ("/bin/bash", "bin/bash"),
    ("/bin/cat", "bin/cat"),
    ("/bin/date", "bin/date"),
    ("/usr/bin/id", "bin/id"),
    ("/bin/ls", "bin/ls"),
    ("/bin/mknod", "bin/mknod"),
    ("/bin/mount", "bin/mount"),
    ("/usr/bin/timeout", "bin/timeout"),
];

/// The gateway's command is `node .../openclaw.mjs gateway`.
const NODE: &str = "#!/bin/sh\nshift\nexec /stub-gateway \"$@\"\n";

/// Makes the archive in this directory.
pub(super) async fn archive(dir: &Path) -> anyhow::Result<PathBuf> {
    let root = dir.join("stub-root");
    docker::stub_root(&root, PROGRAMS)?;
    let node = programs::container_argv()
        .into_iter()
        .next()
        .context("a program")?;
    let node = root.join(node.trim_start_matches('/'));
    for (path, text) in [
        (node.clone(), NODE),
        (
            root.join("etc/passwd"),
            "root:x:0:0::/root:/bin/bash\nnode:x:1000:1000::/home/node:/bin/bash\n",
        ),
        (root.join("etc/group"), "root:x:0:\nnode:x:1000:\n"),
    ] {
        fs::create_dir_all(path.parent().context("a folder")?)?;
        fs::write(path, text)?;
    }
    fs::set_permissions(&node, fs::Permissions::from_mode(0o755))?;
    fs::create_dir_all(root.join("app"))?;
    let archive = dir.join("stub-container.tar.zst");
    execute(
        Command::new("tar")
            .args(["--create", "--sort=name", "--mtime=@0", "--numeric-owner"])
            .args(["--owner=0", "--group=0", "--use-compress-program=zstd -3"])
            .arg("--file")
            .arg(&archive)
            .arg("--directory")
            .arg(&root)
            .arg("."),
    )
    .await?;
    Ok(archive)
}
