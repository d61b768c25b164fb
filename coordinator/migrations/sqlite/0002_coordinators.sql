-- Several coordinators: which of them are there, which of them holds a server's link, and which of them
-- does what only one may do.
CREATE TABLE coordinators (
    id           TEXT PRIMARY KEY,
    api_address  TEXT NOT NULL,
    heartbeat_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A lease that has expired is anybody's.
CREATE TABLE leases (
    name       TEXT PRIMARY KEY,
    holder     TEXT NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Set by every session, cleared by the last one's end; a holder that is not there any more holds nothing.
ALTER TABLE servers ADD COLUMN holder TEXT;
