//! The whole path with the gateway in a container: create, claim, configuration, restart, what dies
//! in between, delete. By default with the stub; in the slow suite with the real OpenClaw and a chat.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::SinkExt as _;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reqwest::Method;
use serde_json::{Value, json};
use tidepool_tests::{
    api::Api,
    customer::{Customer, Socket, next_json},
    deployment::{Deployment, Options},
    docker::{Engine, MEMORY_MIB},
    programs,
};
use tokio::time::{Instant, sleep};
use tokio_tungstenite::tungstenite::Message;

/// A real gateway on two busy cores.
const PATIENCE: Duration = Duration::from_mins(4);
/// Until the proxy must have heard whose server it is.
const TURNS_MAX: u32 = 10;

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn one_server() -> Options {
    Options {
        pool_size: 1,
        max_servers: 1,
        ..Options::default()
    }
}

#[tokio::test]
async fn an_agent_in_a_container_lives_its_whole_life() -> anyhow::Result<()> {
    let Some(engine) = Engine::start().await? else {
        return Ok(());
    };
    let options = Options {
        container: Some(engine.manifest(engine.stub_image()?)),
        ..one_server()
    };
    let mut tidepool = Deployment::start("container", options).await?;
    let api = tidepool.api()?;
    api.until("/pool", PATIENCE, is_warm).await?;
    let container = the_container(&engine)?;
    let alice = claimed(&api).await?;
    ensure!(
        the_container(&engine)? == container,
        "a claim touched the gateway"
    );
    is_configured(&api, &alice).await?;
    is_restarted(&api, &alice).await?;
    ensure!(
        the_container(&engine)? == container,
        "a restart made a new container"
    );

    the_agent_dies(&tidepool, &api).await?;
    ensure!(
        the_container(&engine)? == container,
        "another agent, another container"
    );
    the_gateway_dies(&engine, &container).await?;
    let well = |instance: &Value| text(instance, "health") == "ok";
    api.until("/instances/alice", PATIENCE, well).await?;
    ensure!(Customer::owner_of(&api, &alice).await?.is_owner().await?);
    is_told_what_it_takes(&api).await?;

    is_deleted(&api, &engine, &the_container(&engine)?).await?;
    tidepool.stop().await?;
    ensure!(engine.ours()?.is_empty(), "containers were left");
    let networks = ["network", "ls", "--quiet", "--filter", "type=custom"];
    ensure!(engine.docker(&networks)?.is_empty(), "networks were left");
    Ok(())
}

/// Prints what starting it takes, in seconds and mebibytes.
#[tokio::test]
async fn slow_real_openclaw_in_a_container_is_claimed_and_chats() -> anyhow::Result<()> {
    let Some(archive) = programs::container_archive() else {
        return Ok(());
    };
    let Some(engine) = Engine::start().await? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let container = engine.manifest(engine.import(&archive)?);
    let Some(manifest) = programs::real_image_in_container(folder.path(), container)? else {
        eprintln!("SKIPPED: TIDEPOOL_OPENCLAW_MANIFEST is not set; run `./tidepool test-slow`");
        return Ok(());
    };
    let options = Options {
        manifest: Some(manifest),
        ..one_server()
    };
    let mut tidepool = Deployment::start("container-real", options).await?;
    let api = tidepool.api()?;
    api.until("/pool", PATIENCE, is_warm).await?;
    let container = the_container(&engine)?;
    print_figures(&tidepool, &engine, &container, "warm")?;
    let alice = claimed(&api).await?;
    eprintln!(
        "claim, milliseconds: {}",
        alice.get("timings_ms").unwrap_or(&Value::Null)
    );
    ensure!(
        the_container(&engine)? == container,
        "a claim touched the gateway"
    );
    chats(&api, &alice, "first").await?;
    is_configured(&api, &alice).await?;
    is_restarted(&api, &alice).await?;
    chats(&api, &alice, "second").await?;
    ensure!(
        the_container(&engine)? == container,
        "a restart made a new container"
    );
    print_figures(&tidepool, &engine, &container, "after two turns")?;

    is_deleted(&api, &engine, &container).await?;
    tidepool.stop().await?;
    ensure!(engine.ours()?.is_empty(), "containers were left");
    Ok(())
}

