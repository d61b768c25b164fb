//! How a version comes to a server that was made without it: what an order's artefact says is held against the
//! image's release keys, as for the agent's own program, and fetched over the link.

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use tidepool_shared::{
    artefact::{Kind, ReleaseKeyId, Statement},
    document::OpenClawOrder,
    openclaw_version::OpenClawVersion,
};
use tokio::{task::spawn_blocking, time::timeout};

use super::unpack::{NotUnpacked, unpack};
use crate::{
    artefact::{Depot, NotBelieved, NotFetched, believe},
    disk::{self, StopOnDrop},
};

/// An artefact that is not here by then does not come.
const WITHIN: Duration = Duration::from_hours(1);
/// What stays free on the disk for everything else.
const MARGIN_BYTES: u64 = 256 << 20;

/// Whose artefacts are taken, and where they come from.
#[derive(Debug, Clone)]
pub struct Supply {
    pub depot: Arc<Depot>,
    /// The image's.
    pub keys: Vec<ReleaseKeyId>,
}

/// Why an order's version is not on this server.
#[derive(Debug, thiserror::Error)]
pub enum NotBrought {
    #[error("OpenClaw {0} is not on this server, and its order names no artefact")]
    NoArtefact(OpenClawVersion),
    #[error("take the order's artefact")]
    NotBelieved(#[from] NotBelieved),
    #[error("the order is for OpenClaw {ordered}, and its artefact is {signed}")]
    OtherVersion {
        ordered: OpenClawVersion,
        signed: String,
    },
    #[error("it is older than {0}, and does not say that it may replace that")]
    Older(OpenClawVersion),
    #[error("{free_mib} MiB are free, and its artefact takes {needed_mib}")]
    NoRoom { needed_mib: u64, free_mib: u64 },
    #[error("fetch the order's artefact")]
    NotFetched(#[from] NotFetched),
    #[error("the order's artefact did not come within {} s", WITHIN.as_secs())]
    Late,
    #[error("unpack the order's artefact")]
    NotUnpacked(#[from] NotUnpacked),
}

impl Supply {
    /// Puts the order's version, to replace `held`, into a directory of that name in `shelf`.
    pub(super) async fn bring(
        &self,
        order: &OpenClawOrder,
        held: &OpenClawVersion,
        shelf: &Path,
    ) -> Result<(), NotBrought> {
        let statement = self.named(order, held)?;
        check_room(&statement, shelf)?;
        tracing::info!(version = %order.version, size = statement.size, "OpenClaw is fetched");
        let file = timeout(WITHIN, self.depot.fetch(&statement))
            .await
            .map_err(|_| NotBrought::Late)??;
        let (version, shelf) = (order.version.clone(), shelf.to_owned());
        let stop = Arc::new(AtomicBool::new(false));
        let _stopped = StopOnDrop(Arc::clone(&stop));
        let laid = spawn_blocking(move || lay(&file, &version, &shelf, &stop));
        Ok(laid
            .await
            .unwrap_or_else(|ended| Err(NotUnpacked::Io(ended.into())))?)
    }

    fn named(
        &self,
        order: &OpenClawOrder,
        held: &OpenClawVersion,
    ) -> Result<Statement, NotBrought> {
        let signed = order.signed.as_deref();
        let signed = signed.ok_or_else(|| NotBrought::NoArtefact(order.version.clone()))?;
        let statement = believe(signed, Kind::OpenclawImage, &self.keys)?;
        let version = statement.version.to_string();
        if version != order.version.as_str() {
            return Err(NotBrought::OtherVersion {
                ordered: order.version.clone(),
                signed: version,
            });
        }
        // One build of a release may replace another one.
        let may_replace = order.version.release() == held.release()
            || held
                .as_str()
                .parse()
                .is_ok_and(|held| statement.may_replace(&held));
        if may_replace {
            Ok(statement)
        } else {
            Err(NotBrought::Older(held.clone()))
        }
    }
}

/// As it comes, unpacked, and with Docker.
fn check_room(statement: &Statement, shelf: &Path) -> Result<(), NotBrought> {
    let needed = statement
        .size
        .saturating_mul(3)
        .saturating_add(MARGIN_BYTES);
    let free = disk::free_bytes(shelf).map_err(NotUnpacked::Io)?;
    if free < needed {
        return Err(NotBrought::NoRoom {
            needed_mib: needed >> 20,
            free_mib: free >> 20,
        });
    }
    Ok(())
}

/// A version that has its name is whole.
fn lay(
    file: &Path,
    version: &OpenClawVersion,
    shelf: &Path,
    stop: &AtomicBool,
) -> Result<(), NotUnpacked> {
    let partial = shelf.join(format!("{version}.partial"));
    let unpacked = unpack(file, version, &partial, stop);
    if unpacked.is_err() {
        disk::remove_tree(&partial)?;
    }
    unpacked?;
    let place = shelf.join(version.as_str());
    disk::remove_tree(&place)?;
    std::fs::rename(&partial, &place)?;
    std::fs::File::open(shelf)?.sync_all()?;
    Ok(std::fs::remove_file(file)?)
}

#[cfg(test)]
mod tests {
    use tidepool_certs::release::ReleaseKey;
    use tidepool_shared::artefact::Sha256;
    use tokio::sync::watch;

    use super::*;
    use crate::link::Pace;

    struct Desk {
        dir: tempfile::TempDir,
        key: ReleaseKey,
    }

    impl Desk {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let key = ReleaseKey::create(&dir.path().join("key")).unwrap();
            Self { dir, key }
        }

        /// Of a server whose image believes this desk.
        fn supply(&self) -> Supply {
            let (_, line) = watch::channel(None);
            let depot = Depot::new(self.dir.path().join("depot"), line, Pace::default().backoff);
            Supply {
                depot: Arc::new(depot),
                keys: vec![self.key.id()],
            }
        }

        fn signed(&self, change: impl FnOnce(&mut Statement)) -> String {
            let mut statement = Statement {
                kind: Kind::OpenclawImage,
                version: "2026.9.5".parse().unwrap(),
                sha256: Sha256([7; 32]),
                size: 1,
                replaces_up_to: None,
            };
            change(&mut statement);
            serde_json::to_string(&self.key.sign(&statement)).unwrap()
        }
    }

    fn named(
        supply: &Supply,
        signed: impl Into<Option<String>>,
        held: &str,
    ) -> Result<Statement, NotBrought> {
        let order = OpenClawOrder {
            number: 1,
            version: "2026.9.5".parse().unwrap(),
            signed: signed.into(),
        };
        supply.named(&order, &held.parse().unwrap())
    }

    #[test]
    fn only_what_a_release_key_signed_as_the_version_that_was_ordered_is_fetched() {
        let (desk, stranger) = (Desk::new(), Desk::new());
        let supply = desk.supply();
        named(&supply, desk.signed(|_| ()), "2026.9.4").unwrap();
        let none = named(&supply, None::<String>, "2026.9.4");
        assert!(matches!(none, Err(NotBrought::NoArtefact(_))), "{none:?}");
        let agent = desk.signed(|it| it.kind = Kind::Agent);
        for refused in ["{".to_owned(), stranger.signed(|_| ()), agent] {
            let refused = named(&supply, refused, "2026.9.4");
            assert!(
                matches!(refused, Err(NotBrought::NotBelieved(_))),
                "{refused:?}"
            );
        }
        let other = desk.signed(|it| it.version = "2026.9.6".parse().unwrap());
        let other = named(&supply, other, "2026.9.4");
        assert!(
            matches!(other, Err(NotBrought::OtherVersion { .. })),
            "{other:?}"
        );
    }

    #[test]
    fn an_older_release_is_taken_only_if_it_says_that_it_may_be() {
        let desk = Desk::new();
        let supply = desk.supply();
        let older = named(&supply, desk.signed(|_| ()), "2026.9.6");
        assert!(matches!(older, Err(NotBrought::Older(_))), "{older:?}");
        let said = desk.signed(|it| it.replaces_up_to = Some("2026.9.6".parse().unwrap()));
        named(&supply, said, "2026.9.6").unwrap();
        named(&supply, desk.signed(|_| ()), "2026.9.5-r20261101").unwrap();
    }

    #[test]
    fn what_does_not_fit_on_the_disk_is_not_fetched() {
        let desk = Desk::new();
        let statement = Statement {
            kind: Kind::OpenclawImage,
            version: "2026.9.5".parse().unwrap(),
            sha256: Sha256([7; 32]),
            size: 1 << 50,
            replaces_up_to: None,
        };
        let refused = check_room(&statement, desk.dir.path());
        assert!(
            matches!(refused, Err(NotBrought::NoRoom { .. })),
            "{refused:?}"
        );
    }
}
