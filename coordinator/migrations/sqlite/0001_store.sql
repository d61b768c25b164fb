-- The store's first shape. Ids are their text form, moments microseconds since 1970, enums their
-- words, lists and free data JSON. No CHECK on words: SQLite cannot change one without copying the
-- table, and the reader refuses unknown words anyway.

-- `ordinal` is the order of creation, in which instances wait and are listed; rows stay for ever.
CREATE TABLE instances (
    ordinal     INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    name        TEXT NOT NULL,
    external_id TEXT,
    tier        TEXT NOT NULL,
    status      TEXT NOT NULL,
    health      TEXT NOT NULL,
    reasons     TEXT NOT NULL,
    url         TEXT NOT NULL,
    hosts       TEXT NOT NULL,
    server_id   TEXT REFERENCES servers (id),
    generation  INTEGER NOT NULL,
    observed    INTEGER NOT NULL,
    restarts    INTEGER NOT NULL,
    config      TEXT NOT NULL,
    edge_proof  TEXT NOT NULL,
    basic_auth  TEXT,
    warm        INTEGER NOT NULL,
    timings     TEXT NOT NULL,
    problem     TEXT,
    created_at  INTEGER NOT NULL,
    claimed_at  INTEGER,
    ready_at    INTEGER,
    deleted_at  INTEGER
) STRICT;
-- A deleted instance's name and external id may be used again.
CREATE UNIQUE INDEX instances_name ON instances (name) WHERE status <> 'deleted';
CREATE UNIQUE INDEX instances_external_id ON instances (external_id)
    WHERE external_id IS NOT NULL AND status <> 'deleted';
CREATE INDEX instances_waiting ON instances (tier, ordinal) WHERE status = 'pending';

-- `instance_id` is checked at commit: a claim takes the server before the instance's row exists,
-- because it must know first whether there is one.
CREATE TABLE servers (
    id               TEXT PRIMARY KEY,
    name             TEXT NOT NULL UNIQUE,
    tier             TEXT NOT NULL,
    state            TEXT NOT NULL,
    cloud_id         TEXT,
    address          TEXT,
    instance_id      TEXT REFERENCES instances (id) DEFERRABLE INITIALLY DEFERRED,
    openclaw_version TEXT,
    epoch            INTEGER NOT NULL DEFAULT 0,
    served           INTEGER NOT NULL DEFAULT 0,
    observed         INTEGER NOT NULL DEFAULT 0,
    rejected         INTEGER NOT NULL DEFAULT 0,
    health           TEXT NOT NULL,
    reasons          TEXT NOT NULL,
    gateway_starts   INTEGER NOT NULL DEFAULT 0,
    revoked          INTEGER NOT NULL DEFAULT 0,
    failure          TEXT,
    created_at       INTEGER NOT NULL,
    state_since      INTEGER NOT NULL
) STRICT;
CREATE INDEX servers_warm ON servers (tier, created_at, id) WHERE state = 'warm';
CREATE INDEX servers_present ON servers (created_at, id) WHERE state <> 'gone';
-- A server serves one customer in its life, and a customer has one server.
CREATE UNIQUE INDEX servers_claimed ON servers (instance_id) WHERE state = 'claimed';

CREATE TABLE enrolment_tokens (
    hash       BLOB PRIMARY KEY,
    server_id  TEXT NOT NULL REFERENCES servers (id),
    expires_at INTEGER NOT NULL,
    used_at    INTEGER
) STRICT, WITHOUT ROWID;

-- Read by tidepool-proxy, too: SELECT server_id, instance_id FROM trust WHERE address = ?
-- The address is canonical text: an IPv4 address is never written as a mapped IPv6 one.
CREATE TABLE trust (
    address     TEXT PRIMARY KEY,
    server_id   TEXT NOT NULL UNIQUE REFERENCES servers (id),
    instance_id TEXT REFERENCES instances (id)
) STRICT, WITHOUT ROWID;

-- The present document of each instance; the one before is of no use to anybody.
CREATE TABLE documents (
    instance_id TEXT PRIMARY KEY REFERENCES instances (id),
    generation  INTEGER NOT NULL,
    digest      BLOB NOT NULL,
    bytes       BLOB NOT NULL
) STRICT;

CREATE TABLE operations (
    id          TEXT PRIMARY KEY,
    instance_id TEXT NOT NULL REFERENCES instances (id),
    kind        TEXT NOT NULL,
    state       TEXT NOT NULL,
    steps       TEXT NOT NULL,
    generation  INTEGER,
    error       TEXT,
    created_at  INTEGER NOT NULL,
    finished_at INTEGER
) STRICT;
-- One operation at a time: the index holds even if a query forgets it.
CREATE UNIQUE INDEX operations_under_way ON operations (instance_id)
    WHERE state IN ('queued', 'running');

CREATE TABLE routes (
    host        TEXT PRIMARY KEY,
    instance_id TEXT NOT NULL REFERENCES instances (id)
) STRICT, WITHOUT ROWID;
CREATE INDEX routes_of_instance ON routes (instance_id);

-- `sequence` has no gaps: it is allocated as the greatest plus one, by the one writer. Whoever trims
-- this table must leave the newest row. No references: an audit may name a server that never was.
CREATE TABLE events (
    sequence    INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    kind        TEXT NOT NULL,
    instance_id TEXT,
    server_id   TEXT,
    data        TEXT NOT NULL,
    at          INTEGER NOT NULL
) STRICT;
CREATE INDEX events_of_instance ON events (instance_id, sequence) WHERE instance_id IS NOT NULL;

CREATE TABLE api_tokens (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL,
    secret_hash BLOB NOT NULL,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER,
    revoked_at  INTEGER
) STRICT;

-- A spent link is a deleted row.
CREATE TABLE login_links (
    hash        BLOB PRIMARY KEY,
    instance_id TEXT NOT NULL REFERENCES instances (id),
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX login_links_of_instance ON login_links (instance_id);
CREATE INDEX login_links_expiry ON login_links (expires_at);

CREATE TABLE sessions (
    hash        BLOB PRIMARY KEY,
    instance_id TEXT NOT NULL REFERENCES instances (id),
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_of_instance ON sessions (instance_id);
CREATE INDEX sessions_expiry ON sessions (expires_at);

-- `status` and `body` are the answer, once there is one.
CREATE TABLE idempotency (
    token_id     TEXT NOT NULL,
    key          TEXT NOT NULL,
    request_hash BLOB NOT NULL,
    started_at   INTEGER NOT NULL,
    status       INTEGER,
    body         TEXT,
    PRIMARY KEY (token_id, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_age ON idempotency (started_at);
