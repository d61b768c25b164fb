//! What the stub remembers of turns: on its disk, across restarts, unless it is told not to.
//!
//! As the real one does it: an ordinary session is listed, archived when it is deleted, and counts
//! as usage for ever; an incognito one is none of these. Every turn is an audit event, incognito or
//! not, as long as `logging.audit.enabled` is not `false`.

use std::{fs, path::PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Part of an incognito session's key.
const INCOGNITO: &str = "incognito";

/// The file of traces beside the configuration.
#[derive(Debug)]
pub(crate) struct Traces {
    path: PathBuf,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    /// Sessions created so far, so that no key is given twice.
    created: u32,
    sessions: Vec<String>,
    archived: Vec<String>,
    usage: Vec<String>,
    audit: Vec<String>,
}

impl Traces {
    pub(crate) fn of(config: &std::path::Path) -> Self {
        Self {
            path: config.with_file_name("stub-traces.json"),
        }
    }

    /// A new session's key.
    pub(crate) fn create(&self, incognito: bool) -> String {
        let mut kept = self.read();
        let kind = if incognito { INCOGNITO } else { "chat" };
        let key = format!("agent:main:dashboard:{kind}-{:08}", kept.created);
        kept.created += 1;
        if !incognito {
            kept.sessions.push(key.clone());
        }
        self.write(&kept);
        key
    }

    pub(crate) fn delete(&self, key: &str) {
        let mut kept = self.read();
        let before = kept.sessions.len();
        kept.sessions.retain(|session| session != key);
        if kept.sessions.len() < before {
            kept.archived.push(key.to_owned());
        }
        self.write(&kept);
    }

    /// A turn was run.
    pub(crate) fn ran(&self, key: &str, audited: bool) {
        let mut kept = self.read();
        let recorded = |list: &mut Vec<String>| {
            if !list.iter().any(|session| session == key) {
                list.push(key.to_owned());
            }
        };
        if !key.contains(INCOGNITO) {
            recorded(&mut kept.sessions);
            recorded(&mut kept.usage);
        }
        if audited {
            kept.audit.push(key.to_owned());
        }
        self.write(&kept);
    }

    /// The answer to `sessions.list`.
    pub(crate) fn list(&self, archived: bool) -> Value {
        let kept = self.read();
        let keys = if archived {
            kept.archived
        } else {
            kept.sessions
        };
        json!({"count": keys.len(), "sessions": rows(&keys)})
    }

    /// The answer to `sessions.usage`.
    pub(crate) fn usage(&self) -> Value {
        json!({"sessions": rows(&self.read().usage)})
    }

    /// The answer to `audit.list`.
    pub(crate) fn audit(&self) -> Value {
        json!({"events": rows(&self.read().audit)})
    }

    fn read(&self) -> Kept {
        fs::read(&self.path)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    fn write(&self, kept: &Kept) {
        let written =
            serde_json::to_vec(kept).map(|bytes| fs::write(&self.path, bytes).map_err(|_| ()));
        // A stub that forgets would make a test pass that must not.
        assert!(matches!(written, Ok(Ok(()))), "the stub's traces not kept");
    }
}

fn rows(keys: &[String]) -> Value {
    keys.iter().map(|key| json!({"key": key})).collect()
}
