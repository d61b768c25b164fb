//! Everything in the Project that is ours, and the removal of what nothing knows any more.
//!
//! The list is whole or an error, because whoever reads it takes what is missing for gone. Addresses
//! that came with a server bear no labels and go with it; those that are found here were made apart.

use super::{
    HetznerCloud,
    api::Twice,
    call::Call,
    code::Meaning,
    trouble::Trouble,
    wire::{Firewall, Image, PrimaryIp, Resource, Server},
};
use crate::{
    ambient::Moment,
    cloud::{CloudObject, Labels, ObjectKind},
};

/// What can be listed as ours.
pub(super) trait Owned: Resource {
    const KIND: ObjectKind;

    fn name(&self) -> &str;
    fn labels(&self) -> &Labels;
    fn created(&self) -> Moment;

    /// Whether something else still needs it.
    fn in_use(&self) -> bool {
        false
    }
}

macro_rules! owned {
    ($type:ident, $kind:ident, $name:ident $(, in_use: $in_use:expr)?) => {
        impl Owned for $type {
            const KIND: ObjectKind = ObjectKind::$kind;

            fn name(&self) -> &str {
                &self.$name
            }

            fn labels(&self) -> &Labels {
                &self.labels
            }

            fn created(&self) -> Moment {
                self.created
            }

            $(fn in_use(&self) -> bool {
                let in_use: fn(&Self) -> bool = $in_use;
                in_use(self)
            })?
        }
    };
}

owned!(Server, Server, name);
owned!(Firewall, Firewall, name, in_use: |firewall| !firewall.applied_to.is_empty());
// Snapshots have no name.
owned!(Image, Snapshot, description);
owned!(PrimaryIp, PrimaryAddress, name, in_use: |address| address.assignee_id.is_some());

impl HetznerCloud {
    pub(super) async fn everything_of_ours(&self) -> Result<Vec<CloudObject>, Trouble> {
        let mut all = self.ours::<Server>(&[]).await?;
        all.extend(self.ours::<Firewall>(&[]).await?);
        all.extend(self.ours::<Image>(&[("type", "snapshot")]).await?);
        all.extend(self.ours::<PrimaryIp>(&[]).await?);
        Ok(all)
    }

    async fn ours<R: Owned>(
        &self,
        filter: &[(&'static str, &str)],
    ) -> Result<Vec<CloudObject>, Trouble> {
        let selector = self.mark.selector();
        let mut filter = filter.to_vec();
        filter.push(("label_selector", &selector));
        let found: Vec<R> = self.api.list(&filter).await?;
        Ok(found
            .iter()
            // Should a selector ever mean something else than is thought here.
            .filter(|thing| self.mark.is_on(thing.labels()))
            .map(|thing| CloudObject {
                kind: R::KIND,
                id: thing.id().to_string(),
                name: thing.name().to_owned(),
                labels: thing.labels().clone(),
                created_at: thing.created(),
                in_use: thing.in_use(),
            })
            .collect())
    }

    /// Looks at the thing again, and removes it if it is still ours.
    pub(super) async fn sweep(&self, object: &CloudObject) -> Result<(), Trouble> {
        let id: u64 = object
            .id
            .parse()
            .map_err(|_| Trouble::BadId(object.id.clone()))?;
        match object.kind {
            ObjectKind::Server => match self.still_ours::<Server>(id).await? {
                Some(server) => self.delete_server(&server).await,
                None => Ok(()),
            },
            ObjectKind::Firewall => self.remove_at_once::<Firewall>(id).await,
            ObjectKind::Snapshot => self.remove_at_once::<Image>(id).await,
            ObjectKind::PrimaryAddress => self.remove_at_once::<PrimaryIp>(id).await,
        }
    }

    pub(super) async fn still_ours<R: Owned>(&self, id: u64) -> Result<Option<R>, Trouble> {
        match self.api.get::<R>(id).await? {
            Some(thing) if !self.mark.is_on(thing.labels()) => {
                Err(Trouble::NotOurs(thing.name().to_owned()))
            }
            found => Ok(found),
        }
    }

    /// For what is gone when the answer comes. Protection is left alone here: unlike a server, a
    /// snapshot or an address that is protected was meant to outlast us.
    async fn remove_at_once<R: Owned>(&self, id: u64) -> Result<(), Trouble> {
        if self.still_ours::<R>(id).await?.is_none() {
            return Ok(());
        }
        let call = Call::delete(format!("{}/{id}", R::MANY));
        match self.api.call(&call, Twice::IsHarmless).await {
            Err(error) if !error.means(Meaning::NotFound) => Err(error.into()),
            _ => Ok(()),
        }
    }
}
