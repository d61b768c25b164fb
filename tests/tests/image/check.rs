//! The image's own check: clean as built, and every kind of thing that must not be in an image is found.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context as _, ensure};
use tidepool_coordinator::cloud::nspawn::unpack;
use tidepool_tests::rack;

/// A file that must not be there, what is in it, and what is said of it.
const PLANTED: &[(&str, &str, &str)] = &[
    (
        "etc/machine-id",
        "0123456789abcdef0123456789abcdef\n",
        "machine id",
    ),
    ("etc/hostname", "server-1\n", "identity of a server"),
    (
        "var/lib/tidepool/identity/identity.json",
        "{}",
        "identity of a server",
    ),
    ("run/tidepool/user-data.json", "{}", "identity of a server"),
    ("var/lib/cloud/instance/user-data.txt", "{}", "user data"),
    ("etc/ssh/ssh_host_ed25519_key", "key", "SSH host key"),
    ("var/lib/docker/engine-id", "id", "identity of Docker"),
    (
        "var/lib/docker/containers/ab/config.v2.json",
        "{}",
        "identity of Docker",
    ),
    (
        "var/lib/docker/volumes/v/_data/openclaw.json",
        "{}",
        "state of OpenClaw",
    ),
    ("root/.openclaw/openclaw.json", "{}", "state of OpenClaw"),
    ("var/lib/systemd/random-seed", "seed", "randomness"),
    ("var/lib/systemd/credential.secret", "secret", "randomness"),
    ("var/lib/fail2ban/fail2ban.sqlite3", "", "bans"),
    ("root/.ssh/authorized_keys", "ssh-ed25519 AAAA", "way in"),
    ("usr/sbin/sshd", "", "way in"),
    ("root/.docker/config.json", "{}", "credential"),
    (
        "etc/tidepool/tls.key",
        "-----BEGIN EC PRIVATE KEY-----\n",
        "private key or token",
    ),
    (
        "opt/notes",
        "{\"enrolment_token\": \"00\"}",
        "private key or token",
    ),
    (
        "etc/environment",
        concat!(
            "HCLOUD_TOKEN=",
            "0123456789abcdef0123456789abcdef",
            "0123456789abcdef0123456789abcdef\n"
        ),
        "private key or token",
    ),
    (
        "usr/local/etc/env",
        concat!("KEY=sk-", "ant-", "0123456789abcdef0123\n"),
        "private key or token",
    ),
    ("var/log/syslog", "line\n", "log"),
    (
        "var/lib/apt/lists/deb.debian.org_Release",
        "",
        "package list",
    ),
    ("tmp/left", "", "temporary file"),
    ("root/.bash_history", "passwd\n", "history"),
    ("usr/sbin/policy-rc.d", "", "left over"),
    ("usr/bin/unattended-upgrade", "", "unattended upgrades"),
];

fn verify(root: &Path) -> anyhow::Result<Output> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../snapshot-image/verify.sh");
    Ok(Command::new(script).arg(root).output()?)
}

fn faults(root: &Path) -> anyhow::Result<String> {
    let output = verify(root)?;
    ensure!(!output.status.success(), "nothing was found");
    Ok(String::from_utf8(output.stderr)?)
}

/// Puts a file in, and takes it and the folders that it needed out again.
struct Planted {
    path: PathBuf,
    before: Option<Vec<u8>>,
    made: Option<PathBuf>,
}

impl Planted {
    fn put(root: &Path, name: &str, content: &str) -> anyhow::Result<Self> {
        let path = root.join(name);
        let made = path
            .ancestors()
            .skip(1)
            .take_while(|dir| !dir.exists())
            .last();
        let made = made.map(Path::to_owned);
        fs::create_dir_all(path.parent().context("a folder")?)?;
        let before = path.exists().then(|| fs::read(&path)).transpose()?;
        fs::write(&path, content)?;
        Ok(Self { path, before, made })
    }

    fn take_out(self) -> anyhow::Result<()> {
        match (self.before, self.made) {
            (Some(before), _) => fs::write(self.path, before)?,
            (None, Some(made)) => fs::remove_dir_all(made)?,
            (None, None) => fs::remove_file(self.path)?,
        }
        Ok(())
    }
}

#[tokio::test]
async fn whatever_an_image_must_not_hold_is_found_and_fails_the_build() -> anyhow::Result<()> {
    let (_dir, settings) = rack::place(&rack::image()?, "check")?;
    let (_, root) = unpack(&settings).await?;
    let clean = verify(&root)?;
    ensure!(clean.status.success(), "{clean:?}");
    for (name, content, said) in PLANTED {
        let planted = Planted::put(&root, name, content)?;
        let found = faults(&root).context(*name)?;
        ensure!(found.contains(said), "{name}: {found}");
        ensure!(found.contains("1 fault(s)"), "{name} alone: {found}");
        planted.take_out()?;
    }
    let shadow = root.join("etc/shadow");
    let before = fs::read_to_string(&shadow)?;
    fs::write(&shadow, before.replacen("root:*:", "root:$y$j9T$aa:", 1))?;
    ensure!(faults(&root)?.contains("password of root"));
    fs::write(&shadow, before)?;
    for missing in [
        "usr/local/bin/tidepool-agent",
        "usr/share/tidepool/manifest.json",
        "etc/systemd/system/multi-user.target.wants/tidepool-agent.service",
        "etc/systemd/system/multi-user.target.wants/tidepool-networks.path",
        "etc/systemd/system/nftables.service.wants/tidepool-networks.service",
        "etc/systemd/system/nginx.service",
    ] {
        let (path, aside) = (root.join(missing), root.join("aside"));
        fs::rename(&path, &aside)?;
        faults(&root).context(missing)?;
        fs::rename(&aside, &path)?;
    }
    ensure!(verify(&root)?.status.success(), "everything is as it was");
    Ok(())
}
