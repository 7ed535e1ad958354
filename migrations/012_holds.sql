-- Runners that an operator wants kept, whatever policies and other operators
-- want. One that has expired stays until housekeeping or the next hold.
CREATE TABLE muster.hold (
	target    text        NOT NULL,
	runner_id bigint      NOT NULL,
	reason    text        NOT NULL,
	by        text        NOT NULL,
	at        timestamptz NOT NULL,
	until     timestamptz, -- null: until it is lifted
	PRIMARY KEY (target, runner_id),
	FOREIGN KEY (target, runner_id) REFERENCES muster.runner (target, runner_id) ON DELETE CASCADE
);

CREATE VIEW api.holds AS
	SELECT h.target, h.runner_id, r.name, h.reason, h.by, h.at, h.until
	FROM muster.hold h
	JOIN muster.runner r USING (target, runner_id)
	WHERE (h.until IS NULL OR h.until > now()) AND r.removed_at IS NULL;
COMMENT ON VIEW api.holds IS 'Runners that nobody may act on, because an operator said so: one row per hold that stands.';
COMMENT ON COLUMN api.holds.target IS 'The target.';
COMMENT ON COLUMN api.holds.runner_id IS 'GitHub''s id of the runner.';
COMMENT ON COLUMN api.holds.name IS 'Its name.';
COMMENT ON COLUMN api.holds.reason IS 'Why, in the words of who set it.';
COMMENT ON COLUMN api.holds.by IS 'Who set it: the account at the command line.';
COMMENT ON COLUMN api.holds.at IS 'When it was set.';
COMMENT ON COLUMN api.holds.until IS 'When it ends by itself; null: when somebody lifts it.';

DO $$
BEGIN
	IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'muster_app') THEN
		GRANT SELECT, INSERT, UPDATE, DELETE ON muster.hold TO muster_app;
		GRANT SELECT ON api.holds TO muster_app;
	END IF;
	IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'muster_auditor') THEN
		GRANT SELECT ON api.holds TO muster_auditor;
	END IF;
END
$$;
