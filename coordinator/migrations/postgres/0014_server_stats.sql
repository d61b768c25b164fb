-- What gateway and server take, as the agent last said; JSON. No foreign key: its lock on the server's row would
-- make claims pass over the server.
CREATE TABLE server_stats (
    server_id TEXT PRIMARY KEY,
    stats     TEXT NOT NULL,
    at        BIGINT NOT NULL
);
