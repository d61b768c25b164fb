//! `tidepool artefact pack-openclaw`: a version's description, schema and image in one file, as an agent takes it
//! apart. The same input makes the same bytes.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::PathBuf,
};

use anyhow::Context as _;
use clap::Args;
use tar::{Builder, Header};
use tidepool_shared::{
    manifest::{PinnedImage, Release, RestartSignal},
    openclaw_version::OpenClawVersion,
    release_artefact::Member,
};

/// What is packed.
#[derive(Debug, Args)]
#[command(disable_version_flag = true)]
pub struct Pack {
    /// Where to write it
    pub(super) file: PathBuf,
    /// Such as 2026.9.6, or 2026.9.6-r20261101 for a rebuild
    #[arg(long)]
    version: OpenClawVersion,
    /// JSON Schema of its configuration
    #[arg(long, value_name = "FILE")]
    config_schema: PathBuf,
    /// The id of its container's image, `sha256:...`
    #[arg(long, requires = "archive", value_parser = |text: &str| PinnedImage::try_from(text.to_owned()))]
    container: Option<PinnedImage>,
    /// That image, as `docker save` writes it
    #[arg(long, value_name = "FILE", requires = "container")]
    archive: Option<PathBuf>,
    /// A word of the gateway's command; more of them, more words
    #[arg(long = "gateway", value_name = "WORD", allow_hyphen_values = true,
        default_values = ["node", "/app/openclaw.mjs", "gateway"])]
    gateway: Vec<String>,
    /// `SIGUSR1` or `SIGUSR2`: what restarts it, if agents do not know this version
    #[arg(long, value_name = "SIGNAL")]
    restart_signal: Option<RestartSignal>,
}

/// Writes the file; what it says of the version.
pub(super) fn pack(options: &Pack) -> anyhow::Result<Release> {
    let release = Release {
        openclaw_version: options.version.to_string(),
        gateway: options.gateway.clone(),
        config_schema: Member::Schema.name().into(),
        container: options.container.clone(),
        archive: options
            .archive
            .as_ref()
            .map(|_| Member::Image.name().into()),
        restart_signal: options.restart_signal,
    };
    let record = serde_json::to_vec_pretty(&release)?;
    let file = File::create(&options.file)
        .with_context(|| format!("write `{}`", options.file.display()))?;
    let mut tar = Builder::new(file);
    append(&mut tar, Member::Record, record.len().try_into()?, &*record)?;
    let schema = fs::read(&options.config_schema)
        .with_context(|| format!("read `{}`", options.config_schema.display()))?;
    serde_json::from_slice::<serde_json::Value>(&schema).context("read the schema as JSON")?;
    append(&mut tar, Member::Schema, schema.len().try_into()?, &*schema)?;
    match &options.archive {
        Some(path) => {
            let archive = File::open(path).with_context(|| format!("read `{}`", path.display()))?;
            append(&mut tar, Member::Image, archive.metadata()?.len(), archive)?;
        }
        None => append(&mut tar, Member::Image, 0, io::empty())?,
    }
    tar.into_inner()?.sync_all()?;
    Ok(release)
}

fn append(
    tar: &mut Builder<File>,
    member: Member,
    size: u64,
    bytes: impl Read,
) -> anyhow::Result<()> {
    let (name, most) = (member.name(), member.max_size());
    anyhow::ensure!(
        size <= most,
        "`{name}` has {size} bytes, and may have {most}"
    );
    let mut header = Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, bytes)
        .with_context(|| format!("pack `{name}`"))
}
