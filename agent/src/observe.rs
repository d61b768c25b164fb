//! The observe loop: looks every two seconds at what runs, says how it is, and wakes whoever must act.
//!
//! It repairs nothing itself, so that a repair and a look never disagree about whose turn it is.

use std::{sync::Arc, time::Duration};

use tidepool_shared::{
    document::{DesiredDocument, Power},
    message::Health,
};
use tokio::{
    sync::{Notify, watch},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    converge::{
        board::{Board, Part},
        body::{Gateway, Probe},
    },
    nginx::{MAX_LOG_BYTES, Nginx},
};

const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Its event loop may stall for seconds while it works; this many looks without an answer are no stall.
const SILENT_LOOKS: u32 = 5;

/// What is looked at and who is told.
pub struct Observer<G> {
    pub gateway: Arc<G>,
    pub nginx: Arc<Nginx>,
    pub documents: watch::Receiver<Option<Arc<DesiredDocument>>>,
    pub board: Arc<Board>,
    pub wake_front: Arc<Notify>,
    pub wake_body: Arc<Notify>,
}

impl<G: Gateway> Observer<G> {
    /// Runs until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silent_looks = 0;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.look_at_gateway(&mut silent_looks) => {}
            }
            self.look_at_nginx();
        }
    }

    async fn look_at_gateway(&self, silent_looks: &mut u32) {
        self.gateway.tend();
        if self.gateway.process().await.is_none() {
            *silent_looks = 0;
            if self.is_switched_off() {
                return self.board.gateway_rests();
            }
            self.board
                .trouble(Part::Gateway, Health::Down, "gateway is not running");
            self.wake_body.notify_one();
            return;
        }
        match self.gateway.probe().await {
            Probe::Started => {
                *silent_looks = 0;
                self.board.gateway_answers();
            }
            Probe::NotYet => {
                *silent_looks = 0;
                let reason = "gateway starts, or finishes its runs before a restart";
                self.board.trouble(Part::Gateway, Health::Degraded, reason);
                self.wake_body.notify_one();
            }
            Probe::Silent => {
                *silent_looks = silent_looks.saturating_add(1);
                let health = if *silent_looks < SILENT_LOOKS {
                    Health::Degraded
                } else {
                    self.wake_body.notify_one();
                    Health::Down
                };
                self.board
                    .trouble(Part::Gateway, health, "gateway does not answer");
            }
        }
    }

    fn is_switched_off(&self) -> bool {
        let document = self.documents.borrow();
        document
            .as_ref()
            .is_some_and(|document| document.power == Power::Off)
    }

    fn look_at_nginx(&self) {
        if !self.nginx.is_running() {
            self.board
                .trouble(Part::Nginx, Health::Down, "nginx is not running");
            self.wake_front.notify_one();
        }
        if let Err(error) = self.nginx.rotate_logs(MAX_LOG_BYTES) {
            tracing::warn!(%error, "nginx's logs not put aside");
        }
    }
}
