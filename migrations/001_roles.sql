-- Roles belong to the whole cluster, so several databases may make them at the
-- same time, and the owner of one database may not be allowed to: whoever
-- loses the race, or lacks the right, goes on with what is there. The lock
-- keeps apart those of one database only, as such locks are a database's own;
-- between two of them GRANT says unique_violation, or internal_error ("tuple
-- concurrently updated"). The service says at /readyz when it runs without its
-- role.
DO $$
DECLARE
	wanted text;
	-- From PostgreSQL 16 on, who makes a role is a member of it that may not
	-- become it.
	become text := CASE WHEN current_setting('server_version_num')::integer >= 160000 THEN 'SET' ELSE 'MEMBER' END;
BEGIN
	PERFORM pg_advisory_xact_lock(hashtextextended('muster.roles', 0));
	FOREACH wanted IN ARRAY ARRAY['muster_app', 'muster_auditor', 'muster_audit_owner'] LOOP
		BEGIN
			IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
				EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
			END IF;
		EXCEPTION
			WHEN duplicate_object OR unique_violation OR internal_error THEN NULL;
			WHEN insufficient_privilege THEN
				RAISE NOTICE 'role % is missing and cannot be made by %', wanted, current_user;
		END;
		BEGIN
			IF wanted <> 'muster_auditor'
				AND EXISTS (SELECT FROM pg_roles WHERE rolname = wanted)
				AND NOT pg_has_role(current_user, wanted, become) THEN
				EXECUTE format('GRANT %I TO %I', wanted, current_user);
			END IF;
		EXCEPTION
			WHEN duplicate_object OR unique_violation OR internal_error THEN
				-- Another database's migration was at it. Where it did not grant
				-- the same, the service says so at /readyz.
				NULL;
			WHEN insufficient_privilege THEN
				RAISE NOTICE '% cannot be made a member of %', current_user, wanted;
		END;
	END LOOP;
END
$$;

CREATE SCHEMA IF NOT EXISTS muster;
CREATE SCHEMA IF NOT EXISTS audit;
CREATE SCHEMA IF NOT EXISTS api;
COMMENT ON SCHEMA muster IS 'Private tables of the service. Anything here may change.';
COMMENT ON SCHEMA audit IS 'The audit trail: append-only. Read it through api.audit.';
COMMENT ON SCHEMA api IS 'What users may rely on: views only.';
