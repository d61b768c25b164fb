-- The store's first shape, as in migrations/sqlite: ids are their text form, moments microseconds since
-- 1970, enums their words, lists and free data JSON as text, exactly as it was given. Ids compare by
-- their bytes (`COLLATE "C"`), whatever the database's language: their order is that of creation.

-- `ordinal` is the order of creation, in which instances wait and are listed; rows stay for ever.
CREATE TABLE instances (
    ordinal     BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id          TEXT COLLATE "C" NOT NULL UNIQUE,
    name        TEXT NOT NULL,
    external_id TEXT,
    tier        TEXT NOT NULL,
    status      TEXT NOT NULL,
    health      TEXT NOT NULL,
    reasons     TEXT NOT NULL,
    url         TEXT NOT NULL,
    hosts       TEXT NOT NULL,
    server_id   TEXT COLLATE "C",
    generation  BIGINT NOT NULL,
    observed    BIGINT NOT NULL,
    restarts    BIGINT NOT NULL,
    config      TEXT NOT NULL,
    edge_proof  TEXT NOT NULL,
    basic_auth  TEXT,
    warm        BOOLEAN NOT NULL,
    timings     TEXT NOT NULL,
    problem     TEXT,
    created_at  BIGINT NOT NULL,
    claimed_at  BIGINT,
    ready_at    BIGINT,
    deleted_at  BIGINT
);
-- A deleted instance's name and external id may be used again.
CREATE UNIQUE INDEX instances_name ON instances (name) WHERE status <> 'deleted';
CREATE UNIQUE INDEX instances_external_id ON instances (external_id)
    WHERE external_id IS NOT NULL AND status <> 'deleted';
CREATE INDEX instances_waiting ON instances (tier, ordinal) WHERE status = 'pending';

