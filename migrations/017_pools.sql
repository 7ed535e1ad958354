-- Pools as they were last decided on, the hosts that were asked for, and what
-- is wrong with a fleet that a person has to look at.

-- A pool's row is what its sizes are decided under: whoever decides holds its
-- lock, so that no two decisions together exceed the maximum. What a decision
-- has to know of those before it stands here too, so that a restart forgets
-- nothing and replicas share it. Columns of the decision are null until there
-- is one.
CREATE TABLE muster.pool (
	name           text PRIMARY KEY,
	target         text NOT NULL,
	labels         text[] NOT NULL, -- as configured
	memory         jsonb NOT NULL DEFAULT '{}',
	decided_at     timestamptz,
	min            integer,         -- the bounds that held then
	max            integer,
	idle           integer,
	desired        integer,
	direction      text CHECK (direction IN ('up', 'hold', 'down')),
	change         integer,
	reasons        text[],          -- stable codes
	evidence       jsonb,
	reason         text,            -- the same in words
	online         integer,
	busy           integer,
	booting        integer,
	draining       integer,
	leases_expired integer,         -- in a row
	queued         integer,
	in_progress    integer,
	oldest_at      timestamptz,     -- since when the longest waiting job waits
	demand_at      timestamptz,
	confidence     text CHECK (confidence IN ('known', 'stale', 'unknown'))
) WITH (fillfactor = 80);

-- A request for one host. Its id is the message's, and what the host names as
-- demand_id when it asks for a token.
CREATE TABLE muster.lease (
	request_id    uuid PRIMARY KEY,
	pool          text NOT NULL,
	target        text NOT NULL,
	host          text,    -- who claimed it
	runner_id     bigint,
	state         text NOT NULL CHECK (state IN ('requested', 'claimed', 'registered', 'online', 'expired')),
	attempt       integer NOT NULL, -- from 1, counted up while no host comes online
	requested_at  timestamptz NOT NULL,
	claimed_at    timestamptz,
	registered_at timestamptz,
	online_at     timestamptz,
	deadline      timestamptz NOT NULL,
	CHECK ((host IS NULL) = (claimed_at IS NULL))
) WITH (fillfactor = 80);
CREATE INDEX lease_live ON muster.lease (target, pool) WHERE state IN ('requested', 'claimed', 'registered');
CREATE INDEX lease_expired ON muster.lease (pool, deadline) WHERE state = 'expired';
CREATE INDEX lease_online ON muster.lease (pool, online_at) WHERE state = 'online';
CREATE INDEX lease_pool ON muster.lease (pool, requested_at);
CREATE INDEX lease_deadline ON muster.lease (deadline);

CREATE TABLE muster.finding (
	kind    text NOT NULL,
	target  text NOT NULL,
	subject text NOT NULL,
	since   timestamptz NOT NULL,
	detail  jsonb NOT NULL,
	PRIMARY KEY (target, kind, subject)
);

CREATE VIEW api.pools AS
	SELECT name AS pool, target, labels, min, max, desired, online, busy, booting, draining, queued, in_progress,
		demand_at, confidence, leases_expired, reason, decided_at
	FROM muster.pool;
COMMENT ON VIEW api.pools IS 'One row per pool that was decided on, as of its newest decision.';
COMMENT ON COLUMN api.pools.pool IS 'Name of the pool.';
COMMENT ON COLUMN api.pools.target IS 'The target whose workflow jobs its hosts are for.';
COMMENT ON COLUMN api.pools.labels IS 'Labels that its runners carry, as configured: lower case, sorted.';
COMMENT ON COLUMN api.pools.min IS 'Fewest hosts it may have, by the period that held.';
COMMENT ON COLUMN api.pools.max IS 'Most hosts it may have, those that boot included.';
COMMENT ON COLUMN api.pools.desired IS 'How many hosts it should have. What is asked for at once may be less.';
COMMENT ON COLUMN api.pools.online IS 'Its runners that were online and not being taken away.';
COMMENT ON COLUMN api.pools.busy IS 'Those online that were at work, or perhaps at work.';
COMMENT ON COLUMN api.pools.booting IS 'Hosts asked for or registered that were not online yet.';
COMMENT ON COLUMN api.pools.draining IS 'Its runners that were being taken away and still there.';
COMMENT ON COLUMN api.pools.queued IS 'Workflow jobs that waited for this pool.';
COMMENT ON COLUMN api.pools.in_progress IS 'Workflow jobs that ran on it.';
COMMENT ON COLUMN api.pools.demand_at IS 'As of when all of GitHub''s workflow jobs were last compared; null: never.';
COMMENT ON COLUMN api.pools.confidence IS 'known, stale (known too long ago to take a host away) or unknown: queued and in_progress are then the least there may be.';
COMMENT ON COLUMN api.pools.leases_expired IS 'Hosts asked for in a row that did not come online in time; 0 once one does.';
COMMENT ON COLUMN api.pools.reason IS 'Why desired is what it is, and what was done about it, in words.';
COMMENT ON COLUMN api.pools.decided_at IS 'When it was decided.';

CREATE VIEW api.leases AS
	SELECT request_id, pool, host, state, attempt, requested_at, deadline, runner_id
	FROM muster.lease;
COMMENT ON VIEW api.leases IS 'Requests for hosts, one row for each host that was asked for.';
COMMENT ON COLUMN api.leases.request_id IS 'Id of the message that asks for the host; the host gives it as demand_id when it asks for a token.';
COMMENT ON COLUMN api.leases.pool IS 'Name of the pool.';
COMMENT ON COLUMN api.leases.host IS 'The host that claimed it; null: none has.';
COMMENT ON COLUMN api.leases.state IS 'requested, claimed (a token was asked for with it), registered, online, or expired (not online by its deadline).';
COMMENT ON COLUMN api.leases.attempt IS 'Counts up from 1 from one request to the next while no host of the pool comes online.';
COMMENT ON COLUMN api.leases.requested_at IS 'When the host was asked for.';
COMMENT ON COLUMN api.leases.deadline IS 'By when its runner has to be online. It cannot be claimed afterwards.';
COMMENT ON COLUMN api.leases.runner_id IS 'The runner that came of it; null: none yet.';

CREATE VIEW api.findings AS
	SELECT kind, target, subject, since, detail
	FROM muster.finding;
COMMENT ON VIEW api.findings IS 'What is wrong with the fleet now and wants a person: one row for each.';
COMMENT ON COLUMN api.findings.kind IS 'unlabelled_job (asks for no label, so nobody can tell which hosts it waits for) or unserved_job (asks for labels that neither a pool nor a runner outside of pools has).';
COMMENT ON COLUMN api.findings.target IS 'The target concerned.';
COMMENT ON COLUMN api.findings.subject IS 'The labels asked for, or the repository of unlabelled jobs.';
COMMENT ON COLUMN api.findings.since IS 'Since when it has been so: when the first of the jobs was queued, or where that was not told, when it was found.';
COMMENT ON COLUMN api.findings.detail IS 'How many jobs, of which repository the longest waiting is, and the pool that lacks the fewest labels.';

DO $$
BEGIN
	IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'muster_app') THEN
		GRANT SELECT, INSERT, UPDATE, DELETE ON muster.pool, muster.lease, muster.finding TO muster_app;
		GRANT SELECT ON api.pools, api.leases, api.findings TO muster_app;
	END IF;
	IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'muster_auditor') THEN
		GRANT SELECT ON api.pools, api.leases, api.findings TO muster_auditor;
	END IF;
END
$$;
