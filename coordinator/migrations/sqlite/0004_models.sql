-- Who serves models, under which names, with whose keys, and what every request cost. Written by the
-- coordinator, except `usage_records`: they are tidepool-proxy's. Keys are sealed
-- (tidepool-certs, `sealed`): what reads this database alone learns none.

CREATE TABLE providers (
    name       TEXT PRIMARY KEY,
    kind       TEXT NOT NULL,
    base_url   TEXT NOT NULL,
    sealed_key BLOB,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

-- `targets`: a JSON list of {"provider", "model", "weight"}, in order of preference.
CREATE TABLE model_aliases (
    tier       TEXT NOT NULL,
    alias      TEXT NOT NULL,
    targets    TEXT NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tier, alias)
) STRICT;

CREATE TABLE customer_keys (
    instance_id TEXT NOT NULL REFERENCES instances (id),
    provider    TEXT NOT NULL REFERENCES providers (name) ON DELETE CASCADE,
    sealed_key  BLOB NOT NULL,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (instance_id, provider)
) STRICT;

-- One row an attempt, append only.
CREATE TABLE usage_records (
    ordinal         INTEGER PRIMARY KEY AUTOINCREMENT,
    id              TEXT NOT NULL UNIQUE,
    request_id      TEXT NOT NULL,
    server_id       TEXT NOT NULL,
    instance_id     TEXT,
    provider        TEXT NOT NULL,
    model           TEXT NOT NULL,
    asked_model     TEXT NOT NULL,
    dialect         TEXT NOT NULL,
    input           INTEGER NOT NULL,
    cache_read      INTEGER NOT NULL,
    cache_write_5m  INTEGER NOT NULL,
    cache_write_1h  INTEGER NOT NULL,
    output          INTEGER NOT NULL,
    reasoning       INTEGER NOT NULL,
    -- Hundred-millionths of a US dollar; NULL: there is no price.
    cost_microcents INTEGER,
    payer           TEXT NOT NULL,
    status          INTEGER NOT NULL,
    outcome         TEXT NOT NULL,
    estimated       INTEGER NOT NULL,
    first_token_ms  INTEGER,
    total_ms        INTEGER NOT NULL,
    at              INTEGER NOT NULL
) STRICT;
CREATE INDEX usage_records_of_instance ON usage_records (instance_id, at);
