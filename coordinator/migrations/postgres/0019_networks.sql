-- The private networks that its gateway may reach, in its present document: a list, JSON.
ALTER TABLE instances ADD COLUMN networks TEXT NOT NULL DEFAULT '[]';
