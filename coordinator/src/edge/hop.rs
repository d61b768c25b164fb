//! How the edge knows Traefik: by a secret beside its address. `tidepool init traefik` makes it and keeps it
//! in a file of the state directory, for every Traefik the same; Traefik says it in a header of every question,
//! and takes it out of what it passes on.
//!
//! The last two are good ([`two_secrets`]). The file is read again
//! every second in which somebody asks: a new secret needs no restart, and one that has gone is of no use.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http::HeaderMap;
use subtle::{Choice, ConstantTimeEq as _};
use tidepool_shared::document::Digest;
use tokio::time::Instant;

use crate::{
    ambient::Chance,
    two_secrets::{self, Rotation},
};

/// In which header a hop says it.
pub const HOP: &str = "X-Tidepool-Hop";
const READ_EVERY: Duration = Duration::from_secs(1);
/// That somebody asks with a wrong one is told so often at most.
const TELL_EVERY: Duration = Duration::from_mins(1);

/// The secret that a Traefik is to say.
pub fn secret(path: &Path, rotation: Rotation, chance: &Chance) -> io::Result<String> {
    let mut secrets = two_secrets::keep(path, rotation, chance)?;
    Ok(secrets.swap_remove(0))
}

/// The secrets of hops, as the file had them a moment ago.
pub(super) struct Secrets {
    path: PathBuf,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    hashes: Vec<Digest>,
    read_at: Option<Instant>,
    told_at: Option<Instant>,
}

impl Secrets {
    pub(super) fn of(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            known: Mutex::default(),
        }
    }

    /// Whether a question brings one that is good. Hashes are compared, all of them, in the same time.
    pub(super) fn are_shown(&self, headers: &HeaderMap) -> bool {
        let mut shown = headers.get_all(HOP).iter();
        let hash = shown.next().map(|secret| Digest::of(secret.as_bytes()));
        let hash = hash.filter(|_| shown.next().is_none());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.read_at.is_none_or(|at| at.elapsed() >= READ_EVERY) {
            self.read_into(&mut known);
        }
        let is_good = hash.is_some_and(|shown| {
            let equal = |known: &Digest| known.0.ct_eq(&shown.0);
            let all = known.hashes.iter().map(equal);
            all.fold(Choice::from(0), |any, this| any | this).into()
        });
        if !is_good && known.told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            known.told_at = Some(Instant::now());
            tracing::error!(
                path = %self.path.display(),
                "somebody with a hop's address asks as Traefik and does not know its secret: run `tidepool init traefik` again if it is Traefik"
            );
        }
        is_good
    }

    /// What cannot be read lets nobody in.
    fn read_into(&self, known: &mut Known) {
        known.read_at = Some(Instant::now());
        known.hashes = match two_secrets::read(&self.path) {
            Ok(secrets) => secrets
                .iter()
                .map(|secret| Digest::of(secret.as_bytes()))
                .collect(),
            Err(error) => {
                tracing::error!(path = %self.path.display(), %error, "Traefik's secret not read");
                Vec::new()
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn shows(secrets: &Secrets, shown: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for secret in shown {
            headers.append(HOP, HeaderValue::from_str(secret).unwrap());
        }
        secrets.are_shown(&headers)
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_two_are_good_and_a_new_one_is_known_a_second_later() {
        let (dir, chance) = (tempfile::tempdir().unwrap(), Chance::from_seed(1));
        let path = dir.path().join("secrets");
        let secrets = Secrets::of(&path);
        assert!(!shows(&secrets, &["", "x"]) && !shows(&secrets, &[]));
        let mut made = Vec::new();
        for _ in 0..3 {
            made.push(secret(&path, Rotation::New, &chance).unwrap());
            let kept = secret(&path, Rotation::Keep, &chance).unwrap();
            assert_eq!(made.last(), Some(&kept));
            tokio::time::advance(READ_EVERY).await;
            assert!(shows(&secrets, &[made.last().unwrap()]));
        }
        assert!(shows(&secrets, &[&made[1]]) && !shows(&secrets, &[&made[0]]));
        assert!(!shows(&secrets, &[&made[2], &made[2]]));
        assert!(!shows(&secrets, &[""]) && !shows(&secrets, &[]));
        std::fs::remove_file(&path).unwrap();
        tokio::time::advance(READ_EVERY).await;
        assert!(!shows(&secrets, &[&made[2]]));
    }
}
