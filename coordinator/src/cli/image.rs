//! `tidepool image`: the image that servers are made from.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use tidepool_shared::artefact::ReleaseKeyId;

use super::{
    CommandFailed, Common,
    client::{Client, segment},
    deployment,
    output::Output,
};
use crate::{
    api::images::ImageView,
    image::{self, Built, OpenClaw, Recipe},
};

mod list;
mod verify;

/// What to do about images.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build an image on this machine, as root; what was built before is found again
    Build(Build),
    /// List the images that servers can be made from
    List(Whose),
    /// Try an image on a server of its own: measure it once it is warm, compare it with the promoted image,
    /// remove it; exit status 1 if the image is not good enough
    Verify(Named),
    /// Make new servers of an image that passed its verification, and replace idle ones of others; one of
    /// before, to go back
    Promote(Named),
}

/// Which image.
#[derive(Debug, Args)]
pub struct Named {
    /// As `list` shows it
    image: String,
    #[command(flatten)]
    whose: Whose,
}

/// Of which deployment.
#[derive(Debug, Args)]
pub struct Whose {
    /// Of the coordinator with this configuration, on this machine, without a token of one's own [default: the
    /// API of --url and --token]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What to build.
#[derive(Debug, Args)]
pub struct Build {
    /// The directory where images are kept
    #[arg(long, value_name = "DIR")]
    local: PathBuf,
    /// The repository's `snapshot-image`
    #[arg(long, value_name = "DIR", default_value = "snapshot-image")]
    scripts: PathBuf,
    /// The agent's program [default: beside this one]
    #[arg(long, env = "TIDEPOOL_AGENT", hide_env_values = true)]
    agent: Option<PathBuf>,
    /// OpenClaw's container: an archive (`snapshot-image/openclaw/container.sh`), a registry's
    /// REPOSITORY@sha256:..., or `none`
    #[arg(long, value_parser = openclaw)]
    openclaw: OpenClaw,
    /// A public key (`tidepool artefact keygen`): its servers take agents that are signed by it; more of them,
    /// more keys
    #[arg(long = "release-key", value_name = "KEY")]
    release_keys: Vec<ReleaseKeyId>,
}

fn openclaw(text: &str) -> Result<OpenClaw, String> {
    if text == "none" {
        return Ok(OpenClaw::Absent);
    }
    if text.contains("@sha256:") {
        return Ok(OpenClaw::Reference(text.to_owned()));
    }
    let path = Path::new(text);
    if path.is_file() {
        return Ok(OpenClaw::Archive(path.to_owned()));
    }
    Err("neither a file, nor REPOSITORY@sha256:..., nor `none`".to_owned())
}

/// Does it: on this machine, or by the API.
pub async fn run(
    command: &Command,
    common: &Common,
    output: &mut Output,
) -> Result<(), CommandFailed> {
    let whose = match command {
        Command::Build(build) => return run_build(build, output).await,
        Command::List(whose) => whose,
        Command::Verify(named) | Command::Promote(named) => &named.whose,
    };
    let lent = deployment::speak(common, whose.config.as_deref()).await?;
    let done = ask(command, &lent.client, output).await;
    // What was asked for has happened or not; a token that stays for its hour changes nothing of that.
    if let Err(error) = lent.give_back().await {
        output.complain(&error);
    }
    done
}

async fn ask(command: &Command, client: &Client, output: &mut Output) -> Result<(), CommandFailed> {
    match command {
        Command::Build(_) => Err(CommandFailed::Usage("it is no client".to_owned())),
        Command::List(_) => list::run(client, output).await,
        Command::Verify(named) => verify::run(&named.image, client, output).await,
        Command::Promote(named) => {
            let path = format!("/v1/images/{}/promote", segment(&named.image));
            let image: ImageView = client.post(&path, &serde_json::json!({})).await?;
            output.show(&image, |image| {
                vec![format!("new servers are made from {}", image.id)]
            })
        }
    }
}

async fn run_build(build: &Build, output: &mut Output) -> Result<(), CommandFailed> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| CommandFailed::Image(source);
    let recipe = build.recipe().map_err(|error| failed(error.into()))?;
    let mut tell = |line: &str| {
        // Progress is for whoever watches; there may be nobody.
        drop(writeln!(io::stderr().lock(), "{line}"));
    };
    let built = image::build(&recipe, &mut tell)
        .await
        .map_err(|error| failed(error.into()))?;
    output.show(&built, lines)
}

impl Build {
    fn recipe(&self) -> anyhow::Result<Recipe> {
        fs::create_dir_all(&self.local)?;
        let openclaw = match &self.openclaw {
            OpenClaw::Archive(path) => OpenClaw::Archive(path.canonicalize()?),
            other @ (OpenClaw::Reference(_) | OpenClaw::Absent) => other.clone(),
        };
        Ok(Recipe {
            scripts: self.scripts.canonicalize()?,
            agent: crate::up::beside_this(self.agent.as_ref(), "tidepool-agent")?.canonicalize()?,
            openclaw,
            release_keys: self.release_keys.clone(),
            directory: self.local.canonicalize()?,
        })
    }
}

fn lines(built: &Built) -> Vec<String> {
    let how = if built.cached {
        "was there".to_owned()
    } else {
        format!("built in {} s", built.seconds)
    };
    vec![
        format!(
            "{} ({how}, {} MiB)",
            built.path.display(),
            built.size_bytes >> 20
        ),
        format!(
            "OpenClaw {}, agent {}",
            built.manifest.openclaw_version,
            built
                .manifest
                .build
                .as_ref()
                .map_or("unknown", |build| build.agent_version.as_str()),
        ),
    ]
}
