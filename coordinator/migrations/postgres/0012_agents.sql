-- A release of the agent on its way to the servers. The newest one counts.
CREATE TABLE agent_rollouts (
    id         BIGINT PRIMARY KEY,
    version    TEXT NOT NULL,
    -- The signed statement as JSON, as agents are sent it.
    signed     TEXT NOT NULL,
    canary     BIGINT NOT NULL,
    percent    BIGINT NOT NULL,
    -- Why no other server gets it; NULL while it goes on.
    halted     TEXT,
    created_at BIGINT NOT NULL
);

-- The agent of a server: what it says it is, and what became of the rollout that it is in.
CREATE TABLE agents (
    server_id TEXT PRIMARY KEY REFERENCES servers (id),
    version   TEXT NOT NULL,
    rollout   BIGINT REFERENCES agent_rollouts (id),
    ending    TEXT,
    reason    TEXT
);
