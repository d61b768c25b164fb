-- Why, since when, with which words and from what an instance is suspended: JSON.
ALTER TABLE instances ADD COLUMN suspension TEXT;
-- As in its document.
ALTER TABLE instances ADD COLUMN evictions INTEGER NOT NULL DEFAULT 0;
