-- What customers may use of models, and what they have spent. The limits are the coordinator's to write;
-- `spending` and `spending_grants` are tidepool-proxy's.

-- `subject` is `tier/NAME`, or an instance's id; an instance's limits go before its tier's, one by one.
CREATE TABLE model_limits (
    subject             TEXT COLLATE "C" PRIMARY KEY,
    requests_per_minute BIGINT,
    tokens_per_minute   BIGINT,
    day_microcents      BIGINT,
    month_microcents    BIGINT,
    updated_at          BIGINT NOT NULL
);

-- Of an instance on the operator's keys, in a day (`2026-11-27`) and in a month (`2026-11`), UTC: the sum
-- of its usage records, kept in the transaction that writes them.
CREATE TABLE spending (
    instance_id TEXT COLLATE "C" NOT NULL,
    period      TEXT COLLATE "C" NOT NULL,
    microcents  BIGINT NOT NULL,
    PRIMARY KEY (instance_id, period)
);
INSERT INTO spending (instance_id, period, microcents)
SELECT instance_id, period, CAST(sum(cost_microcents) AS BIGINT)
FROM usage_records, LATERAL (VALUES
    (to_char(to_timestamp(at / 1000000) AT TIME ZONE 'UTC', 'YYYY-MM-DD')),
    (to_char(to_timestamp(at / 1000000) AT TIME ZONE 'UTC', 'YYYY-MM'))) AS of(period)
WHERE payer = 'managed' AND instance_id IS NOT NULL AND cost_microcents > 0
GROUP BY 1, 2;

-- What a running proxy may still let an instance spend without asking: reserved, until it is spent or the
-- grant runs out.
CREATE TABLE spending_grants (
    instance_id TEXT COLLATE "C" NOT NULL,
    holder      TEXT COLLATE "C" NOT NULL,
    microcents  BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL,
    PRIMARY KEY (instance_id, holder)
);

CREATE INDEX usage_records_settled ON usage_records (written_by, ordinal);
CREATE INDEX usage_records_at ON usage_records (at);

-- Instances that were reported as asking for models without a rest, and when, so that it is not told twice a day.
CREATE TABLE restless_instances (
    instance_id TEXT COLLATE "C" NOT NULL REFERENCES instances (id),
    pattern     TEXT COLLATE "C" NOT NULL,
    told_at     BIGINT NOT NULL,
    PRIMARY KEY (instance_id, pattern)
);
