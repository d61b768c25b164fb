//! What a server goes through: its first boot, a customer, a reboot, a power cut, a cut cable, its end.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use futures_util::SinkExt as _;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::{
    BOOT_DEADLINE, Ground, Steps,
    network::Plug,
    vm::{Vm, until},
};
use crate::{
    customer::{Customer, next_json},
    fake_hetzner::Kind,
    inside::{Inside, Root as _, World},
    rack::SERVER_PORT,
};

/// For everything that is not a boot, on an emulated processor.
const PATIENCE: Duration = Duration::from_mins(10);
/// For an answer that may never come.
const ANSWER: Duration = Duration::from_secs(20);
/// A host out in the world.
const WORLD: u8 = 250;
/// Its file is the same as long as the server is.
const IDENTITY: &str = "sha256sum /var/lib/tidepool/identity/identity.json /etc/machine-id";
/// The gateway's container, by the agent's label.
const CONTAINER: &str = "docker ps --quiet --no-trunc --filter label=tidepool.server";

/// All of it, step by step.
pub(super) async fn run(ground: &Ground, steps: &Steps<'_>) -> anyhow::Result<()> {
    steps.step("a server is warm", warm(ground)).await?;
    for vm in ground.vms.all() {
        steps
            .step("its first boot in order", first_boot(ground, &vm))
            .await?;
    }
    let (alice, vm) = steps.step("claimed", claimed(ground)).await?;
    let owner = Customer::owner_of(&ground.main.api, &alice).await?;
    steps.step("chatted with", chats(&owner)).await?;
    steps
        .step("from inside the container", inside(ground, &vm))
        .await?;
    let before = Before {
        boot: boot(&vm).await?,
        identity: vm.run(IDENTITY).await?,
        alice,
        owner,
    };
    steps
        .step("rebooted", async {
            reboot(&vm).await;
            before.goes_on(ground, &vm).await
        })
        .await?;
    steps
        .step("its power cut", async {
            vm.cut_power().await?;
            vm.start(&ground.network).await?;
            before.goes_on(ground, &vm).await
        })
        .await?;
    steps
        .step("its cable pulled and put back", cable(ground, &vm, &before))
        .await?;
    let other = steps
        .step("another server is warm", other(ground, &vm))
        .await?;
    steps
        .step("its first boot in order", first_boot(ground, &other))
        .await?;
    steps
        .step("from inside the container to it", async {
            let address = ground.network.address(other.number);
            let inside = container_of(ground, &vm).await?;
            inside.neighbour(address, SERVER_PORT).await
        })
        .await?;
    steps.step("deleted", deleted(ground, &vm)).await
}

async fn warm(ground: &Ground) -> anyhow::Result<()> {
    let warm = |pool: &Value| {
        pool.pointer("/pools/0/warm")
            .and_then(Value::as_u64)
            .is_some_and(|warm| warm >= 1)
    };
    let waited = ground.main.api.until("/pool", BOOT_DEADLINE, warm);
    waited.await.map(drop)
}

/// What a server is after its first boot, unit by unit.
async fn first_boot(ground: &Ground, vm: &Vm) -> anyhow::Result<()> {
    until(
        vm,
        "systemctl is-system-running || systemctl --failed --no-legend",
        PATIENCE,
        |said| said == "running",
    )
    .await?;
    let address = ground.network.address(vm.number).to_string();
    let name = server_name(ground, &address)?;
    let cidr = format!("{address}/32");
    let confined = format!(
        "cat /proc/$(docker inspect --format '{{{{.State.Pid}}}}' $({CONTAINER}))/attr/current"
    );
    for (what, script, wanted) in [
        ("its name", "hostname", name.as_str()),
        (
            "cloud-init's source",
            "sed 's/.*: //; s/ .*//' /var/lib/cloud/instance/datasource",
            "DataSourceHetzner",
        ),
        (
            "its address",
            "ip -4 -o addr show eth0 scope global | sed 's/.*inet //; s/ .*//'",
            cidr.as_str(),
        ),
        (
            "control groups",
            "stat --file-system --format %T /sys/fs/cgroup",
            "cgroup2fs",
        ),
        (
            "AppArmor about the gateway",
            confined.as_str(),
            "docker-default (enforce)",
        ),
        (
            "the agent's watchdog",
            "systemctl show -P WatchdogUSec tidepool-agent",
            "30s",
        ),
    ] {
        let said = vm.run(script).await.with_context(|| what.to_owned())?;
        ensure!(said == wanted, "{what}: {said}, not {wanted}");
    }
    let size = "df --output=size --block-size=1M / | tail -n 1";
    let size: u64 = vm.run(size).await?.trim().parse()?;
    ensure!(size > 8000, "its disk has not grown: {size} MiB");
    // What the user data holds is for root alone, wherever cloud-init keeps it.
    let readable = "! find / -xdev -type f -perm /044 -newer /etc/hostname -print0 2>/dev/null |
        xargs -0 -r grep -l enrolment_token";
    vm.run(readable).await.context("user data for everybody")?;
    Ok(())
}

fn server_name(ground: &Ground, address: &str) -> anyhow::Result<String> {
    ground
        .fake
        .teller()
        .tell(address, "metadata/hostname")
        .context("a server of this address")
}

