//! What the person at the terminal sees: the pool filling, then where everything is.

use std::{io::IsTerminal as _, path::Path, time::Duration};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{Instant, sleep};

use super::UpOptions;
use crate::{
    cli::{output::printable, target::Target},
    model::{Server, ServerState},
    store::Store,
};

const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Without a terminal to draw on, a line this often.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// The terminal. Everything goes to standard error but the addresses.
pub(super) struct Screen {
    bar: ProgressBar,
    started: Instant,
}

impl Screen {
    pub(super) fn begin() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("  {spinner} {msg} ({elapsed})");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.enable_steady_tick(Duration::from_millis(120));
        bar.set_message("starting");
        Self {
            bar,
            started: Instant::now(),
        }
    }

    /// Says where everything is, then shows the pool until it is as warm as wanted.
    pub(super) async fn show(
        &self,
        store: &dyn Store,
        options: &UpOptions,
        data_dir: &Path,
        client: &Target,
    ) -> anyhow::Result<()> {
        self.say(&banner(data_dir, client));
        let mut said = Instant::now();
        loop {
            let servers = store.servers().await.context("look at the pool")?;
            let (warm, state) = summary(&servers, options.pool_size);
            if warm >= options.pool_size {
                break;
            }
            self.bar.set_message(state.clone());
            if !std::io::stderr().is_terminal() && said.elapsed() >= LINE_INTERVAL {
                self.say(&format!(
                    "  {state} ({} s)",
                    self.started.elapsed().as_secs()
                ));
                said = Instant::now();
            }
            sleep(LOOK_INTERVAL).await;
        }
        self.bar.finish_and_clear();
        self.say(&format!(
            "  The pool is warm after {:.1} s. Ctrl-C stops everything; `up` finds it again.",
            self.started.elapsed().as_secs_f32()
        ));
        Ok(())
    }

    pub(super) fn stopping(&self) {
        self.bar.finish_and_clear();
        self.say("  Stopping servers, proxy and coordinator ...");
    }

    pub(super) fn stopped(&self) {
        self.say("  Stopped.");
    }

    #[expect(
        clippy::print_stderr,
        reason = "this is the program's conversation with a person"
    )]
    fn say(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }
}

fn summary(servers: &[Server], wanted: u32) -> (u32, String) {
    let count = |state| {
        servers
            .iter()
            .filter(|server| server.state == state)
            .count()
    };
    let warm = u32::try_from(count(ServerState::Warm)).unwrap_or(u32::MAX);
    let starting =
        count(ServerState::Planned) + count(ServerState::Creating) + count(ServerState::Booting);
    let failed = servers
        .iter()
        .rev()
        .find_map(|server| server.failure.as_deref());
    let trouble = failed
        .map(|why| format!(", last failure: {}", printable(why)))
        .unwrap_or_default();
    (
        warm,
        format!("warming the pool: {warm} of {wanted} warm, {starting} starting{trouble}"),
    )
}

fn banner(data_dir: &Path, client: &Target) -> String {
    let data = data_dir.display();
    // Whoever set it for this command has it set for the next one, too.
    let from_environment = std::env::var_os("TIDEPOOL_DATA_DIR").is_some_and(|set| set == data_dir);
    let flag = if from_environment || data_dir == Path::new(crate::cli::DEFAULT_DATA_DIR) {
        String::new()
    } else {
        format!(" --data-dir {data}")
    };
    format!(
        "\n  Tidepool is up.\n\n\
         \x20 Console and API  {}\n\
         \x20 API token        {}\n\
         \x20 Create an agent  ./tidepool instance create my-agent --wait{flag}\n\
         \x20 Logs             {data}/log, {data}/servers/*/agent.log\n",
        client.url, client.token
    )
}
