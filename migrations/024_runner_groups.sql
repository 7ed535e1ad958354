-- Whose workflow jobs runners take: a job is counted for a pool only where a
-- group of the pool's runners is open to the job's repository.
CREATE TABLE muster.runner_group (
	target     text    NOT NULL,
	group_id   text    NOT NULL,  -- as runners name it
	name       text    NOT NULL,
	visibility text    NOT NULL CHECK (visibility IN ('all', 'private', 'selected')),
	public     boolean NOT NULL,  -- whether it takes jobs of public repositories at all
	selected   text[]  NOT NULL,  -- repositories or, of an enterprise, organisations: lower case
	PRIMARY KEY (target, group_id)
);

ALTER TABLE muster.repository ADD COLUMN public boolean NOT NULL DEFAULT false; -- as it was last listed
ALTER TABLE muster.reconciliation
	ADD COLUMN groups_at timestamptz,                   -- when the groups were last asked for; null: never
	ADD COLUMN groups_fault text NOT NULL DEFAULT '';   -- why they are not known as of then; empty: they are
-- Those of its runners, when it last had some online: a pool that is empty still
-- has to know whose jobs its next host will take.
ALTER TABLE muster.pool ADD COLUMN groups text[] NOT NULL DEFAULT '{}';

COMMENT ON COLUMN api.findings.kind IS 'unlabelled_job (asks for no label, so nobody can tell which hosts it waits for), unserved_job (neither a pool nor a runner outside of pools has its labels and takes jobs of its repository) or mislabelled_host (was asked for by a pool and registered without its labels).';
COMMENT ON COLUMN api.findings.detail IS 'How many jobs, of which repository the longest waiting is, and the pool that has its labels and whose runner groups are closed to that repository (closed_pool), or the one that lacks the fewest labels; or how many hosts, and what they lack.';

DO $$
BEGIN
	IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'muster_app') THEN
		GRANT SELECT, INSERT, UPDATE, DELETE ON muster.runner_group TO muster_app;
	END IF;
END
$$;
