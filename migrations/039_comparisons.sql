-- A repository that cannot be read costs itself alone (issue 10): it is counted
-- and named where the workflow jobs of its target are compared.
ALTER TABLE muster.reconciliation
	ADD COLUMN unreadable       integer NOT NULL DEFAULT 0,
	ADD COLUMN unreadable_items text[] NOT NULL DEFAULT '{}';

CREATE VIEW api.comparisons AS
SELECT target, began_at, listed_at, as_of, fault, groups_at, groups_fault, unreadable, unreadable_items
FROM muster.reconciliation;

COMMENT ON VIEW api.comparisons IS 'How far the workflow jobs of each target are compared with GitHub''s.';
COMMENT ON COLUMN api.comparisons.target IS 'Name of the target.';
COMMENT ON COLUMN api.comparisons.began_at IS 'When the newest part of the comparison began. Null: there was none.';
COMMENT ON COLUMN api.comparisons.listed_at IS 'When the repositories were last listed. Null: they are listed next.';
COMMENT ON COLUMN api.comparisons.as_of IS 'When all workflow jobs were known at last. Null: never.';
COMMENT ON COLUMN api.comparisons.fault IS 'Why the newest part is not whole. Empty: it is.';
COMMENT ON COLUMN api.comparisons.groups_at IS 'When the runner groups were last asked for. Null: never.';
COMMENT ON COLUMN api.comparisons.groups_fault IS 'Why the runner groups are not known as of then. Empty: they are.';
COMMENT ON COLUMN api.comparisons.unreadable IS 'Repositories of the newest listing that could not be read. Their workflow jobs are known by events alone.';
COMMENT ON COLUMN api.comparisons.unreadable_items IS 'The first 20 of those repositories, each with the reason.';

DO $$
BEGIN
	IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'muster_auditor') THEN
		GRANT SELECT ON api.comparisons TO muster_auditor;
	END IF;
	IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'muster_app') THEN
		GRANT SELECT ON api.comparisons TO muster_app;
	END IF;
END
$$;