-- `instance_id` is checked at commit: a claim takes the server before the instance's row exists,
-- because it must know first whether there is one. The room left in each page keeps a report, which
-- changes no indexed column, within its page.
CREATE TABLE servers (
    id               TEXT COLLATE "C" PRIMARY KEY,
    name             TEXT NOT NULL UNIQUE,
    tier             TEXT NOT NULL,
    state            TEXT NOT NULL,
    cloud_id         TEXT,
    address          TEXT,
    instance_id      TEXT COLLATE "C" REFERENCES instances (id) DEFERRABLE INITIALLY DEFERRED,
    openclaw_version TEXT,
    epoch            BIGINT NOT NULL DEFAULT 0,
    served           BIGINT NOT NULL DEFAULT 0,
    observed         BIGINT NOT NULL DEFAULT 0,
    rejected         BIGINT NOT NULL DEFAULT 0,
    health           TEXT NOT NULL,
    reasons          TEXT NOT NULL,
    gateway_starts   BIGINT NOT NULL DEFAULT 0,
    revoked          BOOLEAN NOT NULL DEFAULT FALSE,
    failure          TEXT,
    created_at       BIGINT NOT NULL,
    state_since      BIGINT NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX servers_warm ON servers (tier, created_at, id) WHERE state = 'warm';
CREATE INDEX servers_present ON servers (created_at, id) WHERE state <> 'gone';
ALTER TABLE instances ADD FOREIGN KEY (server_id) REFERENCES servers (id);
-- A server serves one customer in its life, and a customer has one server.
CREATE UNIQUE INDEX servers_claimed ON servers (instance_id) WHERE state = 'claimed';

CREATE TABLE enrolment_tokens (
    hash       BYTEA PRIMARY KEY,
    server_id  TEXT COLLATE "C" NOT NULL REFERENCES servers (id),
    expires_at BIGINT NOT NULL,
    used_at    BIGINT
);

-- Read by tidepool-proxy, too: SELECT server_id, instance_id FROM trust WHERE address = $1
-- The address is canonical text: an IPv4 address is never written as a mapped IPv6 one.
CREATE TABLE trust (
    address     TEXT PRIMARY KEY,
    server_id   TEXT COLLATE "C" NOT NULL UNIQUE REFERENCES servers (id),
    instance_id TEXT COLLATE "C" REFERENCES instances (id)
);

-- The present document of each instance; the one before is of no use to anybody.
CREATE TABLE documents (
    instance_id TEXT COLLATE "C" PRIMARY KEY REFERENCES instances (id),
    generation  BIGINT NOT NULL,
    digest      BYTEA NOT NULL,
    bytes       BYTEA NOT NULL
);

CREATE TABLE operations (
    id          TEXT COLLATE "C" PRIMARY KEY,
    instance_id TEXT COLLATE "C" NOT NULL REFERENCES instances (id),
    kind        TEXT NOT NULL,
    state       TEXT NOT NULL,
    steps       TEXT NOT NULL,
    generation  BIGINT,
    error       TEXT,
    created_at  BIGINT NOT NULL,
    finished_at BIGINT
);
-- One operation at a time: the index holds even if a query forgets it.
CREATE UNIQUE INDEX operations_under_way ON operations (instance_id)
    WHERE state IN ('queued', 'running');

CREATE TABLE routes (
    host        TEXT PRIMARY KEY,
    instance_id TEXT COLLATE "C" NOT NULL REFERENCES instances (id)
);
CREATE INDEX routes_of_instance ON routes (instance_id);

-- Events that nobody has read yet, in the order in which they were written. Whoever reads events moves
-- those that are committed to `events` first, under one lock, and numbers them there: a number that were
-- given at writing would make every commit wait for the one before it, or come to light out of order.
CREATE TABLE event_inbox (
    position    BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id          TEXT COLLATE "C" NOT NULL,
    kind        TEXT NOT NULL,
    instance_id TEXT COLLATE "C",
    server_id   TEXT COLLATE "C",
    data        TEXT NOT NULL,
    at          BIGINT NOT NULL
);

-- `sequence` has no gaps: it is the greatest plus one, given under a lock. Whoever trims this table must
-- leave the newest row. No references: an audit may name a server that never was.
CREATE TABLE events (
    sequence    BIGINT PRIMARY KEY,
    id          TEXT COLLATE "C" NOT NULL UNIQUE,
    kind        TEXT NOT NULL,
    instance_id TEXT COLLATE "C",
    server_id   TEXT COLLATE "C",
    data        TEXT NOT NULL,
    at          BIGINT NOT NULL
);
CREATE INDEX events_of_instance ON events (instance_id, sequence) WHERE instance_id IS NOT NULL;

CREATE TABLE api_tokens (
    id          TEXT COLLATE "C" PRIMARY KEY,
    name        TEXT NOT NULL,
    secret_hash BYTEA NOT NULL,
    created_at  BIGINT NOT NULL,
    expires_at  BIGINT,
    revoked_at  BIGINT
);

-- A spent link is a deleted row.
CREATE TABLE login_links (
    hash        BYTEA PRIMARY KEY,
    instance_id TEXT COLLATE "C" NOT NULL REFERENCES instances (id),
    created_at  BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL
);
CREATE INDEX login_links_of_instance ON login_links (instance_id);
CREATE INDEX login_links_expiry ON login_links (expires_at);

CREATE TABLE sessions (
    hash        BYTEA PRIMARY KEY,
    instance_id TEXT COLLATE "C" NOT NULL REFERENCES instances (id),
    created_at  BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL
);
CREATE INDEX sessions_of_instance ON sessions (instance_id);
CREATE INDEX sessions_expiry ON sessions (expires_at);

-- `status` and `body` are the answer, once there is one.
CREATE TABLE idempotency (
    token_id     TEXT COLLATE "C" NOT NULL,
    key          TEXT NOT NULL,
    request_hash BYTEA NOT NULL,
    started_at   BIGINT NOT NULL,
    status       BIGINT,
    body         TEXT,
    PRIMARY KEY (token_id, key)
);
CREATE INDEX idempotency_age ON idempotency (started_at);