fn is_warm(pool: &Value) -> bool {
    pool.pointer("/servers/0/state").and_then(Value::as_str) == Some("warm")
}

/// The only container of ours: its id, and when it was made.
fn the_container(engine: &Engine) -> anyhow::Result<String> {
    let ours = engine.ours()?;
    ensure!(ours.len() == 1, "containers: {ours:?}");
    ours.into_iter().next().context("one container")
}

async fn claimed(api: &Api) -> anyhow::Result<Value> {
    let alice = api.create("alice", 60).await?;
    ensure!(text(&alice, "status") == "running", "{alice}");
    ensure!(alice.get("warm") == Some(&json!(true)), "{alice}");
    let owner = Customer::owner_of(api, &alice).await?;
    ensure!(owner.is_owner().await?, "the owner was not let in");
    let stranger = Customer::at(text(&alice, "url"))?;
    ensure!(!stranger.is_owner().await?, "a stranger was let in");
    Ok(alice)
}

/// The customer's configuration is the gateway's, by its own word to its owner.
async fn is_configured(api: &Api, alice: &Value) -> anyhow::Result<()> {
    let path = format!("/instances/{}/config", text(alice, "id"));
    let named = json!({"agents": {"entries": {"main": {"identity": {"name": "Ada"}}}}});
    let (status, answer) = api.send(Method::PATCH, &path, &[], Some(&named)).await?;
    ensure!(status.is_success(), "{status}: {answer}");
    let at_rest = |instance: &Value| {
        instance.get("observed_generation") == instance.get("generation")
            && text(instance, "health") == "ok"
    };
    api.until("/instances/alice", PATIENCE, at_rest).await?;
    let owner = Customer::owner_of(api, alice).await?;
    let told = owner.request("/control-ui-config.json").send().await?;
    let told: Value = serde_json::from_slice(&told.bytes().await?)?;
    ensure!(text(&told, "assistantName") == "Ada", "{told}");
    Ok(())
}

async fn is_restarted(api: &Api, alice: &Value) -> anyhow::Result<()> {
    let path = format!("/instances/{}/restart", text(alice, "id"));
    let asked = api.post(&path, &json!({})).await?;
    let operation = asked.pointer("/operation/id").and_then(Value::as_str);
    let path = format!("/operations/{}", operation.context("an operation")?);
    let is_over = |operation: &Value| matches!(text(operation, "state"), "succeeded" | "failed");
    let over = api.until(&path, PATIENCE, is_over).await?;
    ensure!(text(&over, "state") == "succeeded", "{over}");
    let by_force = over.to_string().contains("restart_by_force");
    ensure!(!by_force, "not by signal: {over}");
    Ok(())
}

/// Killed like that it takes nothing along, and the next one finds all as it was.
async fn the_agent_dies(tidepool: &Deployment, api: &Api) -> anyhow::Result<()> {
    let starts = gateway_starts(&api.get("/pool").await?);
    let before = tidepool.programs("tidepool-agent");
    for agent in &before {
        kill(Pid::from_raw(*agent), Signal::SIGKILL)?;
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = tidepool.programs("tidepool-agent");
        if !now.is_empty() && now.is_disjoint(&before) {
            break;
        }
        ensure!(Instant::now() < deadline, "no agent was started");
        sleep(Duration::from_millis(50)).await;
    }
    let well = |instance: &Value| text(instance, "health") == "ok";
    api.until("/instances/alice", PATIENCE, well).await?;
    let pool = api.get("/pool").await?;
    ensure!(
        gateway_starts(&pool) == starts,
        "the gateway was started again: {pool}"
    );
    Ok(())
}

fn gateway_starts(pool: &Value) -> Option<u64> {
    pool.pointer("/servers/0/gateway_starts")
        .and_then(Value::as_u64)
}

