-- What visitors may send to an instance; NULL: the default.
ALTER TABLE instances ADD COLUMN max_body_bytes BIGINT;
ALTER TABLE instances ADD COLUMN requests_per_second BIGINT;
ALTER TABLE instances ADD COLUMN request_burst BIGINT;
