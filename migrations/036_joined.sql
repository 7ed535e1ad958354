-- A trigger that is done with another one for the same job and name: it waited
-- when that one began.
ALTER TABLE muster.run
	ADD COLUMN joined_to uuid, -- the run that it is done with; null: with none
	-- Whether the newest attempt failed for a reason that no repetition mends,
	-- such as a credential that GitHub refuses.
	ADD COLUMN lasting boolean NOT NULL DEFAULT false,
	DROP CONSTRAINT run_state_check,
	ADD CONSTRAINT run_state_check CHECK (state IN ('queued', 'running', 'done', 'failed', 'dead', 'joined')),
	ADD CONSTRAINT run_joined_check CHECK ((state = 'joined') = (joined_to IS NOT NULL));

CREATE OR REPLACE VIEW api.runs AS
	SELECT trigger_id, job, name, source, attempt, state, started_at, finished_at, error, counts, joined_to
	FROM muster.run
	WHERE state <> 'queued';
COMMENT ON VIEW api.runs IS 'One row per trigger that was worked on, or joined to another one.';
COMMENT ON COLUMN api.runs.state IS 'running, done, failed (and will be tried again), dead (and will not; see api.dead_letters) or joined (done with the run joined_to).';
COMMENT ON COLUMN api.runs.started_at IS 'When the newest attempt began; null where it is joined to another run.';
COMMENT ON COLUMN api.runs.joined_to IS 'The trigger that it is done with, one for the same job and name that began after it came; null: none.';
