//! What an image is made from, as one hash.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use sha2::{Digest as _, Sha256};

use super::{BuildFailed, OpenClaw, Recipe, input};

/// So many digits of the hash are in a name.
const DIGITS: usize = 16;

/// The hash of all inputs.
pub(super) struct Inputs(Sha256);

impl Inputs {
    pub(super) fn of(recipe: &Recipe) -> Result<Self, BuildFailed> {
        let mut inputs = Self(Sha256::new());
        inputs.tree(&recipe.scripts, Path::new(""))?;
        inputs.file("agent", &recipe.agent)?;
        match &recipe.openclaw {
            OpenClaw::Archive(archive) => inputs.file("archive", archive)?,
            OpenClaw::Reference(reference) => inputs.entry("reference", 0, reference.as_bytes()),
            OpenClaw::Absent => inputs.entry("no openclaw", 0, b""),
        }
        for key in &recipe.release_keys {
            inputs.entry("release key", 0, &key.0);
        }
        Ok(inputs)
    }

    pub(super) fn name(self) -> String {
        let digest = format!("{:x}", self.0.finalize());
        format!("tidepool-{}", digest.get(..DIGITS).unwrap_or(&digest))
    }

    /// Everything in a directory, in the order of the names.
    fn tree(&mut self, root: &Path, below: &Path) -> Result<(), BuildFailed> {
        let directory = root.join(below);
        let failed = |source| input(&directory, source);
        let mut names = fs::read_dir(&directory)
            .map_err(failed)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<io::Result<Vec<_>>>()
            .map_err(failed)?;
        names.sort();
        for name in names {
            let relative = below.join(&name);
            let path = root.join(&relative);
            if path.is_dir() {
                self.tree(root, &relative)?;
            } else {
                self.file(&relative.to_string_lossy(), &path)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, name: &str, path: &Path) -> Result<(), BuildFailed> {
        let failed = |source| input(path, source);
        let mut file = File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode();
        let mut content = Sha256::new();
        io::copy(&mut file, &mut content).map_err(failed)?;
        self.entry(name, mode & 0o111, &content.finalize());
        Ok(())
    }

    /// The length of each part goes before it, so that no two lists of parts are one text.
    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        for part in [name.as_bytes(), &mode.to_be_bytes(), content] {
            let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
            self.0.update(length.to_be_bytes());
            self.0.update(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use tidepool_shared::artefact::ReleaseKeyId;

    use super::*;

    fn name(recipe: &Recipe) -> String {
        Inputs::of(recipe).unwrap().name()
    }

    #[test]
    fn whatever_goes_into_an_image_changes_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let scripts = dir.path().join("scripts");
        fs::create_dir_all(scripts.join("files")).unwrap();
        fs::write(scripts.join("files/a"), "1").unwrap();
        fs::write(dir.path().join("agent"), "agent").unwrap();
        let mut recipe = Recipe {
            scripts: scripts.clone(),
            agent: dir.path().join("agent"),
            openclaw: OpenClaw::Absent,
            release_keys: Vec::new(),
            directory: dir.path().to_owned(),
        };
        let mut names = vec![name(&recipe)];
        assert_eq!(name(&recipe), names[0]);
        fs::write(scripts.join("files/a"), "2").unwrap();
        names.push(name(&recipe));
        fs::rename(scripts.join("files/a"), scripts.join("files/b")).unwrap();
        names.push(name(&recipe));
        fs::set_permissions(scripts.join("files/b"), fs::Permissions::from_mode(0o755)).unwrap();
        names.push(name(&recipe));
        fs::write(dir.path().join("agent"), "another").unwrap();
        names.push(name(&recipe));
        recipe.openclaw = OpenClaw::Reference("a@sha256:0".to_owned());
        names.push(name(&recipe));
        recipe.release_keys = vec![ReleaseKeyId([1; 32])];
        names.push(name(&recipe));
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
