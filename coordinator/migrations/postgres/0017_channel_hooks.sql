-- On which paths the channels of its configuration take web hooks: a list, JSON. NULL: the configuration is from before.
ALTER TABLE instances ADD COLUMN channel_hooks TEXT;
