-- Which version of OpenClaw instances are to have, and rollouts of one to a tier.

-- The order for a version that its document gives, none once it was taken back; the number of the last order, which
-- is never given again; the last one whose outcome was told; and the version that rollouts leave an instance at.
ALTER TABLE instances ADD COLUMN openclaw TEXT;
ALTER TABLE instances ADD COLUMN openclaw_order INTEGER NOT NULL DEFAULT 0;
ALTER TABLE instances ADD COLUMN openclaw_settled INTEGER NOT NULL DEFAULT 0;
ALTER TABLE instances ADD COLUMN openclaw_pin TEXT;

-- Since when it has been down, or silent, without a break.
ALTER TABLE instances ADD COLUMN unwell_since INTEGER;

-- Whether the server's agent knows orders for versions: it says which it has.
ALTER TABLE servers ADD COLUMN takes_orders INTEGER NOT NULL DEFAULT 0;

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
    created_at   INTEGER NOT NULL,
    finished_at  INTEGER
) STRICT;
-- One at a time in a tier.
CREATE UNIQUE INDEX rollouts_under_way ON rollouts (tier) WHERE state IN ('running', 'halted');

-- Whom a rollout has reached. What became of it is the operation's state; what is
-- forgiven was wrong with it before the rollout was resumed.
CREATE TABLE rollout_members (
    rollout_id   TEXT NOT NULL REFERENCES rollouts (id),
    instance_id  TEXT NOT NULL REFERENCES instances (id),
    operation_id TEXT NOT NULL REFERENCES operations (id),
    forgiven     INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (rollout_id, instance_id)
) STRICT, WITHOUT ROWID;
