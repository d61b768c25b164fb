//! What is true of a gateway in a container only.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, symlink},
    process::Command,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use tidepool_agent::{
    openclaw::{Stage, neutral},
    reload::{ApplyFailed, How, Outcome},
    runtime::{DockerRuntime, Runtime as _, Started, State, Stopped},
};
use tidepool_shared::document::GatewayLimits;
use tidepool_tests::docker::Hang;
use tokio::time::{Instant, sleep};

use crate::{SHORT, bench::Bench, sentences};

const PATIENCE: Duration = Duration::from_secs(30);

/// The gateway's container, which is the only one of ours.
fn container(bench: &Bench) -> String {
    let ours = bench.engine().ours().expect("a list");
    assert_eq!(ours.len(), 1, "{ours:?}");
    ours.into_iter().next().expect("one container")
}

fn inspect(bench: &Bench, template: &str) -> String {
    let told = bench.engine().inspect(&container(bench), template);
    told.expect("the container")
}

/// What a shell in the container prints, or that it failed.
fn shell(bench: &Bench, words: &str) -> anyhow::Result<String> {
    let container = container(bench);
    bench
        .engine()
        .docker(&["exec", &container, "/bin/sh", "-c", words])
}

#[tokio::test]
async fn a_customer_in_the_container_has_no_power_over_the_machine() {
    let Some(bench) = Bench::stub_in_container(&[]).await else {
        return;
    };
    let status = shell(
        &bench,
        "while read -r line; do echo \"$line\"; done </proc/self/status",
    );
    let status = status.expect("a shell");
    for line in [
        "Uid:\t1000\t1000\t1000\t1000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(status.contains(line), "{line}: {status}");
    }
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let none = format!("{set}:\t0000000000000000");
        assert!(status.contains(&none), "{none}: {status}");
    }
    for path in [
        "/x",
        "/etc/x",
        "/var/log/x",
        "/bin/sh",
        "/proc/sys/kernel/hostname",
    ] {
        let written = shell(&bench, &format!("echo x >{path}"));
        assert!(written.is_err(), "{path} was written");
    }
    for path in ["/tmp/x", "/home/node/x", "/home/node/.openclaw/x"] {
        shell(&bench, &format!("echo x >{path}")).expect("a place of its own");
    }
    for socket in ["/var/run/docker.sock", "/run/docker.sock"] {
        assert!(
            shell(&bench, &format!("[ -e {socket} ]")).is_err(),
            "{socket}"
        );
    }
    let limits = inspect(
        &bench,
        "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.PidsLimit}} {{.HostConfig.Privileged}}",
    );
    let memory = u64::from(bench.run().manifest.memory_mib.expect("a limit")) << 20;
    assert_eq!(limits, format!("{memory} {memory} 512 false"));
    assert_ne!(inspect(&bench, "{{.HostConfig.NanoCpus}}"), "0");
    let published = inspect(&bench, "{{json .NetworkSettings.Ports}}");
    let address = bench.place.gateway;
    let expected =
        json!({"18789/tcp": [{"HostIp": address.ip(), "HostPort": address.port().to_string()}]});
    assert_eq!(published, expected.to_string());
    bench.end().await;
}

