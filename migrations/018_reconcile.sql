-- What GitHub's events told of workflow jobs, compared with what GitHub says
-- when it is asked.

-- Repositories whose workflow jobs are compared.
CREATE TABLE muster.repository (
	target      text NOT NULL,
	repository  text NOT NULL,  -- OWNER/REPO
	heard_at    timestamptz,    -- when something was last told of a workflow job of it; null: never
	compared_at timestamptz,    -- as of when all its workflow jobs were last compared; null: never
	PRIMARY KEY (target, repository)
) WITH (fillfactor = 80);

-- How far the comparison of a target has come. Replicas share it: whoever moves
-- due_at on does the next part.
CREATE TABLE muster.reconciliation (
	target    text PRIMARY KEY,
	due_at    timestamptz NOT NULL,
	began_at  timestamptz,   -- of the newest part
	listed_at timestamptz,   -- when its repositories were last listed; null: to be listed next
	as_of     timestamptz,   -- when all workflow jobs were known at last; null: never
	fault     text NOT NULL DEFAULT '' -- why the newest part is not whole; empty: it is
) WITH (fillfactor = 80);

-- Webhooks that have delivered something, by the id that GitHub gives with each
-- delivery.
CREATE TABLE muster.hook (
	target   text   NOT NULL,
	hook_id  bigint NOT NULL,
	scope    text   NOT NULL,    -- whose webhook it is
	heard_at timestamptz NOT NULL,
	due_at   timestamptz NOT NULL, -- when its log of deliveries is next read
	swept_to timestamptz NOT NULL, -- up to when what it failed to deliver has been asked for again
	fault    text NOT NULL DEFAULT '',
	PRIMARY KEY (target, hook_id)
) WITH (fillfactor = 80);

COMMENT ON VIEW api.workflow_jobs IS 'Workflow jobs as GitHub''s events told of them, and, where the target has pools, its API: one row per target and job. An event that was lost leaves its fields null, or a job in an earlier state, until the job is compared.';
COMMENT ON COLUMN api.workflow_jobs.target IS 'The target whose webhook, or API, told of it.';
COMMENT ON COLUMN api.workflow_jobs.completed_at IS 'When it ended, or was found to be gone.';

DO $$
BEGIN
	IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'muster_app') THEN
		GRANT SELECT, INSERT, UPDATE, DELETE ON muster.repository, muster.reconciliation, muster.hook TO muster_app;
	END IF;
END
$$;
