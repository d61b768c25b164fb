-- When the agent was put in its rollout. NULL: before this was noted.
ALTER TABLE agents ADD COLUMN since INTEGER;
