//! One version of OpenClaw at this server's place: what runs it, and what is known of it.

use std::path::PathBuf;

use tidepool_shared::{
    manifest::Release,
    openclaw_version::{NotAVersion, OpenClawVersion},
};

use crate::{
    reload::{Table, UnknownVersion},
    runtime::Runtime,
};

/// Makes what runs a release at this server's place.
pub type Maker = Box<dyn Fn(&Release) -> Result<Box<dyn Runtime>, NoEdition> + Send + Sync>;

/// A version, ready to be run. Its table and its schema are its own, not the image's.
pub(super) struct Edition {
    pub(super) version: OpenClawVersion,
    pub(super) table: Table,
    pub(super) schema: PathBuf,
    pub(super) runtime: Box<dyn Runtime>,
}

/// Why a release cannot be run by this agent.
#[derive(Debug, thiserror::Error)]
pub enum NoEdition {
    #[error(transparent)]
    Version(#[from] NotAVersion),
    #[error("find this version of OpenClaw in the reload table")]
    Unknown(#[from] UnknownVersion),
    #[error("the release's schema is not there: `{0}`")]
    NoSchema(PathBuf),
    #[error("the release is for a container and the server's gateway is none, or the reverse")]
    OtherKind,
}

impl Edition {
    pub(super) fn of(release: &Release, maker: &Maker) -> Result<Self, NoEdition> {
        let table = Table::of_release(release)?;
        if !release.config_schema.is_file() {
            return Err(NoEdition::NoSchema(release.config_schema.clone()));
        }
        Ok(Self {
            version: release.openclaw_version.parse()?,
            table,
            schema: release.config_schema.clone(),
            runtime: maker(release)?,
        })
    }
}