/// As OpenClaw looks for it, and with the arguments that it gives.
#[tokio::test]
async fn a_browser_runs_in_the_container_and_is_not_the_customers_to_change() {
    let Some(browsers) = std::env::var_os("TIDEPOOL_BROWSERS") else {
        eprintln!("SKIPPED: TIDEPOOL_BROWSERS is not set; run `./tidepool test`");
        return;
    };
    let Some(bench) = Bench::stub_with_browsers(browsers.as_ref()).await else {
        return;
    };
    let browser = "\"$PLAYWRIGHT_BROWSERS_PATH\"/chromium-*/chrome-linux/chrome --no-first-run \
         --user-data-dir=/home/node/.openclaw/browser --headless=new --disable-gpu --no-sandbox \
         --disable-dev-shm-usage";
    let page = "data:text/html,<p id=x></p><script>x.textContent=6*7</script>";
    let shown = shell(&bench, &format!("exec {browser} --dump-dom '{page}'"));
    let shown = shown.expect("a browser");
    assert!(shown.contains(r#"<p id="x">42</p>"#), "{shown}");
    // It says in this file where it is to be steered from.
    let steered = format!(
        "{browser} --remote-debugging-port=0 >/dev/null 2>&1 &
         n=0; until [ -s /home/node/.openclaw/browser/DevToolsActivePort ] || [ $n = 9000000 ]; do n=$((n+1)); done
         read -r port </home/node/.openclaw/browser/DevToolsActivePort; kill $!; echo $port"
    );
    let port = shell(&bench, &steered).expect("a browser");
    assert!(port.parse::<u16>().is_ok_and(|port| port > 0), "{port}");
    let written = shell(&bench, "echo x >\"$PLAYWRIGHT_BROWSERS_PATH\"/x");
    assert!(written.is_err(), "the volume was written to");
    bench.end().await;
}

const LIMITS: &str = "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}";

#[tokio::test]
async fn limits_are_given_to_a_gateway_that_runs_and_to_its_successor() {
    let Some(bench) = Bench::stub_in_container(&[]).await else {
        return;
    };
    let container = container(&bench);
    let process = bench.recorded_process();
    let tier = GatewayLimits {
        memory_mib: Some(1024),
        cpu_millicores: Some(500),
        pids: Some(200),
    };
    bench.runtime.limit(tier).await.expect("limits");
    let expected = format!("{0} {0} 500000000 200", 1024u64 << 20);
    assert_eq!(inspect(&bench, LIMITS), expected);
    assert_eq!(bench.recorded_process(), process, "it was restarted");
    // The kernel's word, wherever its control groups are.
    let told = shell(
        &bench,
        "for f in /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max; do
           [ ! -r $f ] || { read -r n <$f; echo $n; }
         done",
    );
    assert_eq!(told.expect("a shell"), "200");
    let taken = bench.runtime.taken().await.expect("it runs");
    assert_eq!(taken.memory_limit_bytes, Some(1024 << 20));

    // Another agent, of which nothing is known but the document.
    let other = DockerRuntime::new(bench.run().clone());
    other.limit(tier).await.expect("limits");
    assert_eq!(inspect(&bench, LIMITS), expected);

    bench
        .runtime
        .stop(Duration::from_secs(20))
        .await
        .expect("stop");
    bench.runtime.start().await.expect("start");
    assert_ne!(self::container(&bench), container);
    assert_eq!(inspect(&bench, LIMITS), expected);
    let none = GatewayLimits::default();
    bench.runtime.limit(none).await.expect("limits");
    assert!(inspect(&bench, LIMITS).ends_with(" 512"));
    bench.end().await;
}

/// Docker's own call for signals would have made it leave the gateway where it crashed.
#[tokio::test]
async fn a_gateway_that_crashes_after_a_restart_by_signal_is_started_again_by_docker() {
    let Some(bench) = Bench::stub_in_container(&[]).await else {
        return;
    };
    let container = container(&bench);
    let signal = bench.table.restart_signal();
    bench.runtime.restart_by(signal).await.expect("signal");
    assert!(bench.gateway.started_within(PATIENCE).await);
    let before = bench.recorded_process();
    kill(Pid::from_raw(before), Signal::SIGKILL).expect("kill");
    let deadline = Instant::now() + PATIENCE;
    while bench.recorded_process() == before || bench.runtime.state().await != State::Running {
        assert!(Instant::now() < deadline, "not started again");
        sleep(Duration::from_millis(20)).await;
        // What looks finds the new process, and records it.
        bench.runtime.state().await;
    }
    assert!(bench.gateway.started_within(PATIENCE).await);
    assert_eq!(bench.engine().ours().expect("a list"), [container]);
    // No agent had a part in it, and the next one finds it as it is.
    let next = bench.another_runtime();
    assert_eq!(next.start().await.expect("start"), Started::Adopted);
    bench.end().await;
}

#[tokio::test]
async fn a_foreign_container_is_never_touched_whatever_it_is_called() {
    let Some(bench) = Bench::unstarted_stub_in_container(&[]).await else {
        return;
    };
    let run = bench.run();
    let image = run.manifest.image.as_str();
    let name = format!("tidepool-{}", run.server);
    let foreign = |arguments: &[&str]| {
        let command = [arguments, &[image, "/bin/sh", "-c", "read -r never"]].concat();
        bench
            .engine()
            .docker(&command)
            .expect("a foreign container")
    };
    let networkless = ["run", "--detach", "--interactive", "--network=none"];
    let namesake = foreign(&[&networkless[..], &["--name", &name]].concat());
    let other = foreign(
        &[
            &networkless[..],
            &["--label", "tidepool.server=srv_another"],
        ]
        .concat(),
    );
    bench.runtime.start().await.expect_err("its name is taken");
    assert_eq!(
        bench.runtime.stop(SHORT.stop).await.expect("stop"),
        Stopped::Already
    );
    bench.runtime.clear().await.expect("clear");
    for container in [namesake, other] {
        let running = bench.engine().inspect(&container, "{{.State.Running}}");
        assert_eq!(running.expect("still there"), "true");
    }
}

#[tokio::test]
async fn a_gateway_of_another_image_is_replaced_and_not_adopted() {
    let Some(bench) = Bench::stub_in_container(&[]).await else {
        return;
    };
    let before = container(&bench);
    let mut run = bench.run().clone();
    // The same files, and another image for all that Docker knows.
    run.manifest.image = bench.engine().stub_image().expect("an image");
    run.manifest.browsers = Some("browsers".to_owned());
    let upgraded = DockerRuntime::new(run);
    assert!(matches!(upgraded.state().await, State::Stopped { .. }));
    assert_eq!(upgraded.start().await.expect("start"), Started::Fresh);
    assert_ne!(container(&bench), before);
    assert!(bench.gateway.started_within(PATIENCE).await);
    assert_eq!(upgraded.state().await, State::Running);
    // Gateways that share a machine share its browsers, and none may change them.
    shell(&bench, "[ -d \"$PLAYWRIGHT_BROWSERS_PATH\" ]").expect("the volume");
    shell(&bench, "echo x >\"$PLAYWRIGHT_BROWSERS_PATH/x\"").expect_err("not to be written");
    bench.end().await;
}

#[tokio::test]
async fn a_gateway_that_does_not_stop_is_killed_in_our_time_and_leaves_nothing() {
    let switches = [
        ("STUB_WEDGE", "1"),
        ("STUB_DEAF", "1"),
        ("STUB_HELPER", "1"),
    ];
    let Some(bench) = Bench::stub_in_container(&switches).await else {
        return;
    };
    let outcome = bench.apply_with(SHORT, &json!({"ui": {"a": 1}})).await;
    let Outcome::Applied { how, .. } = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(how, How::StartedAgain);
    let first = bench.recorded_process();
    let stopped = bench.runtime.stop(SHORT.stop).await.expect("stop");
    assert_eq!(stopped, Stopped::Killed);
    assert!(!fs::exists(format!("/proc/{first}")).expect("a look"));
    assert!(bench.engine().ours().expect("a list").is_empty());
    bench.runtime.clear().await.expect("clear");
    let networks = ["network", "ls", "--quiet", "--filter", "type=custom"];
    assert_eq!(bench.engine().docker(&networks).expect("a list"), "");
}

#[tokio::test]
async fn a_gateway_is_known_and_restarted_while_docker_hangs() {
    let Some(bench) = Bench::stub_in_container(&[]).await else {
        return;
    };
    bench.engine().hang(Hang::Begin);
    assert_eq!(bench.runtime.state().await, State::Running);
    let started = bench.runtime.start().await;
    assert_eq!(started.expect("start"), Started::Adopted);
    sentences::the_restart_signal_restarts_in_the_process(&bench).await;
    bench.engine().hang(Hang::End);
    bench.end().await;
}

/// It is root who writes there.
#[tokio::test]
async fn a_link_that_a_customer_lays_leads_the_agent_nowhere() {
    let Some(bench) = Bench::stub_in_container(&[]).await else {
        return;
    };
    let outside = tempfile::NamedTempFile::new().expect("a file");
    fs::write(outside.path(), r#"{"ui": {"secret": 1}}"#).expect("a secret");
    let config = bench.config_path();
    symlink(outside.path(), config.with_extension("json.new")).expect("a link");
    let outcome = bench.apply(&json!({"ui": {"seamColor": "#336699"}})).await;
    assert!(
        matches!(outcome, Outcome::Applied { how: How::Hot, .. }),
        "{outcome:?}"
    );
    let owner = fs::symlink_metadata(&config).expect("the configuration");
    assert_eq!(
        (owner.uid(), owner.gid(), owner.mode()),
        (1000, 1000, 0o100_600)
    );

    fs::remove_file(&config).expect("the configuration");
    symlink(outside.path(), &config).expect("a link");
    let wanted = neutral(&bench.place, Stage::Ready);
    let refused = bench
        .reloader
        .apply(bench.runtime.as_ref(), &bench.gateway, &wanted)
        .await;
    assert!(matches!(refused, Err(ApplyFailed::Read(_))), "{refused:?}");
    let untouched = fs::read_to_string(outside.path()).expect("the secret");
    assert_eq!(untouched, r#"{"ui": {"secret": 1}}"#);
    bench.end().await;
}

/// After a boot another process can have the number on record, and even its start time.
#[tokio::test]
async fn a_record_of_a_process_outside_the_container_is_not_believed() {
    let Some(bench) = Bench::stub_in_container(&[]).await else {
        return;
    };
    let first = bench.recorded_process();
    let mut stranger = Command::new("sleep").arg("600").spawn().expect("a process");
    let record = bench.place.process_record();
    let text = fs::read_to_string(&record).expect("the record");
    let mut forged: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    forged["process"]["pid"] = stranger.id().into();
    forged["process"]["start_ticks"] = start_ticks(stranger.id()).into();
    fs::write(&record, forged.to_string()).expect("a forged record");
    let mut since = bench.log_end();
    let signal = bench.table.restart_signal();
    bench.runtime.restart_by(signal).await.expect("signal");
    let deadline = Instant::now() + PATIENCE;
    let mut said = Vec::new();
    while !said
        .iter()
        .any(|line: &String| line.contains("received restart signal"))
    {
        assert!(Instant::now() < deadline, "{said:?}");
        said.extend(bench.runtime.log().read(&mut since).expect("the log"));
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(bench.recorded_process(), first);
    assert_eq!(stranger.try_wait().expect("a look"), None);
    stranger.kill().expect("kill");
    stranger.wait().expect("its end");
    bench.end().await;
}

fn start_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let ticks = fields.split_ascii_whitespace().nth(19);
    ticks.expect("field 22").parse().expect("a number")
}

#[tokio::test]
async fn an_image_that_nobody_needs_is_removed_and_comes_back_from_its_archive() {
    let Some(bench) = Bench::stub_in_container(&[]).await else {
        return;
    };
    let (engine, mut run) = (bench.engine(), bench.run().clone());
    let image = run.manifest.image.as_str().to_owned();
    let archive = bench.upgrades().with_extension("tar");
    let file = archive.to_str().expect("a plain path");
    let saved = engine.docker(&["save", "--output", file, &image]);
    saved.expect("an archive");
    run.archive = Some(archive);
    let runtime = DockerRuntime::new(run);
    let release = bench.release();
    // What a gateway runs from stays.
    runtime.discard(&release).await.unwrap_err();
    assert!(engine.docker(&["image", "inspect", &image]).is_ok());
    runtime.stop(PATIENCE).await.expect("a stop");
    runtime.discard(&release).await.expect("it is removed");
    assert!(engine.docker(&["image", "inspect", &image]).is_err());
    runtime.discard(&release).await.expect("it is gone");
    runtime.make_ready().await.expect("it is loaded");
    assert!(engine.docker(&["image", "inspect", &image]).is_ok());
    bench.end().await;
}
