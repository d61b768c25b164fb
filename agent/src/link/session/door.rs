//! The certificate of the server's door: asked for as soon as there is a link, and renewed over it.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, info, warn};

use super::{Chore, Question, Session, chain};
use crate::{
    door::Door,
    link::renewal::{self, RenewError},
};

impl Session<'_> {
    pub(super) fn next_door(&self) -> Instant {
        let due = self.config.door.as_ref().map_or(Duration::ZERO, |door| {
            renewal::due_in(door.leaf.life, rand::random())
        });
        (Instant::now() + due).max(self.memory.door_not_before)
    }

    pub(super) fn ask_for_door(&mut self) {
        self.door = Question::Asked;
        self.memory.door_not_before = Instant::now() + self.config.pace.renewal_pause;
        let connection = self.connection.clone();
        let server = self.config.identity.server;
        let file = self.config.door_file.clone();
        self.chores.spawn(async move {
            let door = match renewal::ask_for_door(connection, server).await {
                Ok(door) => tokio::task::spawn_blocking(move || {
                    door.save(&file)?;
                    Ok(door)
                })
                .await
                .unwrap_or(Err(RenewError::Cut)),
                Err(error) => Err(error),
            };
            Chore::Door(door)
        });
    }

    pub(super) fn has_door(&mut self, door: Result<Door, RenewError>) {
        self.door = Question::None;
        match door {
            Ok(door) => {
                info!(
                    certificate.serial = door.leaf.serial,
                    "the door has a new certificate"
                );
                self.config.door = Some(door);
            }
            Err(failure)
                if (self.config.door.as_ref())
                    .is_some_and(|door| renewal::is_late(door.leaf.life)) =>
            {
                error!(error = %chain(&failure), "the door's certificate is nearly over and not renewed");
            }
            Err(failure) => {
                warn!(error = %chain(&failure), "the door has no new certificate yet");
            }
        }
    }
}
