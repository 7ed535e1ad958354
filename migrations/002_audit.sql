-- The trail. payload is canonical JSON text, exactly the bytes that leaf_hash
-- covers (jsonb would not keep them); every column that is searched is
-- generated from it, so that no column can say something else than what is
-- sealed. leaf_hash is the leaf hash of RFC 6962: sha256(0x00 || payload).
CREATE TABLE audit.event (
	event_id    uuid        PRIMARY KEY,
	occurred_at timestamptz NOT NULL,
	-- The order of sealing. No client may choose it (see the grants), or a row
	-- could be hidden below the sealer's watermark.
	xid         xid8        NOT NULL DEFAULT pg_current_xact_id(),
	payload     text        NOT NULL CHECK (octet_length(payload) <= 16384),
	leaf_hash   bytea       NOT NULL,
	code        text   GENERATED ALWAYS AS ((payload::jsonb)->>'code') STORED,
	action      text   GENERATED ALWAYS AS ((payload::jsonb)->>'action') STORED,
	outcome     text   GENERATED ALWAYS AS ((payload::jsonb)->>'outcome') STORED,
	actor_type  text   GENERATED ALWAYS AS ((payload::jsonb)->'actor'->>'type') STORED,
	actor       text   GENERATED ALWAYS AS ((payload::jsonb)->'actor'->>'name') STORED,
	target      text   GENERATED ALWAYS AS ((payload::jsonb)->>'target') STORED,
	runner_id   bigint GENERATED ALWAYS AS (((payload::jsonb)->'runner'->>'id')::bigint) STORED,
	runner_name text   GENERATED ALWAYS AS ((payload::jsonb)->'runner'->>'name') STORED,
	host        text   GENERATED ALWAYS AS ((payload::jsonb)->>'host') STORED,
	policy      text   GENERATED ALWAYS AS ((payload::jsonb)->>'policy') STORED,
	trigger_id  text   GENERATED ALWAYS AS ((payload::jsonb)->>'trigger_id') STORED,
	reason      text   GENERATED ALWAYS AS ((payload::jsonb)->>'reason') STORED,
	CHECK (leaf_hash = sha256('\x00'::bytea || convert_to(payload, 'UTF8'))),
	-- IS TRUE: what is absent would pass as unknown.
	CHECK (((payload::jsonb)->>'event_id' = event_id::text) IS TRUE),
	CHECK ((((payload::jsonb)->>'time')::timestamptz = occurred_at) IS TRUE),
	CHECK (((payload::jsonb)->>'code' ~ '^[A-Z]{2}[0-9]{3}[IWE]$') IS TRUE),
	CHECK (((payload::jsonb)->>'outcome' IN
		('intended', 'done', 'gone', 'spared', 'failed', 'denied', 'unknown', 'noted')) IS TRUE),
	CHECK (((payload::jsonb)->'actor'->>'type' IN
		('cron', 'nats', 'cli', 'host', 'policy', 'system')) IS TRUE)
);
CREATE INDEX event_occurred_at ON audit.event (occurred_at);
CREATE INDEX event_runner ON audit.event (target, runner_id, occurred_at) WHERE runner_id IS NOT NULL;
CREATE INDEX event_host ON audit.event (host, occurred_at) WHERE host IS NOT NULL;
CREATE INDEX event_trigger ON audit.event (trigger_id) WHERE trigger_id IS NOT NULL;
CREATE INDEX event_code ON audit.event (code, occurred_at);

CREATE FUNCTION audit.refuse_change() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'the audit trail is append-only: % on %.% refused', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
		USING ERRCODE = 'insufficient_privilege';
END
$$;

CREATE TRIGGER event_append_only BEFORE UPDATE OR DELETE ON audit.event
	FOR EACH ROW EXECUTE FUNCTION audit.refuse_change();
CREATE TRIGGER event_no_truncate BEFORE TRUNCATE ON audit.event
	FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();
-- ALWAYS: session_replication_role = replica skips ordinary triggers.
ALTER TABLE audit.event ENABLE ALWAYS TRIGGER event_append_only;
ALTER TABLE audit.event ENABLE ALWAYS TRIGGER event_no_truncate;
