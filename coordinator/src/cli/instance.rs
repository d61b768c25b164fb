//! `tidepool instance`.

pub mod create;
pub mod lines;
pub mod networks;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::json;

use super::{
    CommandFailed, basic_auth,
    client::{Client, segment},
    config, domains, edge_limits,
    output::Output,
    spinner,
};
use crate::api::instances::{
    login_links::LoginLink, logs::Log, read::Instances, view::InstanceView,
};

/// What to do with instances.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create one
    Create(create::Options),
    /// List them
    List,
    /// Show one
    Show { name: String },
    /// Wait until one has a status
    Wait(WaitOptions),
    /// Delete one; it may be asked back within its grace
    Delete {
        name: String,
        /// Seconds in which it may be asked back; 0 deletes for good [default: the operator's]
        #[arg(long, value_name = "SECS")]
        grace: Option<u64>,
    },
    /// Bring a deleted one back
    Undelete { name: String },
    /// End a deleted one's grace now: all that it holds is gone
    Purge { name: String },
    /// Stop its gateway; its server and all that is on it are kept
    Stop { name: String },
    /// Start a stopped one
    Start { name: String },
    /// Suspend one: nobody gets in, and no models are served
    Suspend {
        name: String,
        /// billing, abuse or operator; not shown to its visitors
        #[arg(long)]
        reason: String,
        /// Shown to whoever comes to its URL
        #[arg(long, value_name = "TEXT")]
        message: Option<String>,
    },
    /// End its suspension
    Unsuspend { name: String },
    /// Restart its gateway
    Restart { name: String },
    /// Give it another name; its old URL leads to the new one for 30 days
    Rename { name: String, new_name: String },
    /// Bring it to another version of OpenClaw; the old one is back if it does not prove itself
    Upgrade {
        name: String,
        /// Such as 2026.9.6; it must be on its server
        #[arg(value_name = "VERSION")]
        openclaw: String,
    },
    /// Leave it at a version when others are rolled out
    Pin {
        name: String,
        #[arg(
            value_name = "VERSION",
            required_unless_present = "none",
            conflicts_with = "none"
        )]
        openclaw: Option<String>,
        /// Take the pin away
        #[arg(long)]
        none: bool,
    },
    /// Print the end of its log
    Logs {
        name: String,
        /// Up to 1000
        #[arg(long, default_value_t = 200)]
        lines: u32,
    },
    /// Print a link that signs in whoever opens it in a browser first
    Login {
        name: String,
        /// Seconds until it is worthless, up to 300
        #[arg(long, default_value_t = 120)]
        ttl: u64,
        /// At one of its customer's own names
        #[arg(long)]
        domain: Option<String>,
    },
    /// Look at and change its configuration
    #[command(subcommand)]
    Config(config::Command),
    /// HTTP basic auth in front of it
    #[command(subcommand, name = "basic-auth")]
    BasicAuth(basic_auth::Command),
    /// Its customer's own host names
    #[command(subcommand)]
    Domain(domains::Command),
    /// How large a body its visitors may send, and how many requests
    #[command(subcommand, name = "edge-limits")]
    EdgeLimits(edge_limits::Command),
    /// Which private networks its gateway may reach; without any they are shown
    Networks(networks::Options),
}

/// What to wait for.
#[derive(Debug, Args)]
pub struct WaitOptions {
    name: String,
    #[arg(long, default_value = "running")]
    status: String,
    /// Seconds, up to 60
    #[arg(long, default_value_t = 60)]
    timeout: u64,
}

