//! One whole machine: QEMU, with a disk and a cable of its own, which says that it is Hetzner's.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    process::{Child, Command},
    sync::Mutex,
    time::{sleep, timeout},
};

use super::{Accelerator, disk::Disk, network::Network};
use crate::inside::Root;

/// For a command inside; a machine that boots answers later.
const PATIENCE: Duration = Duration::from_mins(6);
/// What the smallest servers have less of than this, and what the agent leaves of it is enough for a stub.
const MEMORY_MIB: u32 = 1536;

/// A machine, on or off. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Vm {
    dir: PathBuf,
    /// The provider's id of it.
    id: u64,
    /// Its place at the switch.
    pub number: u8,
    disk: Disk,
    accelerator: Accelerator,
    running: Mutex<Option<Child>>,
    asked: AtomicU64,
}

impl Vm {
    /// Makes one that is off.
    pub(super) async fn make(
        dir: PathBuf,
        id: u64,
        number: u8,
        disk: Disk,
        accelerator: Accelerator,
    ) -> anyhow::Result<Self> {
        fs::create_dir_all(&dir)?;
        disk.layer(&dir.join("disk.qcow2")).await?;
        Ok(Self {
            dir,
            id,
            number,
            disk,
            accelerator,
            running: Mutex::default(),
            asked: AtomicU64::default(),
        })
    }

    /// Switches it on.
    pub(super) async fn start(&self, network: &Network) -> anyhow::Result<()> {
        let mut running = self.running.lock().await;
        if let Some(child) = running.as_mut()
            && child.try_wait()?.is_none()
        {
            return Ok(());
        }
        let cable = network.tap(self.number).await?;
        *running = Some(self.command(network, &cable)?.spawn().context("run QEMU")?);
        Ok(())
    }

    fn command(&self, network: &Network, cable: &str) -> anyhow::Result<Command> {
        let log = fs::File::options()
            .append(true)
            .create(true)
            .open(self.dir.join("qemu.log"))?;
        let mut command = network.inside("setpriv");
        // It ends with this process, however that ends.
        command
            .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
            .args(["-nodefaults", "-no-user-config", "-display", "none"])
            .args(self.accelerator.arguments())
            .args(["-smp", "2", "-m", &MEMORY_MIB.to_string()])
            .arg("-kernel")
            .arg(&self.disk.kernel)
            .arg("-initrd")
            .arg(&self.disk.initrd)
            .args(["-append", "root=/dev/sda1 ro console=ttyS0 net.ifnames=0"])
            .args([
                "-device",
                "virtio-scsi-pci",
                "-device",
                "scsi-hd,drive=disk",
            ])
            .arg("-drive")
            .arg(format!(
                "if=none,id=disk,format=qcow2,cache=unsafe,file={}",
                self.dir.join("disk.qcow2").display()
            ))
            .arg("-netdev")
            .arg(format!("tap,id=net,ifname={cable},script=no,downscript=no"))
            .arg("-device")
            .arg(format!(
                "virtio-net-pci,netdev=net,mac={}",
                Network::mac(self.number)
            ))
            .args(["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"])
            .arg("-chardev")
            .arg(format!(
                "socket,id=door,server=on,wait=off,path={}",
                self.door().display()
            ))
            .args(["-device", "virtserialport,chardev=door,name=tidepool.door"])
            .arg("-chardev")
            .arg(format!(
                "file,id=console,append=on,path={}",
                self.console().display()
            ))
            .args(["-serial", "chardev:console"])
            .arg("-smbios")
            .arg(format!(
                "type=1,manufacturer=Hetzner,product=vServer,serial={}",
                self.id
            ))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        Ok(command)
    }

    /// What a plug that is pulled does.
    pub(super) async fn cut_power(&self) -> anyhow::Result<()> {
        if let Some(mut child) = self.running.lock().await.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// Whether it is on.
    pub(super) async fn is_on(&self) -> bool {
        let mut running = self.running.lock().await;
        running
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// The end of what it said while it booted.
    pub(super) fn last_words(&self) -> String {
        let words = |path: &Path| {
            let said = fs::read(path).unwrap_or_default();
            let from = said.len().saturating_sub(3000);
            String::from_utf8_lossy(said.get(from..).unwrap_or_default()).into_owned()
        };
        words(&self.dir.join("qemu.log")) + &words(&self.console())
    }

    fn door(&self) -> PathBuf {
        self.dir.join("door")
    }

    fn console(&self) -> PathBuf {
        self.dir.join("console.log")
    }

    async fn ask(&self, script: &str) -> anyhow::Result<(i32, String)> {
        let id = self.asked.fetch_add(1, Ordering::Relaxed).to_string();
        let mut door = BufReader::new(UnixStream::connect(self.door()).await?);
        let question = format!("{id} {}\n", STANDARD.encode(script));
        door.write_all(question.as_bytes()).await?;
        let mut line = String::new();
        loop {
            line.clear();
            ensure!(door.read_line(&mut line).await? > 0, "the machine is gone");
            let mut words = line.split_whitespace();
            // An answer that nobody waited for may come first.
            if words.next() != Some(&id) {
                continue;
            }
            let status = words.next().context("a status")?.parse()?;
            let said = STANDARD.decode(words.next().unwrap_or_default())?;
            return Ok((status, String::from_utf8_lossy(&said).trim().to_owned()));
        }
    }
}

#[async_trait]
impl Root for Vm {
    async fn run(&self, script: &str) -> anyhow::Result<String> {
        let (status, said) = timeout(PATIENCE, self.ask(script))
            .await
            .with_context(|| format!("`{script}` takes too long"))??;
        ensure!(status == 0, "`{script}`: {status}\n{said}");
        Ok(said)
    }
}

/// Whether this machine's processor can lend itself: a kernel that is given nothing to do panics within seconds.
/// A device that is there is no proof, for on nested machines it may boot nothing.
pub(super) async fn can_lend(disk: &Disk) -> bool {
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-no-reboot", "-m", "512"])
        .args(Accelerator::Kvm.arguments())
        .arg("-kernel")
        .arg(&disk.kernel)
        .args(["-append", "panic=-1"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let ended = timeout(Duration::from_secs(20), command.status()).await;
    matches!(ended, Ok(Ok(status)) if status.success())
}

/// Runs a command until it prints what satisfies; a machine that does not answer yet is waited for.
pub(super) async fn until(
    vm: &Vm,
    script: &str,
    patience: Duration,
    satisfied: impl Fn(&str) -> bool,
) -> anyhow::Result<String> {
    let mut last = String::new();
    let asking = async {
        loop {
            // A question that a reboot swallowed is never answered.
            let answer = timeout(Duration::from_mins(1), vm.run(script)).await;
            match answer {
                Ok(Ok(said)) if satisfied(&said) => return Ok(said),
                Ok(Ok(said)) => last = said,
                Ok(Err(error)) => last = format!("{error:#}"),
                Err(_) => "no answer".clone_into(&mut last),
            }
            if !vm.is_on().await {
                bail!("the machine is off: {last}\n{}", vm.last_words());
            }
            sleep(Duration::from_millis(500)).await;
        }
    };
    match timeout(patience, asking).await {
        Ok(answer) => answer,
        Err(_) => bail!("`{script}` was not satisfied: {last}\n{}", vm.last_words()),
    }
}
