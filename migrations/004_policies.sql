CREATE TABLE muster.policy (
	policy          text NOT NULL,
	target          text NOT NULL,
	sha256          text, -- null for the built-in operator policy
	enforcement     text NOT NULL,
	halted_at       timestamptz, -- null: active
	reason          text,
	allowance       integer NOT NULL DEFAULT 0 CHECK (allowance >= 0),
	allowance_until timestamptz, -- what is left of the allowance then is void; null: none was given
	last_run_at     timestamptz,
	PRIMARY KEY (policy, target)
);

-- Since when a runner has matched without a break. A row goes with the first
-- evaluation that does not match, and with any change of the policy's text.
CREATE TABLE muster.grace_mark (
	policy    text NOT NULL,
	target    text NOT NULL,
	runner_id bigint NOT NULL,
	sha256    text NOT NULL,
	since     timestamptz NOT NULL,
	PRIMARY KEY (policy, target, runner_id)
);

CREATE TABLE muster.decision (
	decision_id   uuid PRIMARY KEY,
	at            timestamptz NOT NULL,
	trigger_id    uuid,
	policy        text NOT NULL,
	policy_sha256 text,
	enforcement   text NOT NULL,
	target        text NOT NULL,
	runner_id     bigint NOT NULL,
	name          text NOT NULL,
	verdict       text NOT NULL CHECK (verdict IN ('act', 'keep', 'halt')),
	reasons       text[] NOT NULL,
	evidence      jsonb NOT NULL
);
CREATE INDEX decision_runner ON muster.decision (target, runner_id, at);
CREATE INDEX decision_at ON muster.decision (at);

-- The last decision stored, to tell news from repetition.
CREATE TABLE muster.last_decision (
	policy        text NOT NULL,
	target        text NOT NULL,
	runner_id     bigint NOT NULL,
	policy_sha256 text,
	verdict       text NOT NULL,
	reasons       text[] NOT NULL,
	PRIMARY KEY (policy, target, runner_id)
);

CREATE TABLE muster.action (
	action_id    uuid PRIMARY KEY,
	decision_id  uuid NOT NULL,
	trigger_id   uuid NOT NULL,
	policy       text NOT NULL,
	target       text NOT NULL,
	runner_id    bigint NOT NULL,
	name         text NOT NULL,
	action       text NOT NULL,
	state        text NOT NULL CHECK (state IN ('intended', 'done', 'gone', 'spared', 'failed')),
	reason       text NOT NULL DEFAULT '',
	http_status  integer,
	-- Acted under what an operator allowed beyond the caps: not counted in them.
	allowed      boolean NOT NULL DEFAULT false,
	intended_at  timestamptz NOT NULL,
	settled_at   timestamptz,
	lease_until  timestamptz NOT NULL,
	CHECK ((state = 'intended') = (settled_at IS NULL))
);
-- Nobody acts on a runner that somebody is already acting on.
CREATE UNIQUE INDEX action_open ON muster.action (target, runner_id) WHERE state = 'intended';
CREATE INDEX action_window ON muster.action (policy, target, intended_at);
CREATE INDEX action_spared ON muster.action (target, settled_at) WHERE state = 'spared';
CREATE INDEX action_runner ON muster.action (target, runner_id, intended_at);
