-- A workflow job may move: GitHub gives it to one runner, and then to another.
-- Until it ends, it counts as the work of every runner that an event named
-- (issue 10).

-- runners holds each of them: id, name, and the state and started_at of the
-- event that named it. Jobs stored before this column have none, and count for
-- the runner of their row alone.
ALTER TABLE muster.workflow_job ADD COLUMN runners jsonb NOT NULL DEFAULT '[]';

-- The few jobs that more than one runner was named for.
CREATE INDEX workflow_job_moved ON muster.workflow_job (target, state) WHERE jsonb_array_length(runners) > 1;

-- Names are compared case-insensitively wherever that protects a runner. The
-- column itself is included, so that the index alone answers.
DROP INDEX muster.workflow_job_name;
CREATE INDEX workflow_job_name ON muster.workflow_job (target, lower(runner_name), completed_at) INCLUDE (runner_name)
	WHERE runner_name <> '' AND completed_at IS NOT NULL;

-- One row for each runner that the events of a workflow job named. The runner of
-- the job's row may come twice.
CREATE VIEW muster.job_runner AS
	SELECT target, workflow_job_id, state, started_at, completed_at, changed_at, runner_id, runner_name
	FROM muster.workflow_job
	UNION ALL
	SELECT j.target, j.workflow_job_id, j.state, j.started_at, j.completed_at, j.changed_at, coalesce(n.id, 0), coalesce(n.name, '')
	FROM muster.workflow_job j
	CROSS JOIN LATERAL jsonb_to_recordset(j.runners) AS n (id bigint, name text)
	WHERE jsonb_array_length(j.runners) > 1;

COMMENT ON COLUMN api.workflow_jobs.runner_id IS 'GitHub''s id of the runner that has or had it; null: none that was told. Of a job that moved it is the runner named last, or by the event of its end.';

DO $$
BEGIN
	IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'muster_app') THEN
		GRANT SELECT ON muster.job_runner TO muster_app;
	END IF;
END
$$;
