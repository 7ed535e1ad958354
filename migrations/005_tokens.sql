-- No column ever holds a token: fingerprint is a part of its SHA-256.
CREATE TABLE muster.token (
	host         text NOT NULL,
	request_id   uuid NOT NULL,
	attempt      integer NOT NULL,
	target       text NOT NULL, -- as asked, even where unknown
	kind         text NOT NULL,
	outcome      text NOT NULL CHECK (outcome IN ('requested', 'issued', 'denied', 'failed', 'unknown')),
	code         integer,
	body_sha256  text NOT NULL,
	demand_id    text,
	requested_at timestamptz NOT NULL,
	issued_at    timestamptz,
	expires_at   timestamptz,
	fingerprint  text,
	reason       text,
	runner_id    bigint,
	PRIMARY KEY (host, request_id, attempt)
);
CREATE INDEX token_open ON muster.token (requested_at) WHERE outcome = 'requested';
CREATE INDEX token_host ON muster.token (host, requested_at);
CREATE INDEX token_live ON muster.token (expires_at) WHERE outcome = 'issued';
