//! The stub gateway, as a library so that it is small to read: life, configuration, HTTP, session.

mod config;
mod http;
mod schema;
mod session;
mod traces;

use std::{
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::TcpListener,
    process::{Child, Command},
    signal::unix::{Signal, SignalKind, signal},
    sync::RwLock,
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use self::config::{Config, Watcher};

/// OpenClaw's exit code for a configuration that it cannot start with.
const BAD_CONFIG: u8 = 78;

/// The first argument of a helper.
pub const HELPER: &str = "helper";

/// How this run differs from an ordinary one.
#[expect(
    clippy::struct_excessive_bools,
    reason = "switches, each of which is on or off by itself"
)]
#[derive(Debug, Clone)]
pub struct Switches {
    pub version: String,
    pub boot: Duration,
    pub deaf: bool,
    pub wedge: bool,
    pub helper: bool,
    pub broken: bool,
    pub config_path: PathBuf,
}

impl Switches {
    /// Reads the switches that the module of the program lists; an argument goes before a variable.
    pub fn read() -> Self {
        let arguments: Vec<String> = std::env::args().collect();
        let variable = |name: &str| {
            let argument = arguments
                .iter()
                .find_map(|argument| argument.strip_prefix(name)?.strip_prefix('='));
            argument
                .map(str::to_owned)
                .or_else(|| std::env::var(name).ok())
        };
        Self {
            version: variable("STUB_VERSION").unwrap_or_else(|| "2026.9.6".to_owned()),
            boot: Duration::from_millis(
                variable("STUB_BOOT_MS")
                    .and_then(|text| text.parse().ok())
                    .unwrap_or(0),
            ),
            deaf: variable("STUB_DEAF").is_some(),
            wedge: variable("STUB_WEDGE").is_some(),
            helper: variable("STUB_HELPER").is_some(),
            broken: variable("STUB_BROKEN").is_some(),
            config_path: variable("OPENCLAW_CONFIG_PATH")
                .unwrap_or_else(|| "openclaw.json".to_owned())
                .into(),
        }
    }

    /// Up to 2026.9.5 SIGUSR1 restarts and SIGUSR2 kills; later SIGUSR2 restarts.
    fn restarts_by_usr1(&self) -> bool {
        self.version == "2026.9.5"
    }
}

/// What the parts of a running stub share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) switches: Switches,
    pub(crate) config: RwLock<Config>,
    pub(crate) started: AtomicBool,
}

/// Prints a line as OpenClaw does: time, subsystem, text.
#[expect(
    clippy::print_stdout,
    reason = "a gateway's log is its standard output"
)]
pub fn say(text: &str) {
    println!("2026-11-23T00:00:00.000+00:00 {text}");
}

/// How one life of the listener ended.
enum End {
    Restart,
    Exit,
}

/// Runs until it is told to stop; answers the exit code.
pub async fn run(switches: Switches) -> u8 {
    say("[gateway] loading configuration…");
    let _helper = match switches.helper.then(start_helper).transpose() {
        Ok(helper) => helper,
        Err(error) => {
            say(&format!("[gateway] no helper: {error}"));
            return 1;
        }
    };
    if let Err(newer) = schema::migrate(&switches) {
        say(&format!("[gateway] {newer}"));
        return BAD_CONFIG;
    }
    if switches.broken {
        say("[gateway] startup migration failed");
        return BAD_CONFIG;
    }
    loop {
        let config = match Config::load(&switches.config_path) {
            Ok(config) => config,
            Err(issues) => {
                say(&format!("[gateway] Invalid config: {issues}"));
                return BAD_CONFIG;
            }
        };
        match life(&switches, config).await {
            Ok(End::Restart) => say("[gateway] restarting in process"),
            Ok(End::Exit) => return 0,
            Err(error) => {
                say(&format!("[gateway] failed: {error}"));
                return 1;
            }
        }
    }
}

/// A process that an orderly end takes along and SIGKILL does not.
fn start_helper() -> std::io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .arg(HELPER)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// One life of the listener.
async fn life(switches: &Switches, config: Config) -> std::io::Result<End> {
    let addresses = config.addresses();
    let shared = Arc::new(Shared {
        switches: switches.clone(),
        config: RwLock::new(config),
        started: AtomicBool::new(false),
    });
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    for address in addresses {
        let listener = TcpListener::bind(address).await?;
        tasks.spawn(http::serve(listener, shared.clone(), stop.clone()));
    }
    say("[gateway] http server listening");
    // Until here a signal ends the process, as with the real one.
    sleep(switches.boot).await;
    let mut signals = Signals::install(switches)?;
    shared.started.store(true, Ordering::SeqCst);
    say("[gateway] ready");
    let end = wait(&shared, &mut signals).await;
    if switches.wedge {
        say("[gateway] shutdown is stuck");
        drop(tasks);
        signals.ignore_for_ever().await;
    }
    stop.cancel();
    tasks.abort_all();
    while tasks.join_next().await.is_some() {}
    Ok(end)
}

async fn wait(shared: &Shared, signals: &mut Signals) -> End {
    let mut watcher = Watcher::new(&shared.switches);
    loop {
        tokio::select! {
            end = signals.next() => return end,
            restart = watcher.turn(shared) => if restart {
                return End::Restart;
            },
        }
    }
}

struct Signals {
    restart: Signal,
    other: Signal,
    terminate: Signal,
    other_kills: bool,
}

impl Signals {
    fn install(switches: &Switches) -> std::io::Result<Self> {
        let old = switches.restarts_by_usr1();
        let (restart, other) = if old {
            (SignalKind::user_defined1(), SignalKind::user_defined2())
        } else {
            (SignalKind::user_defined2(), SignalKind::user_defined1())
        };
        Ok(Self {
            restart: signal(restart)?,
            other: signal(other)?,
            terminate: signal(SignalKind::terminate())?,
            other_kills: old,
        })
    }

    async fn next(&mut self) -> End {
        loop {
            tokio::select! {
                _ = self.restart.recv() => {
                    say("[gateway] received restart signal; restarting");
                    return End::Restart;
                }
                _ = self.terminate.recv() => {
                    say("[gateway] received SIGTERM; shutting down");
                    return End::Exit;
                }
                _ = self.other.recv() => {
                    if self.other_kills {
                        return End::Exit;
                    }
                    say("Debugger listening on ws://127.0.0.1:9229/stub");
                }
            }
        }
    }

    async fn ignore_for_ever(&mut self) -> ! {
        loop {
            self.terminate.recv().await;
            say("[gateway] received SIGTERM during shutdown; ignoring");
        }
    }
}
