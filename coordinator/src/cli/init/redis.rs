//! Who may do what in Redis: Traefik reads, the coordinator writes, and neither does anything else.

use anyhow::bail;
use tidepool_shared::document::Digest;

use crate::{
    ambient::Chance,
    routes::{ROOT, RedisUrl},
};

/// Traefik's user.
pub(super) const USER: &str = "traefik";

/// What both need to know.
pub(super) struct Access {
    /// `HOST:PORT`.
    pub(super) endpoint: String,
    pub(super) database: i64,
    /// Traefik's.
    pub(super) password: String,
    /// The coordinator's user and password, if its URL has them.
    pub(super) own: Option<(String, String)>,
}

impl Access {
    /// As the coordinator's URL has it, with a new password for Traefik.
    pub(super) fn of(url: &RedisUrl) -> anyhow::Result<Self> {
        let Some(endpoint) = url.endpoint() else {
            bail!("`edge.redis.url` is no address that Traefik could reach");
        };
        Ok(Self {
            endpoint,
            database: url.database(),
            password: Chance::from_os().secret(),
            own: url.credentials(),
        })
    }

    /// Lines for Redis' ACL file. Without `config` Traefik's own attempt to switch key events on fails, which
    /// is wanted: with them it would list everything once for each key that is written.
    pub(super) fn acl(&self) -> String {
        let hash = |password: &str| Digest::of(password.as_bytes()).to_string();
        // Redis compares the patterns of subscriptions as text.
        let reader = format!(
            "user {USER} on #{} -@all +@connection +psubscribe +punsubscribe +scan +mget +exists \
             %R~{ROOT}* resetchannels &__keyspace*:{ROOT}*\n",
            hash(&self.password)
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
