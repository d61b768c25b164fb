-- A release of the agent on its way to the servers. The newest one counts.
CREATE TABLE agent_rollouts (
    id         INTEGER PRIMARY KEY,
    version    TEXT NOT NULL,
    -- The signed statement as JSON, as agents are sent it.
    signed     TEXT NOT NULL,
    canary     INTEGER NOT NULL,
    percent    INTEGER NOT NULL,
    -- Why no other server gets it; NULL while it goes on.
    halted     TEXT,
    created_at INTEGER NOT NULL
);

-- The agent of a server: what it says it is, and what became of the rollout that it is in.
CREATE TABLE agents (
    server_id TEXT PRIMARY KEY REFERENCES servers (id),
    version   TEXT NOT NULL,
    rollout   INTEGER REFERENCES agent_rollouts (id),
    ending    TEXT,
    reason    TEXT
);
