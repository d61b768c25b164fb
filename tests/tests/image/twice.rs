//! The provisioning script may be run again on what it has made, and changes nothing. Needs Debian's mirror, as a build does.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tidepool_coordinator::{
    cloud::nspawn::unpack,
    image::{self, MANIFEST, OpenClaw, Recipe},
};
use tidepool_shared::manifest::ImageManifest;
use tidepool_tests::rack;
use tokio::process::Command;

/// Everything below a directory: mode, owner, content.
type Tree = BTreeMap<PathBuf, String>;

fn tree(root: &Path) -> anyhow::Result<Tree> {
    let mut found = Tree::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let below = path.strip_prefix(root)?.to_owned();
            let meta = fs::symlink_metadata(&path)?;
            let content =
                content(root, &below, &meta).with_context(|| below.display().to_string())?;
            let [mode, user, group] = [meta.mode(), meta.uid(), meta.gid()];
            if meta.is_dir() {
                directories.push(path);
            }
            found.insert(below, format!("{mode:o} {user}:{group} {content}"));
        }
    }
    Ok(found)
}

fn content(root: &Path, below: &Path, meta: &fs::Metadata) -> anyhow::Result<String> {
    let path = root.join(below);
    if meta.is_symlink() {
        return Ok(format!("-> {}", fs::read_link(path)?.display()));
    }
    if meta.is_dir() {
        return Ok("directory".to_owned());
    }
    if !meta.is_file() {
        return Ok(format!("device {}", meta.rdev()));
    }
    // Databases of Docker's: each start of its engine writes into them.
    if below.starts_with("var/lib/docker") && below.extension().is_some_and(|it| it == "db") {
        return Ok("database".to_owned());
    }
    // It says when it was written.
    if below == Path::new(MANIFEST) {
        let mut manifest: Value = serde_json::from_slice(&fs::read(path)?)?;
        manifest["build"]["built_at"].take();
        return Ok(manifest.to_string());
    }
    let mut sha256 = Sha256::new();
    io::copy(&mut File::open(path)?, &mut sha256)?;
    Ok(format!("{} bytes, {:x}", meta.len(), sha256.finalize()))
}

/// What is not the same in both, and how it was and is.
fn differences(before: &Tree, after: &Tree) -> Vec<String> {
    let paths: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    paths
        .into_iter()
        .filter(|path| before.get(*path) != after.get(*path))
        .map(|path| {
            let [was, is] = [before, after].map(|tree| tree.get(path));
            format!("{}: {was:?}, {is:?}", path.display())
        })
        .collect()
}

/// The installed packages and their versions.
fn packages(root: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let status = fs::read_to_string(root.join("var/lib/dpkg/status"))?;
    let package = |paragraph: &str| {
        let field = |name: &str| {
            let value = paragraph.lines().find_map(|line| line.strip_prefix(name));
            value.map(str::to_owned)
        };
        Some((field("Package: ")?, field("Version: ")?))
    };
    Ok(status.split("\n\n").filter_map(package).collect())
}

async fn run(mut command: Command) -> anyhow::Result<()> {
    let output = command.output().await?;
    ensure!(output.status.success(), "{command:?}: {output:?}");
    Ok(())
}

/// The script, and what comes after it in every build.
async fn provision(recipe: &Recipe, name: &str, root: &Path) -> anyhow::Result<()> {
    run(image::provisioning(recipe, name, root)).await?;
    for script in ["cleanup.sh", "verify.sh"] {
        let mut command = Command::new(recipe.scripts.join(script));
        command.arg(root);
        run(command).await?;
    }
    Ok(())
}

#[tokio::test]
async fn provisioning_what_is_provisioned_changes_nothing() -> anyhow::Result<()> {
    let (dir, settings) = rack::place(&rack::image()?, "twice")?;
    let (name, root) = unpack(&settings).await?;
    let manifest: ImageManifest = serde_json::from_slice(&fs::read(root.join(MANIFEST))?)?;
    let [agent, archive] = ["agent", "archive"].map(|name| dir.path().join(name));
    fs::copy(root.join("usr/local/bin/tidepool-agent"), &agent)?;
    // Whoever opens it has not seen that OpenClaw is there, and fails.
    fs::write(&archive, "")?;
    let recipe = Recipe {
        scripts: Path::new(env!("CARGO_MANIFEST_DIR")).join("../snapshot-image"),
        agent,
        openclaw: match manifest.container {
            Some(_) => OpenClaw::Archive(archive),
            None => OpenClaw::Absent,
        },
        release_keys: manifest.release_keys,
        directory: dir.path().to_owned(),
    };

    let (mut before, installed) = (tree(&root)?, packages(&root)?);
    ensure!(installed.contains_key("nginx-light"), "{installed:?}");
    provision(&recipe, &name, &root).await?;
    let now = packages(&root)?;
    if now != installed {
        // Debian has released something since the image was built: only versions, and only once.
        ensure!(now.keys().eq(installed.keys()), "{installed:?}, {now:?}");
        before = tree(&root)?;
        provision(&recipe, &name, &root).await?;
    }
    let differences = differences(&before, &tree(&root)?);
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(())
}
