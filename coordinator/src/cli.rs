//! The operator's command line: a client of the HTTP API, and the one command that runs everything.
//!
//! Exit codes: 0 done, 1 refused by the server, 2 used wrongly, 69 the server cannot be reached.

pub mod agent;
pub mod artefact;
pub mod basic_auth;
pub mod client;
pub mod config;
pub mod costs;
pub mod deployment;
pub mod doctor;
pub mod domains;
pub mod edge_limits;
pub mod events;
pub mod image;
pub mod init;
pub mod instance;
pub mod keys;
pub mod limits;
pub mod models;
pub mod output;
pub mod pool;
pub mod secrets;
pub mod spinner;
pub mod target;
pub mod tokens;
pub mod upgrade;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use self::{
    client::{CallFailed, Client},
    output::Output,
    target::Target,
};

/// Hosts OpenClaw: one customer, one server, claimed warm.
#[derive(Debug, Parser)]
#[command(name = "tidepool", version, about, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

/// Where `up` keeps everything unless told otherwise.
pub const DEFAULT_DATA_DIR: &str = "./var";

/// What every command takes.
#[derive(Clone, Args)]
pub struct Common {
    /// Base URL of the API [default: from client.json in the data directory]
    #[arg(long, global = true, env = "TIDEPOOL_URL", hide_env_values = true)]
    pub url: Option<String>,
    /// API token [default: from client.json in the data directory]
    #[arg(long, global = true, env = "TIDEPOOL_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Where `up` keeps everything
    #[arg(
        long,
        global = true,
        env = "TIDEPOOL_DATA_DIR", hide_env_values = true,
        default_value = DEFAULT_DATA_DIR
    )]
    pub data_dir: PathBuf,
    /// Print the API's own JSON
    #[arg(long, global = true)]
    pub json: bool,
}

