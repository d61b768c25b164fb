-- Who serves models, under which names, with whose keys, and what every request cost. Written by the
-- coordinator, except `usage_records`: they are tidepool-proxy's. Keys are sealed
-- (tidepool-certs, `sealed`): what reads this database alone learns none.

CREATE TABLE providers (
    name       TEXT COLLATE "C" PRIMARY KEY,
    kind       TEXT NOT NULL,
    base_url   TEXT NOT NULL,
    sealed_key BYTEA,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

-- `targets`: a JSON list of {"provider", "model", "weight"}, in order of preference.
CREATE TABLE model_aliases (
    tier       TEXT COLLATE "C" NOT NULL,
    alias      TEXT COLLATE "C" NOT NULL,
    targets    TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (tier, alias)
);

CREATE TABLE customer_keys (
    instance_id TEXT COLLATE "C" NOT NULL REFERENCES instances (id),
    provider    TEXT COLLATE "C" NOT NULL REFERENCES providers (name) ON DELETE CASCADE,
    sealed_key  BYTEA NOT NULL,
    created_at  BIGINT NOT NULL,
    PRIMARY KEY (instance_id, provider)
);

-- One row an attempt, append only; its own transaction tells readers which rows are settled: a
-- cursor may pass a row only when no older transaction is still open.
CREATE TABLE usage_records (
    ordinal         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id              TEXT COLLATE "C" NOT NULL UNIQUE,
    request_id      TEXT COLLATE "C" NOT NULL,
    server_id       TEXT COLLATE "C" NOT NULL,
    instance_id     TEXT COLLATE "C",
    provider        TEXT NOT NULL,
    model           TEXT NOT NULL,
    asked_model     TEXT NOT NULL,
    dialect         TEXT NOT NULL,
    input           BIGINT NOT NULL,
    cache_read      BIGINT NOT NULL,
    cache_write_5m  BIGINT NOT NULL,
    cache_write_1h  BIGINT NOT NULL,
    output          BIGINT NOT NULL,
    reasoning       BIGINT NOT NULL,
    -- Hundred-millionths of a US dollar; NULL: there is no price.
    cost_microcents BIGINT,
    payer           TEXT NOT NULL,
    status          INTEGER NOT NULL,
    outcome         TEXT NOT NULL,
    estimated       BOOLEAN NOT NULL,
    first_token_ms  BIGINT,
    total_ms        BIGINT NOT NULL,
    at              BIGINT NOT NULL,
    written_by      XID8 NOT NULL DEFAULT pg_current_xact_id()
);
CREATE INDEX usage_records_of_instance ON usage_records (instance_id, at);
