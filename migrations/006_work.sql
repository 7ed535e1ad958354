CREATE TABLE muster.run (
	trigger_id  uuid PRIMARY KEY,
	job         text NOT NULL,
	name        text NOT NULL,
	source      text NOT NULL CHECK (source IN ('cron', 'nats', 'cli', 'sync')),
	parent      uuid, -- the trigger that named all, of which this is a part
	reason      text NOT NULL DEFAULT '',
	attempt     integer NOT NULL DEFAULT 0,
	-- queued: the outbox holds or held the trigger and nobody has begun
	state       text NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'dead')),
	queued_at   timestamptz NOT NULL,
	requeued_at timestamptz, -- when it last went into the outbox again; null: never
	started_at  timestamptz,
	finished_at timestamptz,
	lease_until timestamptz,
	error       text,
	counts      jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX run_open ON muster.run (job, name) WHERE state IN ('queued', 'running', 'failed');
CREATE INDEX run_queued_at ON muster.run (queued_at);
CREATE INDEX run_parent ON muster.run (parent) WHERE parent IS NOT NULL;

CREATE TABLE muster.schedule (
	schedule    text PRIMARY KEY,
	sha256      text NOT NULL,
	anchored_at timestamptz NOT NULL -- ticks up to here are nobody's business
);

CREATE TABLE muster.tick (
	schedule   text NOT NULL,
	tick_at    timestamptz NOT NULL,
	state      text NOT NULL CHECK (state IN ('fired', 'missed', 'skipped')),
	fired_at   timestamptz,
	trigger_id uuid,
	PRIMARY KEY (schedule, tick_at)
);
CREATE INDEX tick_at ON muster.tick (tick_at);

CREATE TABLE muster.outbox (
	id            uuid PRIMARY KEY, -- the message id on the wire
	subject       text NOT NULL,
	headers       jsonb NOT NULL DEFAULT '{}',
	body          bytea NOT NULL,
	created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
	claimed_until timestamptz NOT NULL DEFAULT '-infinity'
);
CREATE INDEX outbox_claim ON muster.outbox (claimed_until, created_at);

CREATE TABLE muster.dead_letter (
	id         uuid PRIMARY KEY,
	subject    text NOT NULL,
	trigger_id uuid,
	body       text NOT NULL,
	error      text NOT NULL,
	attempts   integer NOT NULL,
	died_at    timestamptz NOT NULL
);
CREATE INDEX dead_letter_died_at ON muster.dead_letter (died_at);
