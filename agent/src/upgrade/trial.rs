//! What a new version must show before the old one is given up.
//!
//! It starts within a time, it is the version that was ordered, it lets the owner in, and it is still there a
//! little later. A process that ends meanwhile has failed, whoever starts it again.

use std::time::Duration;

use tidepool_shared::openclaw_version::OpenClawVersion;
use tokio::time::{Instant, sleep};

use crate::{
    gateway::{As, Gateway, Startup},
    openclaw::Place,
    runtime::{Runtime, State},
};

/// Between two looks.
const POLL: Duration = Duration::from_millis(100);
/// At the end of a trial: one that is busy just then has not failed.
const LAST_LOOKS: u32 = 10;
const BETWEEN_LAST_LOOKS: Duration = Duration::from_secs(1);

/// A version on trial.
pub struct Trial<'a> {
    pub runtime: &'a dyn Runtime,
    pub gateway: &'a Gateway,
    pub place: &'a Place,
    pub version: &'a OpenClawVersion,
    /// For its start.
    pub patience: Duration,
    /// For which it must stay.
    pub steady: Duration,
}

/// What was wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failing {
    #[error("it ended while it was on trial; its log says why")]
    Ended,
    #[error("it did not start within {0:?}")]
    Late(Duration),
    #[error("it says that it is version {0}")]
    OtherVersion(String),
    #[error("it does not let the owner in")]
    Refuses,
    #[error("it did not stay up")]
    NotSteady,
}

impl Trial<'_> {
    /// Waits for the proof.
    pub async fn run(&self) -> Result<(), Failing> {
        let process = self.process().await.ok_or(Failing::Ended)?;
        let deadline = Instant::now() + self.patience;
        while self.gateway.startup().await != Startup::Started {
            self.is_still(&process).await?;
            if Instant::now() >= deadline {
                return Err(Failing::Late(self.patience));
            }
            sleep(POLL).await;
        }
        let said = loop {
            if let Some(said) = self.gateway.version().await {
                break said;
            }
            // It is busy for seconds now and then while it starts.
            self.is_still(&process).await?;
            if Instant::now() >= deadline {
                return Err(Failing::Refuses);
            }
            sleep(POLL).await;
        };
        let is_ordered = said
            .parse::<OpenClawVersion>()
            .is_ok_and(|said| said.release() == self.version.release());
        if !is_ordered {
            return Err(Failing::OtherVersion(said));
        }
        let until = Instant::now() + self.steady;
        while Instant::now() < until {
            self.is_still(&process).await?;
            sleep(POLL).await;
        }
        for _ in 0..LAST_LOOKS {
            self.is_still(&process).await?;
            let stays = self.gateway.startup().await == Startup::Started
                && self.gateway.admits(As::Owner).await;
            if stays {
                return Ok(());
            }
            sleep(BETWEEN_LAST_LOOKS).await;
        }
        Err(Failing::NotSteady)
    }

    async fn is_still(&self, process: &str) -> Result<(), Failing> {
        match self.process().await {
            Some(now) if now == process => Ok(()),
            Some(_) | None => Err(Failing::Ended),
        }
    }

    /// Another process leaves another record.
    async fn process(&self) -> Option<String> {
        match self.runtime.state().await {
            State::Running => std::fs::read_to_string(self.place.process_record()).ok(),
            State::Stopped { .. } => None,
        }
    }
}
