//! The stub's state has a version, which a newer stub raises and an older one refuses, as OpenClaw's databases do.

use std::{fs, io, path::Path};

use tidepool_shared::openclaw_version::OpenClawVersion;

use super::Switches;

/// The version that the state is of, within the state directory.
const FILE: &str = "stub-schema";

/// Why a stub does not run on this state.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    #[error("the state is of {0}, which is newer")]
    Newer(OpenClawVersion),
    #[error("read or write the state's version: {0}")]
    File(#[from] io::Error),
    #[error("{0}")]
    Version(#[from] tidepool_shared::openclaw_version::NotAVersion),
}

/// Makes the state this version's.
pub(super) fn migrate(switches: &Switches) -> Result<(), Unfit> {
    let directory = switches.config_path.parent().unwrap_or(Path::new("."));
    let path = directory.join(FILE);
    let own: OpenClawVersion = switches.version.parse()?;
    match fs::read_to_string(&path) {
        Ok(text) => {
            let of_state: OpenClawVersion = text.parse()?;
            // As text: all that are in use have as many digits.
            if of_state > own {
                return Err(Unfit::Newer(of_state));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    Ok(fs::write(path, own.as_str())?)
}
