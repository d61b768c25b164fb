-- Customers' own host names. Many may ask for a name; who has proven that it is theirs has it alone.

-- `token` is what a TXT record of the name must say. `next_check_at`: NULL when nobody looks any more.
-- The certificate's key is sealed.
CREATE TABLE domains (
    name          TEXT NOT NULL,
    instance_id   TEXT NOT NULL REFERENCES instances (id),
    token         TEXT NOT NULL,
    state         TEXT NOT NULL,
    problem       TEXT,
    attempts      INTEGER NOT NULL DEFAULT 0,
    created_at    INTEGER NOT NULL,
    state_since   INTEGER NOT NULL,
    failing_since INTEGER,
    next_check_at INTEGER,
    chain         TEXT,
    sealed_key    BLOB,
    issued_at     INTEGER,
    expires_at    INTEGER,
    PRIMARY KEY (name, instance_id)
) STRICT;
CREATE INDEX domains_of_instance ON domains (instance_id);
CREATE INDEX domains_due ON domains (next_check_at) WHERE next_check_at IS NOT NULL;
CREATE UNIQUE INDEX domains_held ON domains (name) WHERE state IN ('issuing', 'active', 'expiring');

-- The names in an instance's present document, beside its hosts.
ALTER TABLE instances ADD COLUMN domains TEXT NOT NULL DEFAULT '[]';
CREATE INDEX instances_with_domains ON instances (id) WHERE domains <> '[]';

-- Where a host name leads: an instance's own names, those it had before, and customers' names that are served.
CREATE VIEW hosts AS
    SELECT host, instance_id, moved_until FROM routes
    UNION ALL
    SELECT name, instance_id, NULL FROM domains WHERE state IN ('active', 'expiring');

-- What the certificate authority must be shown, by whichever edge it asks.
CREATE TABLE acme_challenges (
    token      TEXT PRIMARY KEY,
    answer     TEXT NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

-- Our account at a certificate authority, sealed.
CREATE TABLE acme_accounts (
    directory TEXT PRIMARY KEY,
    sealed    BLOB NOT NULL
) STRICT;
