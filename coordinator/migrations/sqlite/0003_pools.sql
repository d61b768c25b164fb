-- Pools by tier and region, what servers are made as and from, deletion with a grace, the sagas' log.

ALTER TABLE servers ADD COLUMN region TEXT NOT NULL DEFAULT 'local';
ALTER TABLE servers ADD COLUMN server_type TEXT NOT NULL DEFAULT 'local';
ALTER TABLE servers ADD COLUMN location TEXT NOT NULL DEFAULT 'local';
ALTER TABLE servers ADD COLUMN image TEXT;
ALTER TABLE servers ADD COLUMN warmed_at INTEGER;
ALTER TABLE instances ADD COLUMN region TEXT NOT NULL DEFAULT 'local';
ALTER TABLE instances ADD COLUMN purge_at INTEGER;

-- What was deleted before there was a grace is gone for good.
UPDATE instances SET status = 'purged', purge_at = deleted_at WHERE status = 'deleted';

DROP INDEX instances_name;
DROP INDEX instances_external_id;
DROP INDEX instances_waiting;
DROP INDEX servers_warm;
-- A purged instance's name and external id may be used again.
CREATE UNIQUE INDEX instances_name ON instances (name) WHERE status <> 'purged';
CREATE UNIQUE INDEX instances_external_id ON instances (external_id)
    WHERE external_id IS NOT NULL AND status <> 'purged';
CREATE INDEX instances_waiting ON instances (tier, region, ordinal) WHERE status = 'pending';
CREATE INDEX instances_purge ON instances (purge_at) WHERE status = 'deleted';
CREATE INDEX instances_arrivals ON instances (tier, region, created_at);
CREATE INDEX servers_warm ON servers (tier, region, created_at, id) WHERE state = 'warm';

CREATE TABLE pools (
    tier         TEXT NOT NULL,
    region       TEXT NOT NULL,
    paused       INTEGER NOT NULL DEFAULT 0,
    halted       INTEGER NOT NULL DEFAULT 0,
    failures     INTEGER NOT NULL DEFAULT 0,
    last_failure INTEGER,
    held_until   INTEGER,
    below_since  INTEGER,
    told_below   INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tier, region)
) STRICT, WITHOUT ROWID;

CREATE TABLE cooling (
    server_type TEXT NOT NULL,
    location    TEXT NOT NULL,
    until       INTEGER NOT NULL,
    PRIMARY KEY (server_type, location)
) STRICT, WITHOUT ROWID;

-- Append only.
CREATE TABLE saga_steps (
    ordinal   INTEGER PRIMARY KEY,
    server_id TEXT NOT NULL REFERENCES servers (id),
    saga      TEXT NOT NULL,
    step      TEXT NOT NULL,
    state     TEXT NOT NULL,
    error     TEXT,
    at        INTEGER NOT NULL
) STRICT;
CREATE INDEX saga_steps_of_server ON saga_steps (server_id, ordinal);
