//! Packer's own provisioners, run by Packer: over SSH, against a bare Debian that runs, as they are on Hetzner.
//!
//! Only the source is another (`null`: a machine that is there), since the fake provider's machines have no
//! image of Debian. The machine is systemd-nspawn's and shares this one's network, by which it reaches Debian's
//! packages; nothing of it is started by provisioning, which is a promise of the script's.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep},
};

use super::execute;
use crate::{deployment::free_port, programs};

/// For the machine to answer.
const PATIENCE: Duration = Duration::from_mins(5);

/// Provisions a bare Debian by the template in `scripts`.
pub(super) async fn provision(scripts: &Path, work: &Path) -> anyhow::Result<()> {
    let root = work.join("bare");
    let mut debootstrap = Command::new("debootstrap");
    debootstrap
        .arg("--variant=minbase")
        .arg("--include=ca-certificates,dbus,openssh-server,systemd-sysv")
        .arg("bookworm")
        .arg(&root)
        .arg("http://deb.debian.org/debian");
    execute(&mut debootstrap).await?;
    let (port, key) = (free_port()?, work.join("key"));
    let _machine = boot(&root, port, &key).await?;
    let file = work.join("tidepool.pkr.hcl");
    fs::write(&file, template(scripts, port, &key)?)?;
    let mut packer = Command::new("packer");
    packer
        .args(["build", "-color=false", "-var", "openclaw=none"])
        .arg("-var")
        .arg(format!(
            "agent={}",
            programs::program("tidepool-agent")?.display()
        ))
        .arg(&file)
        .env("HCLOUD_TOKEN", "none")
        .env("CHECKPOINT_DISABLE", "1")
        .env("HOME", work)
        .current_dir(work);
    execute(&mut packer).await?;
    // Its last script said so itself; from outside nothing is hidden by what still runs.
    execute(Command::new(scripts.join("verify.sh")).arg(&root)).await?;
    for gone in ["root/snapshot-image", "root/tidepool-agent", "root/.ssh"] {
        ensure!(!root.join(gone).exists(), "{gone} was left");
    }
    Ok(())
}

/// The template with another source.
fn template(scripts: &Path, port: u16, key: &Path) -> anyhow::Result<String> {
    let text = fs::read_to_string(scripts.join("packer/tidepool.pkr.hcl"))?;
    let (before, rest) = text
        .split_once("source \"hcloud\" \"tidepool\" {")
        .context("its source")?;
    let (_, after) = rest.split_once("\n}\n").context("its source's end")?;
    let source = format!(
        "source \"null\" \"tidepool\" {{
  communicator         = \"ssh\"
  ssh_host             = \"127.0.0.1\"
  ssh_port             = {port}
  ssh_username         = \"root\"
  ssh_private_key_file = \"{}\"
}}\n",
        key.display()
    );
    let after = after
        .replace("source.hcloud.tidepool", "source.null.tidepool")
        .replace(
            "${path.root}/../../snapshot-image",
            &scripts.display().to_string(),
        );
    Ok(format!("{before}{source}{after}"))
}

/// A bare Debian with an SSH server, as a provider's is.
async fn boot(root: &Path, port: u16, key: &Path) -> anyhow::Result<Child> {
    execute(
        Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(key),
    )
    .await?;
    let settings = root.join("etc/ssh/sshd_config.d/bare.conf");
    fs::write(settings, format!("ListenAddress 127.0.0.1:{port}\n"))?;
    let ssh = root.join("root/.ssh");
    fs::create_dir_all(&ssh)?;
    let public: PathBuf = key.with_extension("pub");
    fs::copy(public, ssh.join("authorized_keys"))?;
    let mut machine = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "systemd-nspawn", "--quiet"])
        .args(["--register=no", "--keep-unit", "--resolv-conf=copy-host"])
        .args(["--capability=all", "--system-call-filter=@keyring bpf"])
        .args(["--machine=tidepool-bare", "--boot", "--console=pipe"])
        .arg(format!("--directory={}", root.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("run systemd-nspawn")?;
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(at).await.is_err() {
        if let Some(status) = machine.try_wait()? {
            bail!("the bare machine ended: {status}");
        }
        ensure!(Instant::now() < deadline, "nobody answers at {at}");
        sleep(Duration::from_millis(200)).await;
    }
    Ok(machine)
}
