-- A name that an instance had before leads to its present one until then; nobody else gets it meanwhile.
ALTER TABLE routes ADD COLUMN moved_until BIGINT;
