-- The knowledge about runners belongs to their scope and server, not to the name
-- that the target has in the configuration. Renaming a target moves all its rows
-- in one transaction: the foreign keys are checked at its end.
ALTER TABLE muster.sync ALTER CONSTRAINT sync_target_fkey DEFERRABLE;
ALTER TABLE muster.page ALTER CONSTRAINT page_target_fkey DEFERRABLE;
ALTER TABLE muster.hold ALTER CONSTRAINT hold_target_runner_id_fkey DEFERRABLE;

-- Names that targets had before. What hosts and webhook receivers still tell
-- under one of them is recorded under the name of now.
CREATE TABLE muster.former_target (
	name   text        PRIMARY KEY,
	target text        NOT NULL, -- its name now
	at     timestamptz NOT NULL  -- when it was renamed
);

-- The name that a target has now.
CREATE FUNCTION muster.current_target(known text)
RETURNS text LANGUAGE sql STABLE
AS $$
	SELECT coalesce((SELECT f.target FROM muster.former_target f WHERE f.name = known), known)
$$;

-- The targets that each replica works with, so that nobody has muster forget
-- one that is in use.
ALTER TABLE muster.replica ADD COLUMN targets text[] NOT NULL DEFAULT '{}';

COMMENT ON COLUMN api.targets.scope IS 'enterprise/SLUG, org/ORG or repo/OWNER/REPO; fixed at the first complete sync.';
COMMENT ON COLUMN api.targets.api_url IS 'Address of the GitHub API; fixed at the first complete sync.';

DO $$
BEGIN
	IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'muster_app') THEN
		GRANT SELECT, INSERT, UPDATE, DELETE ON muster.former_target TO muster_app;
	END IF;
END
$$;
