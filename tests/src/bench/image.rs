//! A server of the image: its size, how soon it is enrolled and warm, what it takes of its machine, and how soon
//! it is a customer's.
//!
//! Memory is counted as the kernel shares it out (a page of three processes is a third of each), so that the sum
//! is what the machine has less of.

use std::{
    fs,
    path::{Path, PathBuf},
    str::FromStr as _,
    time::Duration,
};

use anyhow::Context as _;
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tidepool_coordinator::model::StepMs;
use tokio::time::sleep;

use super::{Figure, Sample, claim, resources};
use crate::rack::{Gateway, Rack, Server};

/// How long an agent is watched while it has nothing to do.
const IDLE: Duration = Duration::from_secs(30);

/// Milliseconds of a claim, half of them and all but one in a hundred.
const CLAIM_MS: [f64; 2] = [150.0, 1000.0];
/// MB of everything but the gateway; MB and percent of a core of the agent.
const HOST_MIB: f64 = 150.0;
const AGENT_MIB: f64 = 15.0;
const AGENT_PERCENT: f64 = 0.2;

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Boots, one after another, each of a server that is then claimed
    #[arg(long, default_value_t = 3)]
    pub boots: u32,
    /// The image
    #[arg(long, env = "TIDEPOOL_IMAGE")]
    pub image: PathBuf,
    /// What answers in it
    #[arg(long, value_enum, default_value_t = Gateway::Own)]
    pub gateway: Gateway,
}

/// Measures and prints.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let size = fs::metadata(&arguments.image)
        .context("find the image")?
        .len();
    print("image_mib", mib(size >> 10), "MiB", None)?;
    let (mut enrolled, mut warm) = (Sample::default(), Sample::default());
    let (mut started, mut claims) = (Sample::default(), Sample::default());
    for boot in 1..=arguments.boots.max(1) {
        eprintln!("image: boot {boot}");
        let rack = Rack::of(&arguments.image, "bench-image", 1, arguments.gateway).await?;
        rack.warm(1).await?;
        let server = rack.server()?;
        warm.add(switched_on(&server)?.elapsed()?.as_secs_f64());
        enrolled.add(enrolment(&server)?.as_secs_f64());
        started.add(gateway_start(&rack).await?.as_secs_f64());
        if boot == arguments.boots.max(1) {
            takes(&server).await?;
        }
        let (claim_ms, _) = claim::claim(rack.api.clone(), "bench".to_owned()).await?;
        claims.add(claim_ms);
        rack.end().await?;
    }
    for (name, sample) in [
        ("boot_to_enrolled_s", enrolled),
        ("boot_to_warm_s", warm),
        ("start_to_startupz_s", started),
    ] {
        let median = sample.quantile(0.5).context("nothing was measured")?;
        print(name, median, "s", None)?;
    }
    let budgets = CLAIM_MS.map(|ms| (arguments.gateway == Gateway::Own).then_some(ms));
    claims.print("image", "claim_to_ready", "ms", budgets)
}

/// What the machine takes when nothing happens.
async fn takes(server: &Server) -> anyhow::Result<()> {
    let agent = process(server, "tidepool-agent")?;
    let before = resources::cpu(agent)?;
    sleep(IDLE).await;
    let used = resources::cpu(agent)?.saturating_sub(before);
    let percent = 100.0 * used.as_secs_f64() / IDLE.as_secs_f64();
    print(
        "host_rss_mib",
        mib(without_gateway(server, "Pss:")?),
        "MiB",
        Some(HOST_MIB),
    )?;
    print(
        "host_anon_mib",
        mib(without_gateway(server, "Pss_Anon:")?),
        "MiB",
        None,
    )?;
    print(
        "agent_rss_mib",
        mib(resources::rss_kib(agent)?.into()),
        "MiB",
        Some(AGENT_MIB),
    )?;
    print("agent_idle_cpu_percent", percent, "%", Some(AGENT_PERCENT))
}

/// From the start of the gateway's container until `/startupz` answered, as the agent said of the first boot.
async fn gateway_start(rack: &Rack) -> anyhow::Result<Duration> {
    let store = SqliteConnectOptions::from_str(&rack.main.database())?.read_only(true);
    let mut store = SqliteConnection::connect_with(&store).await?;
    let told: String = sqlx::query_scalar("SELECT boot_steps FROM servers")
        .fetch_one(&mut store)
        .await?;
    store.close().await?;
    let steps: Vec<StepMs> = serde_json::from_str(&told)?;
    let took = |name: &str| {
        let step = steps.iter().find(|step| step.name == name);
        step.map(|step| Duration::from_millis(step.ms))
    };
    let start = took("gateway_start").with_context(|| format!("no start in {told}"))?;
    Ok(start + took("gateway_started").unwrap_or_default())
}

fn print(name: &str, value: f64, unit: &'static str, budget: Option<f64>) -> anyhow::Result<()> {
    let figure = Figure {
        bench: "image",
        name: name.to_owned(),
        value,
        unit,
        budget,
    };
    Ok(figure.print()?)
}

fn mib(kib: u64) -> f64 {
    f64::from(u32::try_from(kib).unwrap_or(u32::MAX)) / 1024.0
}

/// The mark of its systemd-nspawn is written when it is started.
fn switched_on(server: &Server) -> anyhow::Result<std::time::SystemTime> {
    let mark = fs::metadata(server.dir.join("machine.pid"))?;
    Ok(mark.modified()?)
}

fn enrolment(server: &Server) -> anyhow::Result<Duration> {
    let identity = "disk/upper/var/lib/tidepool/identity/identity.json";
    let written = fs::metadata(server.dir.join(identity))?.modified()?;
    Ok(written.duration_since(switched_on(server)?)?)
}

/// Processes of the machine's own namespace; a container has another one.
fn processes(server: &Server) -> anyhow::Result<Vec<(u32, String)>> {
    let leader = server.leader().context("the machine is on")?;
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid"));
    let own = namespace(leader)?;
    let pids = fs::read_dir("/proc")?
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    Ok(pids
        .filter(|pid| namespace(*pid).is_ok_and(|found| found == own))
        .filter_map(|pid| {
            let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
            Some((pid, file_name(&program)))
        })
        .collect())
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

fn process(server: &Server, program: &str) -> anyhow::Result<u32> {
    processes(server)?
        .into_iter()
        .find(|(_, name)| name == program)
        .map(|(pid, _)| pid)
        .with_context(|| format!("no {program} runs"))
}

/// `Pss:` of the kernel is all memory, `Pss_Anon:` what is not of a file, which cannot be dropped.
fn without_gateway(server: &Server, what: &str) -> anyhow::Result<u64> {
    let mut sum = 0;
    for (pid, program) in processes(server)? {
        if program == "stub-gateway" || program == "node" {
            continue;
        }
        // It may have ended meanwhile, and takes nothing then.
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let shared_out = text
            .lines()
            .find_map(|line| line.strip_prefix(what)?.split_whitespace().next());
        sum += shared_out.map_or(Ok(0), str::parse::<u64>)?;
    }
    Ok(sum)
}
