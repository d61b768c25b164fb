-- The signed artefact that an order for a version of OpenClaw brings along; JSON.
ALTER TABLE instances ADD COLUMN openclaw_signed TEXT;
