-- The muster serve processes that are alive. They divide what GitHub allows a
-- credential in a minute.
CREATE TABLE muster.replica (
	replica uuid        PRIMARY KEY, -- another one each time that it starts
	seen_at timestamptz NOT NULL
) WITH (fillfactor = 50);

DO $$
BEGIN
	IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'muster_app') THEN
		GRANT SELECT, INSERT, UPDATE, DELETE ON muster.replica TO muster_app;
	END IF;
END
$$;
