-- Pools by tier and region, what servers are made as and from, deletion with a grace, the sagas' log.

ALTER TABLE servers
    ADD COLUMN region      TEXT NOT NULL DEFAULT 'local',
    ADD COLUMN server_type TEXT NOT NULL DEFAULT 'local',
    ADD COLUMN location    TEXT NOT NULL DEFAULT 'local',
    ADD COLUMN image       TEXT,
    ADD COLUMN warmed_at   BIGINT;
ALTER TABLE instances
    ADD COLUMN region   TEXT NOT NULL DEFAULT 'local',
    ADD COLUMN purge_at BIGINT;

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
    paused       BOOLEAN NOT NULL DEFAULT FALSE,
    halted       BOOLEAN NOT NULL DEFAULT FALSE,
    failures     BIGINT NOT NULL DEFAULT 0,
    last_failure BIGINT,
    held_until   BIGINT,
    below_since  BIGINT,
    told_below   BOOLEAN NOT NULL DEFAULT FALSE,
    PRIMARY KEY (tier, region)
);

CREATE TABLE cooling (
    server_type TEXT NOT NULL,
    location    TEXT NOT NULL,
    until       BIGINT NOT NULL,
    PRIMARY KEY (server_type, location)
);

-- Append only.
CREATE TABLE saga_steps (
    ordinal   BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    server_id TEXT COLLATE "C" NOT NULL REFERENCES servers (id),
    saga      TEXT NOT NULL,
    step      TEXT NOT NULL,
    state     TEXT NOT NULL,
    error     TEXT,
    at        BIGINT NOT NULL
);
CREATE INDEX saga_steps_of_server ON saga_steps (server_id, ordinal);
