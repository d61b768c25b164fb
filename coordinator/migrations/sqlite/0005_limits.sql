-- What customers may use of models, and what they have spent. The limits are the coordinator's to write;
-- `spending` and `spending_grants` are tidepool-proxy's.

-- `subject` is `tier/NAME`, or an instance's id; an instance's limits go before its tier's, one by one.
CREATE TABLE model_limits (
    subject             TEXT PRIMARY KEY,
    requests_per_minute INTEGER,
    tokens_per_minute   INTEGER,
    day_microcents      INTEGER,
    month_microcents    INTEGER,
    updated_at          INTEGER NOT NULL
) STRICT;

-- Of an instance on the operator's keys, in a day (`2026-11-27`) and in a month (`2026-11`), UTC: the sum
-- of its usage records, kept in the transaction that writes them.
CREATE TABLE spending (
    instance_id TEXT NOT NULL,
    period      TEXT NOT NULL,
    microcents  INTEGER NOT NULL,
    PRIMARY KEY (instance_id, period)
) STRICT;
INSERT INTO spending (instance_id, period, microcents)
SELECT instance_id, period, sum(cost_microcents)
FROM (SELECT *, strftime('%Y-%m-%d', at / 1000000, 'unixepoch') AS period FROM usage_records
      UNION ALL
      SELECT *, strftime('%Y-%m', at / 1000000, 'unixepoch') AS period FROM usage_records)
WHERE payer = 'managed' AND instance_id IS NOT NULL AND cost_microcents > 0
GROUP BY 1, 2;

-- What a running proxy may still let an instance spend without asking: reserved, until it is spent or the
-- grant runs out.
CREATE TABLE spending_grants (
    instance_id TEXT NOT NULL,
    holder      TEXT NOT NULL,
    microcents  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    PRIMARY KEY (instance_id, holder)
) STRICT;

CREATE INDEX usage_records_at ON usage_records (at);

-- Instances that were reported as asking for models without a rest, and when, so that it is not told twice a day.
CREATE TABLE restless_instances (
    instance_id TEXT NOT NULL REFERENCES instances (id),
    pattern     TEXT NOT NULL,
    told_at     INTEGER NOT NULL,
    PRIMARY KEY (instance_id, pattern)
) STRICT;
