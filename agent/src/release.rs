//! The versions of OpenClaw that lie on this server: those of the image, and those that came later.
//!
//! What came later lies in a directory of its own for each version, with a `release.json` whose paths are
//! relative to it. A version is a directory's name, so it is checked before it becomes part of a path.
//!
//! ```text
//! DIRECTORY/2026.10.1.partial   being unpacked
//! DIRECTORY/2026.10.1           whole
//! ```

mod supply;
mod unpack;

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use tidepool_certs::secret_file;
use tidepool_shared::{
    artefact::Kind, document::OpenClawOrder, manifest::Release, openclaw_version::OpenClawVersion,
    release_artefact::Member,
};

pub use self::{
    supply::{NotBrought, Supply},
    unpack::NotUnpacked,
};
use crate::disk;

const RECORD: &str = Member::Record.name();

/// Where versions are looked for.
#[derive(Debug, Clone)]
pub struct Shelf {
    baked: Vec<Release>,
    directory: PathBuf,
    supply: Option<Supply>,
}

/// Why a version cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum NoRelease {
    #[error("not a version of OpenClaw")]
    NotAVersion,
    #[error("OpenClaw {0} is not on this server")]
    Absent(String),
    #[error("read the release `{path}`")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the release `{path}` is of another version or not readable")]
    Unreadable { path: PathBuf },
}

impl Shelf {
    /// The image's own versions, the first of which is the one that a new server runs, and a directory.
    pub fn new(baked: Vec<Release>, directory: PathBuf) -> Self {
        Self {
            baked,
            directory,
            supply: None,
        }
    }

    /// The same, which also gets what is ordered and not there.
    #[must_use]
    pub fn supplied_by(mut self, supply: Supply) -> Self {
        self.supply = Some(supply);
        self
    }

    /// Fetches the version of an order, to replace `held`, unless it is there.
    pub async fn bring(
        &self,
        order: &OpenClawOrder,
        held: &OpenClawVersion,
    ) -> Result<(), NotBrought> {
        if self.find(order.version.as_str()).is_ok() {
            return Ok(());
        }
        match &self.supply {
            Some(supply) => supply.bring(order, held, &self.directory).await,
            None => Err(NotBrought::NoArtefact(order.version.clone())),
        }
    }

    /// What came later and is of none of these versions.
    pub fn surplus(&self, versions: &BTreeSet<String>) -> io::Result<Vec<Release>> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let names: io::Result<Vec<_>> = entries
            .map(|entry| Ok(entry?.file_name().into_string().unwrap_or_default()))
            .collect();
        let mut surplus = names?;
        surplus.retain(|name| !versions.contains(name));
        // What was cut off has made nothing yet.
        Ok(surplus
            .iter()
            .filter_map(|name| self.find(name).ok())
            .collect())
    }

    /// Removes what came later and is of none of these versions, and what was cut off.
    pub fn keep_only(&self, versions: &BTreeSet<String>) -> io::Result<()> {
        if let Some(supply) = &self.supply {
            supply.depot.clear(Kind::OpenclawImage)?;
        }
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let is_kept = |name: &str| versions.contains(name);
            if !entry.file_name().to_str().is_some_and(is_kept) {
                disk::remove_tree(&entry.path())?;
            }
        }
        Ok(())
    }

    /// The version that a new server runs.
    pub fn first(&self) -> Option<&Release> {
        self.baked.first()
    }

    /// How to run this version.
    pub fn find(&self, version: &str) -> Result<Release, NoRelease> {
        if version.parse::<OpenClawVersion>().is_err() {
            return Err(NoRelease::NotAVersion);
        }
        let baked = self.baked.iter();
        if let Some(found) = baked.clone().find(|own| own.openclaw_version == version) {
            return Ok(found.clone());
        }
        let directory = self.directory.join(version);
        let path = directory.join(RECORD);
        let bytes = secret_file::read(&path).map_err(|source| NoRelease::Read {
            path: path.clone(),
            source,
        })?;
        let bytes = bytes.ok_or_else(|| NoRelease::Absent(version.to_owned()))?;
        serde_json::from_slice(&bytes)
            .ok()
            .filter(|release: &Release| release.openclaw_version == version)
            .map(|release| placed(release, &directory))
            .ok_or(NoRelease::Unreadable { path })
    }
}

/// The release with its files where they are.
fn placed(release: Release, directory: &Path) -> Release {
    Release {
        config_schema: directory.join(release.config_schema),
        archive: release.archive.map(|archive| directory.join(archive)),
        ..release
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(version: &str) -> Release {
        Release {
            openclaw_version: version.to_owned(),
            gateway: vec!["node".to_owned()],
            config_schema: "config-schema.json".into(),
            container: None,
            archive: Some("image.tar".into()),
            restart_signal: None,
        }
    }

    fn lay(shelf: &Path, directory: &str, release: &Release) {
        std::fs::create_dir_all(shelf.join(directory)).unwrap();
        let text = serde_json::to_string(release).unwrap();
        std::fs::write(shelf.join(directory).join(RECORD), text).unwrap();
    }

    #[test]
    fn what_came_later_is_found_where_it_lies() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(vec![release("2026.9.5")], dir.path().to_owned());
        lay(dir.path(), "2026.9.6", &release("2026.9.6"));
        assert_eq!(shelf.find("2026.9.5").unwrap(), release("2026.9.5"));
        let later = shelf.find("2026.9.6").unwrap();
        let at = dir.path().join("2026.9.6");
        assert_eq!(later.config_schema, at.join("config-schema.json"));
        assert_eq!(later.archive, Some(at.join("image.tar")));
        assert!(matches!(shelf.find("2026.9.7"), Err(NoRelease::Absent(_))));
    }

    #[test]
    fn what_nobody_needs_any_more_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(vec![release("2026.9.5")], dir.path().to_owned());
        for version in ["2026.9.6", "2026.9.7", "2026.9.8.partial"] {
            lay(dir.path(), version, &release(version));
        }
        let kept = ["2026.9.6".to_owned()].into();
        let surplus = shelf.surplus(&kept).unwrap();
        assert_eq!(surplus.len(), 1);
        assert_eq!(surplus[0].openclaw_version, "2026.9.7");
        shelf.keep_only(&kept).unwrap();
        assert_eq!(shelf.surplus(&kept).unwrap(), []);
        shelf.find("2026.9.6").unwrap();
        assert!(matches!(shelf.find("2026.9.7"), Err(NoRelease::Absent(_))));
        assert!(!dir.path().join("2026.9.8.partial").exists());
    }

    #[test]
    fn a_version_leads_out_of_no_directory_and_a_wrong_label_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(Vec::new(), dir.path().join("shelf"));
        lay(dir.path(), "elsewhere", &release("../elsewhere"));
        assert!(matches!(
            shelf.find("../elsewhere"),
            Err(NoRelease::NotAVersion)
        ));
        lay(&dir.path().join("shelf"), "2026.9.6", &release("2026.9.5"));
        assert!(matches!(
            shelf.find("2026.9.6"),
            Err(NoRelease::Unreadable { .. })
        ));
    }
}
