-- GitHub's wishes to be left alone, the latest of each credential. What one
-- process was told holds for all that use the credential, and for those that
-- start later. A credential is named by its server and by what GitHub keeps one
-- budget for: the installation of an App, or a token by its fingerprint.
CREATE TABLE muster.github_pause (
	credential text        PRIMARY KEY,
	until      timestamptz NOT NULL, -- nothing is sent before
	told_at    timestamptz NOT NULL,
	reason     text        NOT NULL  -- the status and GitHub's words
);

DO $$
BEGIN
	IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'muster_app') THEN
		GRANT SELECT, INSERT, UPDATE, DELETE ON muster.github_pause TO muster_app;
	END IF;
END
$$;
