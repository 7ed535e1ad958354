-- The newest time that Postgres's clock has shown to any muster serve, and the
-- newest step of that clock. A clock that shows an earlier time than the newest
-- one has gone back; a process that has just started sees that too.
CREATE TABLE muster.clock (
	one        boolean     PRIMARY KEY DEFAULT true CHECK (one), -- there is one row
	newest     timestamptz NOT NULL,
	steps      integer     NOT NULL DEFAULT 0, -- that were found so far
	stepped_at timestamptz, -- when the newest step was found, by the clock after it; null: there was none
	stepped_by interval,    -- how far it went; negative: back
	CHECK ((stepped_at IS NULL) = (stepped_by IS NULL))
) WITH (fillfactor = 50);
INSERT INTO muster.clock (newest) VALUES (clock_timestamp());

DO $$
BEGIN
	IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'muster_app') THEN
		GRANT SELECT, INSERT, UPDATE, DELETE ON muster.clock TO muster_app;
	END IF;
END
$$;
