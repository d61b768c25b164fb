//! The gateway's own word on a new configuration file.
//!
//! Lines (2026.9.5 and 2026.9.6): `config hot reload applied (…)`, `config change applied (dynamic
//! reads: …)`, `config reload skipped (invalid config): …`, `config reload failed: …`, `config change
//! requires gateway restart (…)`. A change that needs no action at all has no line but `config change
//! detected`; then the copy `openclaw.json.last-good` tells, which is made of every accepted file.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, sleep};

use super::POLL;
use crate::{
    openclaw::{Place, file},
    runtime::{Log, Since},
};

/// The longest reason that is passed on.
const MAX_REASON: usize = 500;

/// What the gateway said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Proof {
    Applied,
    Refused(String),
    /// It restarts by itself.
    Restarting,
    /// Not a word in time.
    None,
}

/// A look at the log from before the file was written.
#[derive(Debug)]
pub(super) struct Watch<'log> {
    log: &'log Log,
    since: Since,
    accepted_copy: PathBuf,
    /// When the copy was made that was there before; an old one proves nothing.
    copied_before: Option<SystemTime>,
    bytes: Vec<u8>,
}

impl<'log> Watch<'log> {
    /// Begins to watch; to be called before the file is written.
    pub(super) fn begin(place: &Place, log: &'log Log, bytes: &[u8]) -> Self {
        let accepted_copy = place.accepted_path();
        Self {
            since: log.end(),
            log,
            copied_before: file::modified(&accepted_copy),
            accepted_copy,
            bytes: bytes.to_vec(),
        }
    }

    /// Waits for the gateway's word.
    ///
    /// A line does not say which file it is about: the gateway may just have taken over one that it
    /// wrote itself. So `applied` counts once the accepted copy is ours, or when the time is up.
    pub(super) async fn word(&mut self, patience: Duration) -> Proof {
        let deadline = Instant::now() + patience;
        let mut said_applied = false;
        loop {
            for word in self.lines().iter().filter_map(|line| judge(line)) {
                match word {
                    Proof::Applied => said_applied = true,
                    Proof::Refused(_) | Proof::Restarting | Proof::None => return word,
                }
            }
            if self.was_accepted() {
                return Proof::Applied;
            }
            if Instant::now() >= deadline {
                return if said_applied {
                    Proof::Applied
                } else {
                    Proof::None
                };
            }
            sleep(POLL).await;
        }
    }

    /// Whether the gateway has finished a restart since the last look.
    pub(super) fn has_restarted(&mut self) -> bool {
        self.lines().iter().any(|line| says_ready(line))
    }

    fn lines(&mut self) -> Vec<String> {
        // An unreadable log is silence: the deadline decides.
        self.log.read(&mut self.since).unwrap_or_default()
    }

    fn was_accepted(&self) -> bool {
        file::modified(&self.accepted_copy) != self.copied_before
            && holds(&self.accepted_copy, &self.bytes)
    }
}

/// Whether the last file that the gateway accepted while running is this one.
pub(super) fn was_accepted_last(place: &Place, bytes: &[u8]) -> bool {
    holds(&place.accepted_path(), bytes)
}

fn holds(path: &Path, bytes: &[u8]) -> bool {
    matches!(file::read(path), Ok(Some(copy)) if copy == bytes)
}

/// Whether this is what a gateway prints at the end of each start, also of one in its process.
pub(super) fn says_ready(line: &str) -> bool {
    // Directly behind the time: the gateway also prints what models say.
    line.split_once(' ')
        .is_some_and(|(_, said)| said == "[gateway] ready")
}

fn judge(line: &str) -> Option<Proof> {
    // Directly behind the time: the gateway also prints what models say.
    let (_, after_time) = line.split_once(' ')?;
    let said = after_time.strip_prefix("[reload] ")?;
    if said.starts_with("config hot reload applied") || said.starts_with("config change applied") {
        Some(Proof::Applied)
    } else if said.starts_with("config change requires gateway restart") {
        Some(Proof::Restarting)
    } else if said.starts_with("config reload skipped") {
        // `…: the setting: what is wrong with it`, of which the last may quote a secret, unless it is
        // about a key that there is not.
        let whole = said.contains(": Unrecognized key");
        Some(Proof::Refused(parts(said, if whole { 4 } else { 2 })))
    } else if said.starts_with("config reload failed") {
        Some(Proof::Refused(parts(said, 1)))
    } else {
        None
    }
}

fn parts(said: &str, count: usize) -> String {
    let kept: Vec<_> = said.split(": ").take(count).collect();
    kept.join(": ").chars().take(MAX_REASON).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateways_words_are_understood() {
        let said = |text: &str| judge(&format!("2026-11-23T20:55:16.715+00:00 [reload] {text}"));
        assert_eq!(
            said("config hot reload applied (plugins.entries.admin-http-rpc)"),
            Some(Proof::Applied)
        );
        assert_eq!(
            said("config change applied (dynamic reads: messages)"),
            Some(Proof::Applied)
        );
        assert_eq!(
            said("config change requires gateway restart (gateway.port)"),
            Some(Proof::Restarting)
        );
        let skipped = "config reload skipped (invalid config): ui: Unrecognized key: \"assistant\"";
        let refused = |reason: &str| Some(Proof::Refused(reason.to_owned()));
        assert_eq!(said(skipped), refused(skipped));
        assert_eq!(
            said(
                "config reload skipped (invalid config): channels.telegram: Invalid token 123:abc"
            ),
            refused("config reload skipped (invalid config): channels.telegram")
        );
        assert_eq!(
            said("config reload failed: Error: bot 123:secret was refused"),
            refused("config reload failed")
        );
        assert_eq!(said("config change detected; evaluating reload (a)"), None);
        assert_eq!(
            judge("2026-11-23T20:55:25.667+00:00 Hello [reload] config hot reload applied (x)"),
            None
        );
    }
}
