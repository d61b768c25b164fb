//! Seeing a new server run.
//!
//! Hetzner accepts an order and then works on it with several actions. One of them may fail after the
//! others succeeded: a server that was made but not started is off, and costs. So all that the server
//! has are waited for, read from its own list, which is there after a restart of the coordinator too;
//! and only the server's own status says that it runs. What to do about one that never will is the
//! caller's to decide: delete it, and order another under a new name.

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::timeout;

use super::{
    HetznerCloud,
    trouble::Trouble,
    waiter::Outcome,
    wire::{Action, ActionStatus, Server, ServerStatus},
};

/// How many times a server may not run although nothing is under way: its status lags behind.
const LAGGING_LOOKS: u32 = 10;

/// Seconds between two of these looks.
const LOOK_INTERVAL: u32 = 3;

impl HetznerCloud {
    pub(super) async fn see_it_run(&self, name: &str) -> Result<(), Trouble> {
        let deadline = self.settings.settle_deadline_s;
        timeout(self.api.pace().seconds(deadline), self.until_it_runs(name))
            .await
            .unwrap_or(Err(Trouble::TooLate(deadline)))
    }

    async fn until_it_runs(&self, name: &str) -> Result<(), Trouble> {
        let mut lagging = 0;
        loop {
            let server = self.our_server(name).await?.ok_or(Trouble::Absent)?;
            if server.status == ServerStatus::Deleting {
                return Err(Trouble::NeverRuns(server.status.to_string()));
            }
            let open = self.open_actions(&server).await?;
            if open.is_empty() {
                if server.status == ServerStatus::Running {
                    return Ok(());
                }
                lagging += 1;
                if lagging > LAGGING_LOOKS {
                    return Err(Trouble::NeverRuns(server.status.to_string()));
                }
                tokio::time::sleep(self.api.pace().seconds(LOOK_INTERVAL)).await;
                continue;
            }
            if !self.all_ended_well(&open).await? {
                // What resolves no more may still be in the server's list: not in a hot loop.
                tokio::time::sleep(self.api.pace().seconds(LOOK_INTERVAL)).await;
            }
        }
    }

    /// The server's actions that have not ended. One that ended in error is trouble.
    async fn open_actions(&self, server: &Server) -> Result<Vec<u64>, Trouble> {
        let path = format!("servers/{}/actions", server.id);
        let actions: Vec<Action> = self.api.list_at(&path, &[]).await?;
        let mut open = Vec::new();
        for action in actions {
            match action.status {
                ActionStatus::Success => {}
                ActionStatus::Error => return Err(Trouble::of_action(&action)),
                ActionStatus::Running | ActionStatus::Other(_) => open.push(action.id),
            }
        }
        Ok(open)
    }

    /// Waits for actions until all have ended or one has in error; false if some resolve no more,
    /// which proves nothing.
    pub(super) async fn all_ended_well(&self, ids: &[u64]) -> Result<bool, Trouble> {
        let mut outcomes: FuturesUnordered<_> = ids
            .iter()
            .map(|id| self.waiter.wait(&self.api, *id))
            .collect();
        let mut all_known = true;
        while let Some(outcome) = outcomes.next().await {
            match outcome? {
                Outcome::Ended(action) if action.status == ActionStatus::Error => {
                    return Err(Trouble::of_action(&action));
                }
                Outcome::Ended(_) => {}
                Outcome::Lost => all_known = false,
            }
        }
        Ok(all_known)
    }
}
