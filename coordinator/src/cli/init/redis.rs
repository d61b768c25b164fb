//! Who may do what in Redis: Traefik reads, the coordinator writes, and neither does anything else.

use anyhow::Context as _;
use tidepool_shared::document::Digest;

use crate::routes::{ROOT, RedisUrl};

/// Traefik's user.
pub(super) const USER: &str = "traefik";

/// What both need to know.
pub(super) struct Access {
    /// `HOST:PORT`.
    pub(super) endpoint: String,
    pub(super) database: i64,
    /// Traefik's, the newest first: all are good, so that no Traefik is locked out by another's set-up.
    pub(super) passwords: Vec<String>,
    /// The coordinator's user and password, if its URL has them.
    pub(super) own: Option<(String, String)>,
}

impl Access {
    /// As the coordinator's URL has it, with no password for Traefik yet.
    pub(super) fn of(url: &RedisUrl) -> anyhow::Result<Self> {
        let endpoint = url.endpoint();
        Ok(Self {
            endpoint: endpoint
                .context("`edge.redis.url` is no address that Traefik could reach")?,
            database: url.database(),
            passwords: Vec::new(),
            own: url.credentials(),
        })
    }

    /// Lines for Redis' ACL file. Without `config` Traefik's own attempt to switch key events on fails, which
    /// is wanted: with them it would list everything once for each key that is written.
    pub(super) fn acl(&self) -> String {
        let hash = |password: &str| Digest::of(password.as_bytes()).to_string();
        // Redis compares the patterns of subscriptions as text.
        let passwords: Vec<_> = self
            .passwords
            .iter()
            .map(|it| format!("#{}", hash(it)))
            .collect();
        let reader = format!(
            "user {USER} on {} -@all +@connection +psubscribe +punsubscribe +scan +mget +exists \
             %R~{ROOT}* resetchannels &__keyspace*:{ROOT}*\n",
            passwords.join(" ")
        );
        let writer = self.own.as_ref().map(|(name, password)| {
            format!(
                "user {name} on #{} -@all +@connection +@transaction +get +mget +set +del +scan +publish \
                 ~{ROOT}* resetchannels &__keyspace@{}__:{ROOT}\n",
                hash(password),
                self.database
            )
        });
        reader + &writer.unwrap_or_default()
    }
}
