-- Drains: whom the intent asks first, what it answered, and whether it is told
-- in the end. All empty for a deletion of a runner that is offline.
ALTER TABLE muster.action
	ADD COLUMN host       text,
	ADD COLUMN drained_at timestamptz, -- when the host said that no workflow job is on the runner
	ADD COLUMN release    boolean NOT NULL DEFAULT false;
