-- An image is tried on a server of its own before customers' servers are made from it.

CREATE TABLE image_verifications (
    id          TEXT PRIMARY KEY,
    image       TEXT NOT NULL,
    state       TEXT NOT NULL,
    server_id   TEXT UNIQUE REFERENCES servers (id),
    manifest    TEXT,
    figures     TEXT,
    baseline    TEXT,
    problems    TEXT NOT NULL DEFAULT '[]',
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    finished_at INTEGER
) STRICT;
-- One at a time: each takes a server.
CREATE UNIQUE INDEX image_verifications_open ON image_verifications ((finished_at IS NULL))
    WHERE finished_at IS NULL;
CREATE INDEX image_verifications_of_image ON image_verifications (image, id);

-- How long the agent's steps took when the server became warm for the first time.
ALTER TABLE servers ADD COLUMN boot_steps TEXT NOT NULL DEFAULT '[]';
