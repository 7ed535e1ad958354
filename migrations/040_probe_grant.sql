-- muster.probe has had its rights by the default privileges of 008 alone, which
-- hold for what the same role made (issue 10).
DO $$
BEGIN
	IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'muster_app') THEN
		GRANT SELECT, INSERT, UPDATE, DELETE ON muster.probe TO muster_app;
	END IF;
END
$$;
