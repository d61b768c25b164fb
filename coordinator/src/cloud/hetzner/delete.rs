//! Deleting a server and seeing it gone.

use futures_util::future::try_join_all;
use tokio::time::timeout;

use super::{
    HetznerCloud,
    api::Twice,
    call::Call,
    code::Meaning,
    request::ChangeProtection,
    trouble::Trouble,
    wire::{Action, ActionStatus, Server},
};

/// Seconds for a deletion with everything that it has to wait for.
const DEADLINE: u32 = 600;

/// Seconds for the actions that lock a server; one may be stuck for ever.
const LOCK_PATIENCE: u32 = 120;

/// Seconds of the longest wait for a lock that nothing seems to hold.
const WAIT_CEILING: u32 = 15;

impl HetznerCloud {
    pub(super) async fn unmake(&self, name: &str) -> Result<(), Trouble> {
        match self.our_server(name).await? {
            Some(server) => self.delete_server(&server).await,
            None => Ok(()),
        }
    }

    /// Deletes a server that is ours.
    pub(super) async fn delete_server(&self, server: &Server) -> Result<(), Trouble> {
        timeout(self.api.pace().seconds(DEADLINE), self.until_gone(server))
            .await
            .unwrap_or(Err(Trouble::Unfinished(DEADLINE)))
    }

    async fn until_gone(&self, server: &Server) -> Result<(), Trouble> {
        let mut protected = server.protection.delete;
        let mut wait = 1;
        loop {
            if protected {
                protected = !self.lift_protection(server).await?;
            } else {
                match self.ask_to_delete(server.id).await {
                    Ok(Asked::Gone) => return Ok(()),
                    Ok(Asked::Accepted) if self.is_gone(server.id).await? => return Ok(()),
                    Ok(Asked::Accepted) => {}
                    Err(trouble) if trouble.means(Meaning::Protected) => protected = true,
                    Err(trouble) if trouble.means(Meaning::Locked) => {
                        self.wait_for_the_lock(server.id).await?;
                    }
                    Err(trouble) => return Err(trouble),
                }
            }
            self.api.wait_up_to(wait).await;
            wait = (wait * 2).min(WAIT_CEILING);
        }
    }

    async fn ask_to_delete(&self, id: u64) -> Result<Asked, Trouble> {
        let call = Call::delete(format!("servers/{id}"));
        let mut answer = match self.api.call(&call, Twice::IsHarmless).await {
            Ok(answer) => answer,
            Err(error) if error.means(Meaning::NotFound) => return Ok(Asked::Gone),
            Err(error) => return Err(error.into()),
        };
        let action: Action = answer.part("action")?;
        // However it ends, the server itself says whether it is gone.
        if let Err(trouble) = self.all_ended_well(&[action.id]).await {
            tracing::warn!(
                error = &trouble as &dyn std::error::Error,
                server.cloud_id = id,
                "deletion did not end well, asking again"
            );
        }
        Ok(Asked::Accepted)
    }

    async fn is_gone(&self, id: u64) -> Result<bool, Trouble> {
        Ok(self.api.get::<Server>(id).await?.is_none())
    }

    /// The server is ours by its labels, and the store wants it gone: whatever protected it, or
    /// whoever, meant the time before that. False if something else holds the server meanwhile.
    async fn lift_protection(&self, server: &Server) -> Result<bool, Trouble> {
        tracing::info!(server.name = server.name, "lifting delete protection");
        let body = ChangeProtection {
            delete: false,
            rebuild: false,
        };
        let path = format!("servers/{}/actions/change_protection", server.id);
        let call = Call::post(path, &body)?;
        match self.api.call(&call, Twice::IsHarmless).await {
            Ok(mut answer) => {
                let action: Action = answer.part("action")?;
                self.all_ended_well(&[action.id]).await?;
                Ok(true)
            }
            // Then the deletion will find it gone too.
            Err(error) if error.means(Meaning::NotFound) => Ok(true),
            Err(error) if error.means(Meaning::Locked) => {
                self.wait_for_the_lock(server.id).await?;
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for what runs on a server, whatever comes of it.
    async fn wait_for_the_lock(&self, id: u64) -> Result<(), Trouble> {
        let path = format!("servers/{id}/actions");
        let running: Vec<Action> = match self.api.list_at(&path, &[]).await {
            Ok(actions) => actions,
            Err(error) if error.means(Meaning::NotFound) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let ends = running
            .iter()
            .filter(|action| action.status == ActionStatus::Running)
            .map(|action| self.waiter.wait(&self.api, action.id));
        let patience = self.api.pace().seconds(LOCK_PATIENCE);
        if let Ok(ended) = timeout(patience, try_join_all(ends)).await {
            ended?;
        } else {
            tracing::warn!(
                server.cloud_id = id,
                "something has held the server for long, deleting it all the same"
            );
        }
        Ok(())
    }
}

/// What came of asking.
enum Asked {
    Gone,
    Accepted,
}