pub(super) async fn run(
    command: Command,
    client: &Client,
    output: &mut Output,
) -> Result<(), CommandFailed> {
    match command {
        Command::Create(options) => create::run(options, client, output).await,
        Command::List => list(client, output).await,
        Command::Show { name } => {
            let view: InstanceView = client.get(&path(&name, "")).await?;
            output.show(&view, lines::details)
        }
        Command::Wait(options) => wait(&options, client, output).await,
        Command::Delete { name, grace } => {
            let grace = grace.map(|seconds| format!("?grace_s={seconds}"));
            let path = path(&name, &grace.unwrap_or_default());
            let view: InstanceView = client.send(client.request(Method::DELETE, &path)).await?;
            output.show(&view, lines::deleted)
        }
        Command::Undelete { name } => {
            let view: InstanceView = client.post(&path(&name, "/undelete"), &json!({})).await?;
            output.show(&view, |view| vec![format!("{} is coming back", view.name)])
        }
        Command::Purge { name } => {
            let view: InstanceView = client.post(&path(&name, "/purge"), &json!({})).await?;
            output.show(&view, |view| vec![format!("{} is gone", view.name)])
        }
        Command::Stop { name } => {
            let view: InstanceView = client.post(&path(&name, "/stop"), &json!({})).await?;
            output.show(&view, |view| vec![format!("{} is stopped", view.name)])
        }
        Command::Start { name } => {
            let view: InstanceView = client.post(&path(&name, "/start"), &json!({})).await?;
            output.show(&view, |view| vec![format!("{} is starting", view.name)])
        }
        Command::Suspend {
            name,
            reason,
            message,
        } => {
            let body = match message {
                Some(message) => json!({ "reason": reason, "message": message }),
                None => json!({ "reason": reason }),
            };
            let view: InstanceView = client.post(&path(&name, "/suspend"), &body).await?;
            output.show(&view, |view| vec![format!("{} is suspended", view.name)])
        }
        Command::Unsuspend { name } => {
            let view: InstanceView = client.post(&path(&name, "/unsuspend"), &json!({})).await?;
            output.show(&view, |view| {
                vec![format!("{} is {}", view.name, view.status.word())]
            })
        }
        Command::Restart { name } => {
            let view: InstanceView = client.post(&path(&name, "/restart"), &json!({})).await?;
            output.show(&view, |view| vec![format!("{} is restarting", view.name)])
        }
        Command::Rename { name, new_name } => {
            let body = json!({ "name": new_name });
            let view: InstanceView = client.post(&path(&name, "/rename"), &body).await?;
            output.show(&view, |view| {
                vec![format!("{name} is {} now: {}", view.name, view.url)]
            })
        }
        Command::Upgrade { name, openclaw } => {
            let body = json!({ "version": openclaw });
            let view: InstanceView = client.post(&path(&name, "/upgrade"), &body).await?;
            output.show(&view, |view| {
                vec![format!("{} is being upgraded to {openclaw}", view.name)]
            })
        }
        Command::Pin { name, openclaw, .. } => pin(&name, openclaw, client, output).await,
        Command::Logs { name, lines } => {
            let log: Log = client
                .get(&path(&name, &format!("/logs?lines={lines}")))
                .await?;
            output.show(&log, |log| log.lines.clone())
        }
        Command::Login { name, ttl, domain } => {
            let link: LoginLink = client
                .post(
                    &path(&name, "/login_links"),
                    &json!({"ttl_s": ttl, "domain": domain}),
                )
                .await?;
            output.show(&link, |link| vec![link.url.clone()])
        }
        Command::Config(command) => config::run(command, client, output).await,
        Command::BasicAuth(command) => basic_auth::run(command, client, output).await,
        Command::Domain(command) => domains::run(command, client, output).await,
        Command::EdgeLimits(command) => edge_limits::run(command, client, output).await,
        Command::Networks(options) => networks::run(options, client, output).await,
    }
}

/// All of them, page by page.
async fn list(client: &Client, output: &mut Output) -> Result<(), CommandFailed> {
    let mut all: Vec<InstanceView> = Vec::new();
    let mut cursor = String::new();
    loop {
        let page: Instances = client
            .get(&format!("/v1/instances?limit=200{cursor}"))
            .await?;
        all.extend(page.data);
        match page.page.next_cursor {
            Some(next) => cursor = format!("&cursor={}", segment(&next)),
            None => return output.show(&all, |all| lines::table_of(all)),
        }
    }
}

async fn wait(
    options: &WaitOptions,
    client: &Client,
    output: &mut Output,
) -> Result<(), CommandFailed> {
    let (status, timeout) = (segment(&options.status), options.timeout);
    let path = path(
        &options.name,
        &format!("/wait?status={status}&timeout_s={timeout}"),
    );
    let waiting = client.get::<InstanceView>(&path);
    let view = spinner::during("waiting", waiting).await?;
    output.show(&view, lines::details)
}

/// Without a version the pin is taken away.
async fn pin(
    name: &str,
    version: Option<String>,
    client: &Client,
    output: &mut Output,
) -> Result<(), CommandFailed> {
    let path = path(name, "/pin");
    let request = match &version {
        Some(version) => client
            .request(Method::PUT, &path)
            .json(&json!({ "version": version })),
        None => client.request(Method::DELETE, &path),
    };
    let view: InstanceView = client.send(request).await?;
    output.show(&view, |view| {
        vec![match &view.openclaw_pin {
            Some(version) => format!("{} stays at {version}", view.name),
            None => format!("{} is not pinned", view.name),
        }]
    })
}

fn path(name: &str, rest: &str) -> String {
    format!("/v1/instances/{}{rest}", segment(name))
}
