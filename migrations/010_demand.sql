-- What others say of the fleet: GitHub's events of workflow jobs, and the
-- heartbeats of hosts. Each is a witness and none is trusted to be complete.

-- A workflow job as its events add up, whatever their order. Zero and empty
-- values were not told.
CREATE TABLE muster.workflow_job (
	target          text    NOT NULL,
	workflow_job_id bigint  NOT NULL,
	run_id          bigint  NOT NULL,
	run_attempt     integer NOT NULL,
	repository      text    NOT NULL,
	labels          text[]  NOT NULL,
	state           text    NOT NULL CHECK (state IN ('waiting', 'queued', 'in_progress', 'completed')),
	runner_id       bigint  NOT NULL,
	runner_name     text    NOT NULL,
	queued_at       timestamptz,
	started_at      timestamptz,
	completed_at    timestamptz,
	conclusion      text    NOT NULL,
	-- When an event last told something new, by Postgres's clock: the other
	-- times are GitHub's, whose clock may be off.
	changed_at      timestamptz NOT NULL,
	PRIMARY KEY (target, workflow_job_id)
) WITH (fillfactor = 80);
CREATE INDEX workflow_job_open ON muster.workflow_job (target, state) WHERE state <> 'completed';
CREATE INDEX workflow_job_runner ON muster.workflow_job (target, runner_id, completed_at) WHERE runner_id <> 0;
CREATE INDEX workflow_job_changed_at ON muster.workflow_job (changed_at);

-- Deliveries that were folded in. GitHub keeps its id when it sends one again,
-- which it does for up to 7 days.
CREATE TABLE muster.delivery (
	target      text NOT NULL,
	delivery_id text NOT NULL,
	at          timestamptz NOT NULL,
	PRIMARY KEY (target, delivery_id)
);
CREATE INDEX delivery_at ON muster.delivery (at);

CREATE TABLE muster.host (
	host              text PRIMARY KEY,
	last_heartbeat_at timestamptz NOT NULL
) WITH (fillfactor = 80);

-- What the host's newest heartbeat lists. A heartbeat that says what the one
-- before said writes nothing here.
CREATE TABLE muster.host_runner (
	host   text NOT NULL REFERENCES muster.host (host) ON DELETE CASCADE,
	target text NOT NULL,
	name   text NOT NULL,
	state  text NOT NULL CHECK (state IN ('idle', 'busy', 'stopped')),
	at     timestamptz NOT NULL, -- since when it says so
	PRIMARY KEY (host, target, name)
);
CREATE INDEX host_runner_runner ON muster.host_runner (target, name);

-- The state of a host at a moment. heartbeat: its last, null for none; stopped:
-- that one lists runners, and all of them as stopped; token: when it was last
-- handed one to register with, null for never.
CREATE FUNCTION muster.host_state(heartbeat timestamptz, stopped boolean, token timestamptz, at timestamptz)
RETURNS text LANGUAGE sql IMMUTABLE
AS $$
	SELECT CASE
		WHEN heartbeat > at - interval '3 minutes' AND NOT coalesce(stopped, false) THEN 'running'
		WHEN token > at - interval '10 minutes' AND (heartbeat IS NULL OR token > heartbeat) THEN 'booting'
		WHEN stopped OR heartbeat <= at - interval '24 hours' THEN 'gone'
		ELSE 'silent'
	END
$$;

CREATE VIEW api.workflow_jobs AS
	SELECT target, workflow_job_id, nullif(run_id, 0) AS run_id, nullif(repository, '') AS repository, labels, state,
		nullif(runner_id, 0) AS runner_id, nullif(runner_name, '') AS runner_name,
		queued_at, started_at, completed_at, nullif(conclusion, '') AS conclusion
	FROM muster.workflow_job;
COMMENT ON VIEW api.workflow_jobs IS 'Workflow jobs as GitHub''s events told of them, one row per target and job. An event that was lost leaves its fields null, or a job in an earlier state.';
COMMENT ON COLUMN api.workflow_jobs.target IS 'The target whose webhook told of it.';
COMMENT ON COLUMN api.workflow_jobs.workflow_job_id IS 'GitHub''s id of the workflow job. A re-run is another job.';
COMMENT ON COLUMN api.workflow_jobs.run_id IS 'GitHub''s id of the workflow run that it belongs to.';
COMMENT ON COLUMN api.workflow_jobs.repository IS 'OWNER/REPO.';
COMMENT ON COLUMN api.workflow_jobs.labels IS 'Labels that it asks of a runner, lower case, sorted.';
COMMENT ON COLUMN api.workflow_jobs.state IS 'waiting (for an approval), queued, in_progress or completed.';
COMMENT ON COLUMN api.workflow_jobs.runner_id IS 'GitHub''s id of the runner that has or had it; null: none that was told.';
COMMENT ON COLUMN api.workflow_jobs.runner_name IS 'Name of that runner.';
COMMENT ON COLUMN api.workflow_jobs.queued_at IS 'When it was made, by GitHub''s clock.';
COMMENT ON COLUMN api.workflow_jobs.started_at IS 'When its runner began with it.';
COMMENT ON COLUMN api.workflow_jobs.completed_at IS 'When it ended.';
COMMENT ON COLUMN api.workflow_jobs.conclusion IS 'How it ended: success, failure, cancelled, skipped and so on.';

CREATE VIEW api.hosts AS
	WITH token AS (
		-- One that has expired cannot have been used by a host that still boots.
		SELECT host, max(issued_at) AS issued_at
		FROM muster.token
		WHERE outcome = 'issued' AND expires_at > now() AND issued_at > now() - interval '10 minutes' AND kind <> 'removal'
		GROUP BY host
	), runner AS (
		SELECT host, bool_and(state = 'stopped') AS stopped,
			jsonb_agg(jsonb_build_object('target', target, 'name', name, 'state', state, 'since', at) ORDER BY target, name) AS runners
		FROM muster.host_runner
		GROUP BY host
	)
	SELECT host, muster.host_state(h.last_heartbeat_at, r.stopped, t.issued_at, now()) AS state,
		h.last_heartbeat_at, coalesce(r.runners, '[]') AS runners
	FROM muster.host h
	FULL JOIN token t USING (host)
	LEFT JOIN runner r USING (host);
COMMENT ON VIEW api.hosts IS 'One row per host that has sent a heartbeat or is booting. Hosts that only ask for tokens are in api.tokens.';
COMMENT ON COLUMN api.hosts.host IS 'Name of the host, as NATS knows it.';
COMMENT ON COLUMN api.hosts.state IS 'running (a heartbeat within 3 minutes), booting (a token within 10 minutes, and no heartbeat since), gone (silent for 24 hours, or all its runners stopped) or silent.';
COMMENT ON COLUMN api.hosts.last_heartbeat_at IS 'When its last heartbeat arrived; null: none has.';
COMMENT ON COLUMN api.hosts.runners IS 'The runners of that heartbeat: target, name, state (idle, busy or stopped) and since when it has said so.';

DO $$
BEGIN
	IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'muster_app') THEN
		GRANT SELECT, INSERT, UPDATE, DELETE ON muster.workflow_job, muster.delivery, muster.host, muster.host_runner TO muster_app;
		GRANT SELECT ON api.workflow_jobs, api.hosts TO muster_app;
	END IF;
	IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'muster_auditor') THEN
		GRANT SELECT ON api.workflow_jobs, api.hosts TO muster_auditor;
	END IF;
END
$$;