impl std::fmt::Debug for Common {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Common")
            .field("url", &self.url)
            .field("data_dir", &self.data_dir)
            .finish_non_exhaustive()
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything on this machine, until Ctrl-C
    Up(crate::up::UpOptions),
    /// Run a coordinator in production
    Serve(crate::serve::ServeOptions),
    /// Create, look at, change and delete instances
    #[command(subcommand)]
    Instance(instance::Command),
    /// Show pools and servers; pause and resume
    Pool {
        #[command(subcommand)]
        command: Option<pool::Command>,
    },
    /// Other versions of OpenClaw for the instances of a tier
    #[command(subcommand)]
    Upgrade(upgrade::Command),
    /// Show what servers cost
    Costs,
    /// Who serves models
    #[command(subcommand)]
    Provider(models::ProviderCommand),
    /// Which names of models customers may ask for
    #[command(subcommand)]
    Model(models::ModelCommand),
    /// Customers' own keys for providers
    #[command(subcommand)]
    Key(keys::Command),
    /// What customers may use of models: rates and budgets
    #[command(subcommand)]
    Limit(limits::Command),
    /// Show what an instance used of models
    Usage(models::UsageOptions),
    /// Print usage records of all instances as JSON lines, for billing
    UsageRecords(models::RecordOptions),
    /// Rotate the master key that seals providers' and customers' keys
    #[command(subcommand)]
    Secrets(secrets::Command),
    /// Show the event log
    Events(events::Options),
    /// Create, list and revoke API tokens
    #[command(subcommand)]
    Token(tokens::Command),
    /// Write configuration of what stands beside a coordinator
    #[command(subcommand)]
    Init(init::Command),
    /// Check names, certificate, Traefik, Redis and routes of a deployment
    Doctor(doctor::Options),
    /// The image that servers are made from
    #[command(subcommand)]
    Image(image::Command),
    /// The agents' own versions
    #[command(subcommand)]
    Agent(agent::Command),
    /// What servers fetch over their links: sign it, and put it there
    #[command(subcommand)]
    Artefact(artefact::Command),
    /// Print the API's OpenAPI document
    Openapi,
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CommandFailed {
    #[error(transparent)]
    Call(#[from] CallFailed),
    #[error("{0}")]
    Usage(String),
    #[error("make a token in the store")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("write the configuration")]
    Init(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("examine the deployment")]
    Doctor(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It was said what is.
    #[error("{0} of the checks failed")]
    Unwell(usize),
    #[error("build the image")]
    Image(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("handle artefacts")]
    Artefact(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("speak for the deployment of this configuration")]
    Deployment(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It was said why.
    #[error("the image is not good enough")]
    NotGoodEnough,
    #[error("rotate the master key")]
    Rotate(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("write output")]
    Output(#[from] std::io::Error),
}

impl CommandFailed {
    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Call(CallFailed::Refused(_) | CallFailed::NotYet | CallFailed::Garbled(_))
            | Self::Store(_)
            | Self::Init(_)
            | Self::Doctor(_)
            | Self::Unwell(_)
            | Self::Image(_)
            | Self::Artefact(_)
            | Self::Deployment(_)
            | Self::NotGoodEnough
            | Self::Rotate(_)
            | Self::Output(_) => 1,
            Self::Usage(_) => 2,
            Self::Call(CallFailed::NotReachable { .. }) => 69,
        }
    }
}

/// Runs a command against the API.
pub async fn run(common: &Common, command: Command) -> ExitCode {
    let mut output = Output::new(common.json);
    match execute(common, command, &mut output).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.complain(&error);
            ExitCode::from(error.code())
        }
    }
}

async fn execute(
    common: &Common,
    command: Command,
    output: &mut Output,
) -> Result<(), CommandFailed> {
    if let Command::Token(command) = &command
        && let Some(made) = tokens::first(command).await
    {
        let token = made.map_err(|error| CommandFailed::Store(error.into()))?;
        return output.show(&serde_json::json!({ "token": token }), |_| {
            vec![token.clone()]
        });
    }
    if let Command::Init(command) = &command {
        return init::run(command, output);
    }
    if let Command::Doctor(options) = &command {
        return doctor::run(options, output).await;
    }
    if let Command::Image(command) = &command {
        return image::run(command, common, output).await;
    }
    if let Command::Artefact(command) = &command {
        return artefact::run(command, common, output);
    }
    if let Command::Secrets(command) = &command {
        return secrets::run(command, common, output).await;
    }
    let client = Client::new(Target::resolve(common)?)?;
    match command {
        Command::Up(_)
        | Command::Serve(_)
        | Command::Init(_)
        | Command::Doctor(_)
        | Command::Image(_)
        | Command::Artefact(_)
        | Command::Secrets(_) => Err(CommandFailed::Usage("it is no client".to_owned())),
        Command::Instance(command) => instance::run(command, &client, output).await,
        Command::Pool { command } => pool::run(command, &client, output).await,
        Command::Agent(command) => agent::run(command, &client, output).await,
        Command::Upgrade(command) => upgrade::run(command, &client, output).await,
        Command::Costs => costs::show(&client, output).await,
        Command::Provider(command) => models::provider(command, &client, output).await,
        Command::Model(command) => models::model(command, &client, output).await,
        Command::Key(command) => keys::run(command, &client, output).await,
        Command::Limit(command) => limits::run(command, &client, output).await,
        Command::UsageRecords(options) => models::records(&options, &client, output).await,
        Command::Usage(options) => models::usage(&options, &client, output).await,
        Command::Events(options) => events::run(&options, &client, output).await,
        Command::Token(command) => tokens::run(command, &client, output).await,
        Command::Openapi => {
            let document: serde_json::Value = client.get("/v1/openapi.json").await?;
            output.json(&document)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_says_what_there_is() {
        insta::assert_snapshot!("help", Cli::command().render_help());
        let mut command = Cli::command();
        command.build();
        let instance = command.find_subcommand_mut("instance").unwrap();
        insta::assert_snapshot!("help_instance", instance.render_help());
        let create = instance.find_subcommand_mut("create").unwrap();
        insta::assert_snapshot!("help_instance_create", create.render_help());
    }
}
