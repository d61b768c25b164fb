-- What visitors may send to an instance; NULL: the default.
ALTER TABLE instances ADD COLUMN max_body_bytes INTEGER;
ALTER TABLE instances ADD COLUMN requests_per_second INTEGER;
ALTER TABLE instances ADD COLUMN request_burst INTEGER;
