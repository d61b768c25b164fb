//! Which snapshot a server is made from: the newest that is available, carries the labels that the
//! operator chose, and fits the server type's architecture and disk.

use std::collections::HashSet;

use super::{
    HetznerCloud,
    trouble::Trouble,
    wire::{Image, ServerType},
};
use crate::cloud::ObjectKind;

/// What of a server type decides whether an image fits.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fit {
    architecture: String,
    /// GB.
    disk: f64,
}

impl HetznerCloud {
    pub(super) async fn image_for(&self, server_type: &str) -> Result<u64, Trouble> {
        let fit = self.fit_of(server_type).await?;
        let selector = &self.settings.image_selector;
        let snapshots: Vec<Image> = self
            .api
            .list(&[
                ("type", "snapshot"),
                ("status", "available"),
                ("label_selector", selector),
            ])
            .await?;
        newest_that_fits(&snapshots, &fit).ok_or_else(|| Trouble::NoImage {
            selector: selector.clone(),
            architecture: fit.architecture,
            disk: fit.disk,
        })
    }

    /// The firewall, put right if it drifted, and every snapshot that servers may be made from.
    pub(super) async fn all_that_is_needed(
        &self,
    ) -> Result<HashSet<(ObjectKind, String)>, Trouble> {
        self.firewall_made_right().await?;
        let firewall = self.firewall_for_creation().await?;
        let selector = &self.settings.image_selector;
        let snapshots: Vec<Image> = self
            .api
            .list(&[("type", "snapshot"), ("label_selector", selector)])
            .await?;
        let snapshots = snapshots
            .iter()
            .map(|snapshot| (ObjectKind::Snapshot, snapshot.id.to_string()));
        Ok(snapshots
            .chain([(ObjectKind::Firewall, firewall.to_string())])
            .collect())
    }

    async fn fit_of(&self, name: &str) -> Result<Fit, Trouble> {
        let mut types = self.types.lock().await;
        if let Some(fit) = types.get(name) {
            return Ok(fit.clone());
        }
        let found: Vec<ServerType> = self.api.list(&[("name", name)]).await?;
        let found = found
            .into_iter()
            .find(|server_type| server_type.name == name)
            .ok_or_else(|| Trouble::NoSuchType(name.to_owned()))?;
        let fit = Fit {
            architecture: found.architecture,
            disk: found.disk,
        };
        types.insert(name.to_owned(), fit.clone());
        Ok(fit)
    }
}

fn newest_that_fits(snapshots: &[Image], fit: &Fit) -> Option<u64> {
    snapshots
        .iter()
        .filter(|snapshot| snapshot.architecture == fit.architecture)
        .filter(|snapshot| snapshot.disk_size <= fit.disk)
        .max_by_key(|snapshot| (snapshot.created, snapshot.id))
        .map(|snapshot| snapshot.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ambient::Moment, cloud::Labels};

    fn snapshot(id: u64, created: i64, architecture: &str, disk_size: f64) -> Image {
        Image {
            id,
            description: String::new(),
            created: Moment(created),
            architecture: architecture.to_owned(),
            disk_size,
            labels: Labels::new(),
        }
    }

    #[test]
    fn the_newest_snapshot_that_fits_architecture_and_disk_is_taken() {
        let fit = Fit {
            architecture: "x86".to_owned(),
            disk: 40.0,
        };
        let snapshots = [
            snapshot(1, 10, "x86", 40.0),
            snapshot(2, 20, "x86", 40.0),
            snapshot(3, 30, "x86", 80.0),
            snapshot(4, 40, "arm", 40.0),
        ];
        assert_eq!(newest_that_fits(&snapshots, &fit), Some(2));
        assert_eq!(newest_that_fits(&snapshots[2..], &fit), None);
    }
}