async fn claimed(ground: &Ground) -> anyhow::Result<(Value, Arc<Vm>)> {
    let api = &ground.main.api;
    let alice = api.create("alice", 60).await?;
    ensure!(alice["status"] == "running", "{alice}");
    ensure!(alice["warm"] == true, "{alice}");
    let pool = api.get("/pool").await?;
    let servers = pool["servers"].as_array().context("servers")?;
    let its = servers
        .iter()
        .find(|server| server["state"] == "claimed")
        .with_context(|| format!("a claimed server: {pool}"))?;
    let address = its["address"].as_str().context("its address")?;
    let vm = ground
        .vms
        .all()
        .into_iter()
        .find(|vm| ground.network.address(vm.number).to_string() == address)
        .with_context(|| format!("the machine of {address}"))?;
    Ok((alice, vm))
}

/// A turn whose model is asked through the server's relay and the proxy.
async fn chats(owner: &Customer) -> anyhow::Result<()> {
    let turns = async {
        loop {
            // To a gateway that the proxy takes for the pool's yet the model says only that it is ready.
            if turn(owner).await?.contains("demo model") {
                return anyhow::Ok(());
            }
            sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(PATIENCE, turns)
        .await
        .context("no reply of the model for customers")?
}

async fn turn(owner: &Customer) -> anyhow::Result<String> {
    let (mut socket, _) = owner.hello().await?;
    let say = json!({
        "type": "req", "id": "turn", "method": "chat.send",
        "params": {"sessionKey": "main", "message": "How are you?", "idempotencyKey": "turn"},
    });
    socket.send(Message::text(say.to_string())).await?;
    loop {
        let frame = next_json(&mut socket).await?;
        let state = frame.pointer("/payload/state").and_then(Value::as_str);
        match state {
            Some("final") => return Ok(frame.to_string()),
            Some("error" | "aborted") => anyhow::bail!("the turn ended badly: {frame}"),
            _ => {}
        }
    }
}

async fn inside(ground: &Ground, vm: &Vm) -> anyhow::Result<()> {
    let space = ground.network.host(WORLD).await?;
    let world = World::listen(&space, ground.network.address(WORLD))?;
    container_of(ground, vm).await?.check(&world).await
}

/// The pool has made one more by now, or will.
async fn other(ground: &Ground, vm: &Vm) -> anyhow::Result<Arc<Vm>> {
    warm(ground).await?;
    ground
        .vms
        .all()
        .into_iter()
        .find(|other| other.number != vm.number)
        .context("another server")
}

async fn container_of<'a>(ground: &Ground, vm: &'a Vm) -> anyhow::Result<Inside<'a>> {
    Ok(Inside {
        server: vm,
        address: ground.network.address(vm.number),
        container: vm.run(CONTAINER).await?,
        main: ground.network.address(1),
        main_port: ground.main.proxy_port(),
        answer_s: 20,
    })
}

/// Whoever answers may be gone before the answer is, which is no fault; whether it boots is looked at afterwards.
async fn reboot(vm: &Vm) {
    let asked = timeout(ANSWER, vm.run("systemctl --no-block reboot")).await;
    tracing::debug!(?asked, "asked for a reboot");
}

async fn boot(vm: &Vm) -> anyhow::Result<String> {
    vm.run("cat /proc/sys/kernel/random/boot_id").await
}

/// What must be the same afterwards.
struct Before {
    boot: String,
    identity: String,
    alice: Value,
    owner: Customer,
}

impl Before {
    /// Another boot of the same server, which serves the same customer.
    async fn goes_on(&self, ground: &Ground, vm: &Vm) -> anyhow::Result<()> {
        let another = |said: &str| !said.is_empty() && said != self.boot;
        let agent = "systemctl is-active --quiet tidepool-agent &&
            cat /proc/sys/kernel/random/boot_id";
        until(vm, agent, BOOT_DEADLINE, another).await?;
        ensure!(vm.run(IDENTITY).await? == self.identity, "another identity");
        let serves = |found: &Value| {
            found["id"] == self.alice["id"]
                && found["status"] == "running"
                && found["health"] == "ok"
        };
        let path = "/instances/alice";
        ground.main.api.until(path, PATIENCE, serves).await?;
        self.looks_in().await?;
        chats(&self.owner).await
    }

    /// That all is well may still be the word of the boot before.
    async fn looks_in(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !matches!(self.owner.is_owner().await, Ok(true)) {
            ensure!(Instant::now() < deadline, "the owner is not served");
            sleep(Duration::from_millis(500)).await;
        }
        Ok(())
    }
}

/// Nobody hears of the server for a while; it goes on as it was, with the same gateway.
async fn cable(ground: &Ground, vm: &Vm, before: &Before) -> anyhow::Result<()> {
    let api = &ground.main.api;
    let container = vm.run(CONTAINER).await?;
    ground.network.plug(vm.number, Plug::Out).await?;
    let unheard = |found: &Value| found["health"] != "ok";
    api.until("/instances/alice", PATIENCE, unheard).await?;
    ground.network.plug(vm.number, Plug::In).await?;
    let well = |found: &Value| found["status"] == "running" && found["health"] == "ok";
    api.until("/instances/alice", PATIENCE, well).await?;
    before.looks_in().await?;
    chats(&before.owner).await?;
    ensure!(vm.run(CONTAINER).await? == container, "another gateway");
    Ok(())
}

/// Its server and all that was made with it are gone from the provider.
async fn deleted(ground: &Ground, vm: &Vm) -> anyhow::Result<()> {
    ground.main.api.delete("/instances/alice").await?;
    let address = ground.network.address(vm.number).to_string();
    let deadline = Instant::now() + PATIENCE;
    while vm.is_on().await || server_name(ground, &address).is_ok() {
        ensure!(Instant::now() < deadline, "the server is still there");
        sleep(Duration::from_millis(200)).await;
    }
    let books = ground.fake.books();
    ensure!(books.existing(Kind::Firewall).count() <= 1, "firewalls");
    Ok(())
}
