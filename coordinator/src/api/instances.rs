//! Instances over HTTP: one file for each thing that can be done with them.

pub mod basic_auth;
pub mod config;
pub mod create;
pub mod delete;
pub mod domains;
pub mod edge_limits;
pub mod keys;
pub mod limits;
pub mod login_links;
pub mod logs;
pub mod networks;
pub mod openclaw;
pub mod read;
pub mod rename;
pub mod restart;
pub mod sessions;
pub mod stop;
pub mod suspend;
pub mod undelete;
pub mod view;
pub mod wait;

use tidepool_shared::id::InstanceId;

use super::{
    ApiState,
    problem::{Code, Problem},
};
use crate::{
    doorbell::Ring,
    model::{Instance, InstanceStatus},
    store::ChangeRefused,
};

/// The instance that a path names by id, or by name as long as it is not purged.
pub(super) async fn find(state: &ApiState, key: &str) -> Result<Instance, Problem> {
    let found = match key.parse::<InstanceId>() {
        Ok(id) => state.store.instance(id).await?,
        Err(_) => state.store.instance_named(key).await?,
    };
    found.ok_or_else(gone)
}

/// Like [`find`], but a deleted one counts as not there.
async fn find_living(state: &ApiState, key: &str) -> Result<Instance, Problem> {
    let instance = find(state, key).await?;
    match instance.status {
        InstanceStatus::Deleted | InstanceStatus::Purged => Err(gone()),
        InstanceStatus::Pending
        | InstanceStatus::Starting
        | InstanceStatus::Running
        | InstanceStatus::Stopped
        | InstanceStatus::Suspended
        | InstanceStatus::Failed => Ok(instance),
    }
}

fn gone() -> Problem {
    Problem::new(Code::NotFound, "no such instance")
}

/// Tells everybody who may have to act on a change of this instance.
fn ring(state: &ApiState, instance: &Instance) {
    if let Some(server) = instance.server {
        state.doorbell.ring(Ring::Server(server));
    }
    state.doorbell.ring(Ring::Instance(instance.id));
    state.doorbell.ring(Ring::Events);
}

fn refused(refused: ChangeRefused) -> Problem {
    match refused {
        ChangeRefused::NotFound => gone(),
        ChangeRefused::Stale(present) => {
            Problem::new(Code::Stale, format!("the present generation is {present}"))
        }
        ChangeRefused::OperationInProgress(operation) => Problem::busy(operation),
        refused @ (ChangeRefused::TooManyNames(_)
        | ChangeRefused::Pinned(_)
        | ChangeRefused::NotRolledOut) => Problem::new(Code::NotPossible, refused.to_string()),
        ChangeRefused::NameTaken => Problem::new(Code::NameTaken, "choose another name"),
        ChangeRefused::Store(error) => error.into(),
    }
}
