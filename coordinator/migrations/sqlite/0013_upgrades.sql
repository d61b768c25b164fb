-- Which version of OpenClaw instances are to have, and rollouts of one to a tier.

-- The last order for a version and its number, the last one whose outcome was told, and the version that
-- rollouts leave an instance at.
ALTER TABLE instances ADD COLUMN openclaw TEXT;
ALTER TABLE instances ADD COLUMN openclaw_order INTEGER NOT NULL DEFAULT 0;
ALTER TABLE instances ADD COLUMN openclaw_settled INTEGER NOT NULL DEFAULT 0;
ALTER TABLE instances ADD COLUMN openclaw_pin TEXT;

CREATE TABLE rollouts (
    ordinal      INTEGER PRIMARY KEY,
    id           TEXT NOT NULL UNIQUE,
    tier         TEXT NOT NULL,
    version      TEXT NOT NULL,
    canaries     INTEGER NOT NULL,
    wave_percent INTEGER NOT NULL,
    max_failures INTEGER NOT NULL,
    soak_s       INTEGER NOT NULL,
    state        TEXT NOT NULL,
    reason       TEXT,
    forgiven     INTEGER NOT NULL DEFAULT 0,
    created_at   INTEGER NOT NULL,
    finished_at  INTEGER
) STRICT;
-- One at a time in a tier.
CREATE UNIQUE INDEX rollouts_under_way ON rollouts (tier) WHERE state IN ('running', 'halted');

-- Whom a rollout has reached. What became of it is the operation's state.
CREATE TABLE rollout_members (
    rollout_id   TEXT NOT NULL REFERENCES rollouts (id),
    instance_id  TEXT NOT NULL REFERENCES instances (id),
    operation_id TEXT NOT NULL REFERENCES operations (id),
    PRIMARY KEY (rollout_id, instance_id)
) STRICT, WITHOUT ROWID;
