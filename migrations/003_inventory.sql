CREATE TABLE muster.target (
	name                  text PRIMARY KEY,
	scope                 text NOT NULL,
	api_url               text NOT NULL,
	first_used_at         timestamptz NOT NULL,
	max_observation_gap   interval NOT NULL,
	-- The clock of observed time: the sum of the intervals between consecutive
	-- complete syncs that were no longer than max_observation_gap. A runner
	-- notes its value on going offline, so time passes without a write.
	observed_us           bigint NOT NULL DEFAULT 0,
	complete_syncs        bigint NOT NULL DEFAULT 0,
	last_complete_sync_at timestamptz,
	last_walk_at          timestamptz, -- start of the newest walk that was recorded
	last_outcome          text CHECK (last_outcome IN ('complete', 'partial', 'failed')),
	suspect               text CHECK (suspect IN ('empty', 'shrunk', 'mass_offline')),
	credential_fault      text,
	credential_fault_at   timestamptz,
	-- what was refused: to list, or to act (delete, mint) where listing is fine
	credential_fault_of   text CHECK (credential_fault_of IN ('list', 'act')),
	api_remaining         integer
);

CREATE TABLE muster.runner (
	target            text    NOT NULL REFERENCES muster.target (name),
	runner_id         bigint  NOT NULL,
	name              text    NOT NULL,
	os                text    NOT NULL,
	status            text    NOT NULL, -- free text: GitHub's schema has no enum
	busy              boolean NOT NULL,
	labels            text[]  NOT NULL,
	runner_group      text    NOT NULL DEFAULT '',
	ephemeral         boolean NOT NULL DEFAULT false,
	version           text    NOT NULL DEFAULT '',
	fingerprint       bigint  NOT NULL, -- of all of the above but target and id
	host              text,
	first_seen_at     timestamptz NOT NULL,
	seen_at           timestamptz NOT NULL, -- newest sight that is not the target's last complete sync
	status_since      timestamptz NOT NULL,
	offline_since     timestamptz,
	last_online_at    timestamptz, -- while online: see the view
	last_busy_at      timestamptz, -- while busy: see the view
	-- Set by the first complete sync of an offline run; null while online, or
	-- where only a partial sync has seen the run yet.
	offline_from_us   bigint,      -- muster.target.observed_us then
	offline_from_sync bigint,      -- muster.target.complete_syncs then
	offline_from_at   timestamptz,
	missing_since     timestamptz, -- a complete listing lacked it, without proof that it is gone
	removed_at        timestamptz,
	removal_cause     text CHECK (removal_cause IN
		('policy', 'scale_down', 'operator', 'host', 'ephemeral', 'github', 'unknown')),
	PRIMARY KEY (target, runner_id),
	CHECK ((removed_at IS NULL) = (removal_cause IS NULL))
) WITH (fillfactor = 80);
CREATE INDEX runner_live ON muster.runner (target) WHERE removed_at IS NULL;
CREATE INDEX runner_removed ON muster.runner (target, removed_at) WHERE removed_at IS NOT NULL;
CREATE INDEX runner_name ON muster.runner (name);
CREATE INDEX runner_host ON muster.runner (host) WHERE host IS NOT NULL AND removed_at IS NULL;

CREATE TABLE muster.sync (
	sync_id      uuid PRIMARY KEY,
	target       text NOT NULL REFERENCES muster.target (name),
	trigger_id   uuid NOT NULL,
	started_at   timestamptz NOT NULL,
	finished_at  timestamptz NOT NULL,
	outcome      text NOT NULL CHECK (outcome IN ('complete', 'partial', 'failed')),
	pages        integer NOT NULL,
	api_calls    integer NOT NULL,
	not_modified integer NOT NULL DEFAULT 0,
	runners      integer NOT NULL,
	added        integer NOT NULL,
	changed      integer NOT NULL,
	removed      integer NOT NULL,
	suspect      text CHECK (suspect IN ('empty', 'shrunk', 'mass_offline')),
	error        text
);
CREATE INDEX sync_target ON muster.sync (target, started_at);
CREATE INDEX sync_started_at ON muster.sync (started_at);

CREATE TABLE muster.runner_history (
	target    text NOT NULL,
	runner_id bigint NOT NULL,
	name      text NOT NULL,
	at        timestamptz NOT NULL,
	change    text NOT NULL CHECK (change IN
		('registered', 'online', 'offline', 'busy', 'idle', 'relabelled', 'renamed', 'removed')),
	before    jsonb,
	after     jsonb,
	sync_id   uuid
);
CREATE INDEX runner_history_runner ON muster.runner_history (target, runner_id, at);
CREATE INDEX runner_history_at ON muster.runner_history (at);
