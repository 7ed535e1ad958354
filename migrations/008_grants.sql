-- Who may do what, as far as the roles exist (001). The service may add to the
-- audit trail and nothing else there; auditors read the views and nothing else.
DO $$
DECLARE
	become text := CASE WHEN current_setting('server_version_num')::integer >= 160000 THEN 'SET' ELSE 'MEMBER' END;
BEGIN
	IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'muster_app') THEN
		GRANT USAGE ON SCHEMA muster, audit, api TO muster_app;
		GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA muster TO muster_app;
		ALTER DEFAULT PRIVILEGES IN SCHEMA muster
			GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO muster_app;
		-- Not xid: see audit.event.
		GRANT INSERT (event_id, occurred_at, payload, leaf_hash) ON audit.event TO muster_app;
		GRANT SELECT ON ALL TABLES IN SCHEMA api TO muster_app;
		GRANT SELECT ON public.muster_schema_version TO muster_app;
	END IF;
	IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'muster_auditor') THEN
		GRANT USAGE ON SCHEMA api TO muster_auditor;
		GRANT SELECT ON ALL TABLES IN SCHEMA api TO muster_auditor;
	END IF;
	-- The trail belongs to a role that nobody works as. The owner of the view
	-- api.audit keeps the right to read it.
	IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'muster_audit_owner')
		AND pg_has_role(current_user, 'muster_audit_owner', become) THEN
		EXECUTE format('GRANT SELECT ON audit.event TO %I', current_user);
		GRANT CREATE, USAGE ON SCHEMA audit TO muster_audit_owner;
		ALTER FUNCTION audit.refuse_change() OWNER TO muster_audit_owner;
		ALTER TABLE audit.event OWNER TO muster_audit_owner;
		REVOKE CREATE ON SCHEMA audit FROM muster_audit_owner;
		EXECUTE format('GRANT SELECT, INSERT ON audit.event TO %I', current_user);
	END IF;
END
$$;
