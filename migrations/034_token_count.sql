-- Refusals of one host for one reason, beyond the first ten a minute, are one row
-- with their number.
ALTER TABLE muster.token ADD COLUMN count integer NOT NULL DEFAULT 1 CHECK (count > 0);
CREATE OR REPLACE VIEW api.tokens AS
	SELECT request_id, attempt, host, target, kind, outcome, code, requested_at, issued_at, expires_at,
		fingerprint, runner_id, count
	FROM muster.token;
COMMENT ON COLUMN api.tokens.count IS 'Requests that the row stands for: 1, or more where a host was refused again and again.';
