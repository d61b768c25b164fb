//! A disk that a whole machine boots: the image as it was built, and a kernel, as a provider's bare Debian has one.
//!
//! The kernel is given to QEMU by hand, so there is no boot loader. Whoever runs a command inside comes through
//! a door that the initial file system opens: a unit in `/run`, and nothing on the disk.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use tidepool_coordinator::image::Built;
use tokio::process::Command;

use super::execute;

/// Of the disk's one partition: less than a machine's disk, so that it must grow at the first boot.
const PARTITION_MIB: u64 = 3000;
/// Where it begins.
const OFFSET_MIB: u64 = 1;
/// For the table's copy at the end.
const TAIL_MIB: u64 = 1;
/// What every machine has.
const MACHINE_GIB: u64 = 10;

const KERNEL: &str = "linux-image-cloud-amd64";

/// The door, as the recipe of an initial file system: where, with which mode, what.
const DOOR: &[(&str, u32, &str)] = &[
    ("hooks/door", 0o755, include_str!("door/hook.sh")),
    (
        "scripts/init-bottom/door",
        0o755,
        include_str!("door/open.sh"),
    ),
    ("door/door.sh", 0o644, include_str!("door/door.sh")),
    (
        "door/door.service",
        0o644,
        include_str!("door/door.service"),
    ),
];

/// What machines are started from.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    pub image: PathBuf,
    pub kernel: PathBuf,
    pub initrd: PathBuf,
}

impl Disk {
    /// Finds the image's disk in this directory, or makes it in `work`; only the last one is kept.
    pub(super) async fn of(
        built: &Built,
        scripts: &Path,
        kept: &Path,
        work: &Path,
    ) -> anyhow::Result<Self> {
        let dir = kept.join(format!("disk-{}", built.name));
        let disk = Self {
            image: dir.join("disk.raw"),
            kernel: dir.join("vmlinuz"),
            initrd: dir.join("initrd"),
        };
        if dir.is_dir() {
            return Ok(disk);
        }
        fs::create_dir_all(kept)?;
        for entry in fs::read_dir(kept)? {
            fs::remove_dir_all(entry?.path())?;
        }
        let partial = work.join("disk");
        fs::create_dir_all(&partial)?;
        let root = work.join("disk-root");
        unpack(&built.path, &root).await?;
        add_kernel(&root).await?;
        // What installing it left behind must be as little as of all else.
        for script in ["cleanup.sh", "verify.sh"] {
            execute(Command::new(scripts.join(script)).arg(&root)).await?;
        }
        take(&root, "vmlinuz", &partial.join("vmlinuz"))?;
        take(&root, "initrd.img", &partial.join("initrd"))?;
        lay(&root, &partial.join("disk.raw")).await?;
        fs::remove_dir_all(&root)?;
        // A directory of that name is whole.
        let beside = kept.join("partial");
        execute(
            Command::new("cp")
                .args(["--recursive", "--sparse=always"])
                .arg(&partial)
                .arg(&beside),
        )
        .await?;
        fs::rename(&beside, &dir)?;
        fs::remove_dir_all(&partial)?;
        Ok(disk)
    }

    /// A machine's own disk above this one.
    pub(super) async fn layer(&self, path: &Path) -> anyhow::Result<()> {
        execute(
            Command::new("qemu-img")
                .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
                .arg(&self.image)
                .arg(path)
                .arg(format!("{MACHINE_GIB}G")),
        )
        .await
    }
}

async fn unpack(archive: &Path, root: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(root)?;
    execute(
        Command::new("tar")
            .args(["--extract", "--numeric-owner", "--same-owner"])
            .args(["--preserve-permissions", "--xattrs", "--xattrs-include=*"])
            .args(["--zstd", "--file"])
            .arg(archive)
            .arg("--directory")
            .arg(root),
    )
    .await
}

/// As a provider's Debian has it.
async fn add_kernel(root: &Path) -> anyhow::Result<()> {
    let recipe = root.join("etc/initramfs-tools");
    for (path, mode, text) in DOOR {
        let path = recipe.join(path);
        fs::create_dir_all(path.parent().context("a folder")?)?;
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(*mode))?;
    }
    let script = format!(
        "export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq
        exec apt-get install -y -qq --no-install-recommends {KERNEL} initramfs-tools"
    );
    execute(
        Command::new("systemd-nspawn")
            .args(["--quiet", "--register=no", "--keep-unit", "--as-pid2"])
            .args(["--resolv-conf=copy-host", "--machine=tidepool-kernel"])
            .arg(format!("--directory={}", root.display()))
            .args(["/bin/sh", "-ec", &script]),
    )
    .await?;
    // A provider's says so too; without, the root stays read-only.
    fs::write(
        root.join("etc/fstab"),
        "/dev/sda1 / ext4 errors=remount-ro 0 1\n",
    )?;
    // It is in the initial file system by now, and not in the image.
    for (path, _, _) in DOOR {
        fs::remove_file(recipe.join(path))?;
    }
    Ok(())
}

/// Copies the newest of the kernel's files out.
fn take(root: &Path, name: &str, to: &Path) -> anyhow::Result<()> {
    let found = fs::read_dir(root.join("boot"))?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| {
            let file = path.file_name().and_then(|file| file.to_str());
            file.is_some_and(|file| file.starts_with(&format!("{name}-")))
        })
        .max();
    fs::copy(found.with_context(|| format!("no {name} in /boot"))?, to)?;
    Ok(())
}

/// A partition table and one file system, without a loop device.
async fn lay(root: &Path, disk: &Path) -> anyhow::Result<()> {
    let bytes = (OFFSET_MIB + PARTITION_MIB + TAIL_MIB) << 20;
    fs::File::create(disk)?.set_len(bytes)?;
    let script = format!(
        "printf 'label: gpt\\nstart={OFFSET_MIB}MiB, size={PARTITION_MIB}MiB\\n' | sfdisk --quiet \"$1\""
    );
    execute(Command::new("sh").args(["-c", &script, "sh"]).arg(disk)).await?;
    execute(
        Command::new("mke2fs")
            .args(["-q", "-F", "-t", "ext4", "-L", "root", "-d"])
            .arg(root)
            .args(["-E", &format!("offset={}", OFFSET_MIB << 20)])
            .arg(disk)
            .arg(format!("{PARTITION_MIB}M")),
    )
    .await?;
    ensure!(fs::metadata(disk)?.len() == bytes, "the disk has grown");
    Ok(())
}
