//! Which snapshot a server is made from: the newest that is available, carries the labels that the
//! operator chose, and fits the server type's architecture and disk.
//!
//! A promotion moves a label: first the new snapshot gets it, then those of the same architecture lose it, so
//! that it never is on none. A crash in between leaves it on both, which the same promotion, repeated, puts
//! right. What was promoted is kept for going back to, under another value of the same label.

use std::collections::HashSet;

use super::{
    HetznerCloud,
    api::Twice,
    call::Call,
    request::ReplaceLabels,
    trouble::Trouble,
    wire::{Image, ServerType},
};
use crate::cloud::{CloudImage, ObjectKind};

/// On every image of ours, whatever its deployment.
const ROLE: &str = "role=tidepool-image";

/// The label that a promotion moves, on what servers are made from, and on what they were made from before.
const PROMOTED: &str = "promoted";
const NOW: &str = "true";
const FORMERLY: &str = "former";

/// So many snapshots of an architecture that were promoted once are kept; each costs money.
const FORMERS_KEPT: usize = 3;

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
        let formers = self.snapshots_marked(FORMERLY).await?;
        let snapshots = snapshots
            .iter()
            .chain(&formers)
            .map(|snapshot| (ObjectKind::Snapshot, snapshot.id.to_string()));
        Ok(snapshots
            .chain([(ObjectKind::Firewall, firewall.to_string())])
            .collect())
    }

    pub(super) async fn all_images(&self) -> Result<Vec<CloudImage>, Trouble> {
        let filter = [("type", "snapshot"), ("label_selector", ROLE)];
        let mut found: Vec<Image> = self.api.list(&filter).await?;
        found.sort_by_key(|image| (image.created, image.id));
        Ok(found.iter().map(seen).collect())
    }

    pub(super) async fn image_fits(&self, image: &str, server_type: &str) -> Result<bool, Trouble> {
        let fit = self.fit_of(server_type).await?;
        let found: Option<Image> = self.api.get(id(image)?).await?;
        Ok(found.is_some_and(|image| fit.takes(&image)))
    }

    pub(super) async fn promote_image(&self, image: &str) -> Result<(), Trouble> {
        let selector = &self.settings.image_selector;
        if !selector
            .split(',')
            .any(|term| term.trim() == format!("{PROMOTED}={NOW}"))
        {
            return Err(Trouble::Selector(selector.clone()));
        }
        let image: Image = self.still_ours(id(image)?).await?.ok_or(Trouble::Absent)?;
        self.mark(&image, Some(NOW)).await?;
        for other in self.snapshots_marked(NOW).await? {
            if other.id != image.id && other.architecture == image.architecture {
                self.mark(&other, Some(FORMERLY)).await?;
            }
        }
        let mut formers = self.snapshots_marked(FORMERLY).await?;
        formers.retain(|former| former.architecture == image.architecture);
        formers.sort_by_key(|former| std::cmp::Reverse((former.created, former.id)));
        for former in formers.iter().skip(FORMERS_KEPT) {
            self.mark(former, None).await?;
        }
        self.check_taken(&image).await
    }

    /// Somebody else's snapshot that is promoted too and newer would be taken before this one, and is not ours
    /// to change.
    async fn check_taken(&self, image: &Image) -> Result<(), Trouble> {
        let filter = [
            ("type", "snapshot"),
            ("label_selector", self.settings.image_selector.as_str()),
        ];
        let found: Vec<Image> = self.api.list(&filter).await?;
        let rival = found.iter().find(|other| {
            other.architecture == image.architecture
                && (other.created, other.id) > (image.created, image.id)
        });
        match rival {
            Some(rival) => Err(Trouble::NotOurs(rival.id.to_string())),
            None => Ok(()),
        }
    }

    /// Our snapshots with this value of the label.
    async fn snapshots_marked(&self, value: &str) -> Result<Vec<Image>, Trouble> {
        let selector = format!("{},{ROLE},{PROMOTED}={value}", self.mark.selector());
        let filter = [("type", "snapshot"), ("label_selector", selector.as_str())];
        Ok(self.api.list(&filter).await?)
    }

    /// Sets or takes the label, unless it is as it should be; all others stay.
    async fn mark(&self, image: &Image, value: Option<&str>) -> Result<(), Trouble> {
        let mut labels = image.labels.clone();
        match value {
            Some(value) => labels.insert(PROMOTED.to_owned(), value.to_owned()),
            None => labels.remove(PROMOTED),
        };
        if labels == image.labels {
            return Ok(());
        }
        let body = ReplaceLabels { labels: &labels };
        let call = Call::put(format!("images/{}", image.id), &body)?;
        self.api.call(&call, Twice::IsHarmless).await?;
        Ok(())
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

impl Fit {
    fn takes(&self, image: &Image) -> bool {
        image.architecture == self.architecture && image.disk_size <= self.disk
    }
}

/// An image's id, as the rest of Tidepool writes it.
pub(super) fn id(text: &str) -> Result<u64, Trouble> {
    text.parse().map_err(|_| Trouble::BadId(text.to_owned()))
}

fn seen(image: &Image) -> CloudImage {
    CloudImage {
        id: image.id.to_string(),
        created_at: image.created,
        size_bytes: image.packed_size.and_then(bytes),
        openclaw_version: image.labels.get("openclaw").cloned(),
        agent_version: None,
        is_promoted: image.labels.get(PROMOTED).is_some_and(|value| value == NOW),
    }
}

/// Of so many GB; nothing for what is no size.
fn bytes(size_gb: f64) -> Option<u64> {
    format!("{:.0}", size_gb * 1e9).parse().ok()
}

fn newest_that_fits(snapshots: &[Image], fit: &Fit) -> Option<u64> {
    snapshots
        .iter()
        .filter(|snapshot| fit.takes(snapshot))
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
            packed_size: None,
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