/// Docker starts it again, or the agent makes another if it looks in between.
async fn the_gateway_dies(engine: &Engine, container: &str) -> anyhow::Result<()> {
    let pid = |container: &str| engine.inspect(container, "{{.State.Pid}}");
    let before = pid(container)?;
    kill(Pid::from_raw(before.parse()?), Signal::SIGKILL)?;
    let deadline = Instant::now() + PATIENCE;
    // While one takes the other's place there may be none.
    while !the_container(engine)
        .and_then(|container| pid(&container))
        .is_ok_and(|pid| pid != "0" && pid != before)
    {
        ensure!(Instant::now() < deadline, "not started again");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// By its agent, with the instance and with the pool's servers.
async fn is_told_what_it_takes(api: &Api) -> anyhow::Result<()> {
    let takes = |stats: Option<&Value>| {
        let number = |path| stats?.pointer(path)?.as_u64();
        let limit = u64::from(MEMORY_MIB) << 20;
        number("/gateway/memory_bytes").is_some_and(|taken| (1..limit).contains(&taken))
            && number("/gateway/memory_limit_bytes") == Some(limit)
            && number("/gateway/pids").is_some_and(|pids| pids > 0)
            && number("/host/disk_free_bytes").is_some_and(|free| free > 0)
    };
    let told = |instance: &Value| takes(instance.get("stats"));
    api.until("/instances/alice", PATIENCE, told).await?;
    let pool = api.get("/pool").await?;
    ensure!(takes(pool.pointer("/servers/0/stats")), "{pool}");
    Ok(())
}

async fn is_deleted(api: &Api, engine: &Engine, container: &str) -> anyhow::Result<()> {
    api.delete("/instances/alice").await?;
    let deadline = Instant::now() + PATIENCE;
    while engine.ours()?.iter().any(|id| id == container) {
        ensure!(Instant::now() < deadline, "the container is still there");
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Speaks until the demo model answers a customer through the proxy; to a gateway that it takes for the
/// pool's yet it says only that it is ready.
async fn chats(api: &Api, alice: &Value, about: &str) -> anyhow::Result<()> {
    let owner = Customer::owner_of(api, alice).await?;
    let (mut socket, _) = owner.hello().await?;
    for turn in 0..TURNS_MAX {
        let reply = turn_of(&mut socket, &format!("{about}-{turn}")).await?;
        if reply.contains("demo model") {
            return Ok(());
        }
        ensure!(reply.contains("Ready."), "{reply}");
    }
    anyhow::bail!("the proxy does not know the customer after {TURNS_MAX} turns")
}

/// Says something and waits for the end of the reply.
async fn turn_of(socket: &mut Socket, turn: &str) -> anyhow::Result<String> {
    let say = json!({
        "type": "req", "id": turn, "method": "chat.send",
        "params": {"sessionKey": "main", "message": "How are you?", "idempotencyKey": turn},
    });
    socket.send(Message::text(say.to_string())).await?;
    loop {
        let frame = next_json(socket).await?;
        let is_refusal = text(&frame, "id") == turn && frame.get("ok") != Some(&json!(true));
        ensure!(!is_refusal, "chat.send was refused: {frame}");
        let state = frame.pointer("/payload/state").and_then(Value::as_str);
        match (text(&frame, "event"), state) {
            ("chat", Some("final")) => return Ok(frame.to_string()),
            ("chat", Some("error" | "aborted")) => anyhow::bail!("the turn ended badly: {frame}"),
            _ => {}
        }
    }
}

/// One line a figure.
fn print_figures(
    tidepool: &Deployment,
    engine: &Engine,
    container: &str,
    when: &str,
) -> anyhow::Result<()> {
    let used = engine.docker(&[
        "stats",
        "--no-stream",
        "--format",
        "{{.MemUsage}}, {{.PIDs}} tasks",
        container,
    ])?;
    eprintln!("memory, {when}: {used}");
    for agent in tidepool.programs("tidepool-agent") {
        let status = std::fs::read_to_string(format!("/proc/{agent}/status"))?;
        let rss = status.lines().find(|line| line.starts_with("VmRSS"));
        eprintln!("agent, {when}: {}", rss.unwrap_or_default());
    }
    let server = tidepool.servers().pop().context("the only server")?;
    let log = std::fs::read_to_string(server.join("agent.log"))?;
    let steps = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    for step in steps.filter_map(|line| line.get("fields").cloned()) {
        if let (Some(name), Some(took)) = (step["step"].as_str(), step.get("duration_ms")) {
            eprintln!("{name}, {when}: {took} ms");
        }
    }
    Ok(())
}
