-- What users may rely on. Views only, every view and column explained; a column
-- is never dropped or given another meaning within this schema.

CREATE VIEW api.targets AS
	SELECT t.name AS target, t.scope, t.api_url, t.last_complete_sync_at,
		live.runners, live.online, live.busy, t.api_remaining,
		'{}'::jsonb AS capabilities
	FROM muster.target t
	CROSS JOIN LATERAL (
		SELECT count(*)::integer AS runners,
			count(*) FILTER (WHERE r.status = 'online')::integer AS online,
			count(*) FILTER (WHERE r.busy)::integer AS busy
		FROM muster.runner r
		WHERE r.target = t.name AND r.removed_at IS NULL
	) live;
COMMENT ON VIEW api.targets IS 'One row per target that muster has ever used.';
COMMENT ON COLUMN api.targets.target IS 'Short name of the target, as configured.';
COMMENT ON COLUMN api.targets.scope IS 'enterprise/SLUG, org/ORG or repo/OWNER/REPO; fixed at first use.';
COMMENT ON COLUMN api.targets.api_url IS 'Address of the GitHub API; fixed at first use.';
COMMENT ON COLUMN api.targets.last_complete_sync_at IS 'When the newest complete sync began its walk; null: never.';
COMMENT ON COLUMN api.targets.runners IS 'Runners that are registered, as far as muster knows.';
COMMENT ON COLUMN api.targets.online IS 'Those of them that are online.';
COMMENT ON COLUMN api.targets.busy IS 'Those of them that run a workflow job.';
COMMENT ON COLUMN api.targets.api_remaining IS 'Requests left in the current rate-limit hour, as GitHub last said; null where the server has no limit.';
COMMENT ON COLUMN api.targets.capabilities IS 'What the server was found to be able to do.';

CREATE VIEW api.runners AS
	SELECT r.target, r.runner_id, r.name, r.os, r.status, r.busy, r.labels,
		nullif(r.runner_group, '') AS runner_group, r.ephemeral, nullif(r.version, '') AS version,
		r.first_seen_at,
		CASE WHEN r.removed_at IS NULL AND r.missing_since IS NULL
			THEN greatest(r.seen_at, t.last_complete_sync_at) ELSE r.seen_at END AS last_seen_at,
		r.status_since, r.offline_since,
		CASE WHEN r.removed_at IS NULL AND r.offline_from_us IS NOT NULL
			THEN make_interval(secs => (t.observed_us - r.offline_from_us) / 1e6::double precision) END AS offline_for,
		CASE WHEN r.busy AND r.removed_at IS NULL AND r.missing_since IS NULL
			THEN greatest(r.seen_at, t.last_complete_sync_at) ELSE r.last_busy_at END AS last_busy_at,
		r.removed_at, r.removal_cause, r.host
	FROM muster.runner r
	JOIN muster.target t ON t.name = r.target;
COMMENT ON VIEW api.runners IS 'One row per runner that muster has ever seen, removed ones included.';
COMMENT ON COLUMN api.runners.target IS 'The target it is registered with.';
COMMENT ON COLUMN api.runners.runner_id IS 'GitHub''s id of the registration; unique within the target.';
COMMENT ON COLUMN api.runners.name IS 'Name of the runner.';
COMMENT ON COLUMN api.runners.os IS 'Operating system as GitHub shows it; free text.';
COMMENT ON COLUMN api.runners.status IS 'online or offline, as GitHub last showed it.';
COMMENT ON COLUMN api.runners.busy IS 'Whether it runs a workflow job; true also where GitHub did not say.';
COMMENT ON COLUMN api.runners.labels IS 'Labels, lower case, sorted.';
COMMENT ON COLUMN api.runners.runner_group IS 'Id of the runner group; null where the server does not say.';
COMMENT ON COLUMN api.runners.ephemeral IS 'Whether it takes one workflow job only; false also where the server does not say.';
COMMENT ON COLUMN api.runners.version IS 'Version of the runner program; null where the server does not say.';
COMMENT ON COLUMN api.runners.first_seen_at IS 'First sync that saw it.';
COMMENT ON COLUMN api.runners.last_seen_at IS 'Last observation that showed it registered.';
COMMENT ON COLUMN api.runners.status_since IS 'First observation of its present status.';
COMMENT ON COLUMN api.runners.offline_since IS 'First observation of the unbroken offline run; null while online.';
COMMENT ON COLUMN api.runners.offline_for IS 'Observed offline time: intervals between consecutive complete syncs that both saw it offline, those over max_observation_gap counting nothing. Policies use this. Null while online, when removed, and until a complete sync has seen it offline.';
COMMENT ON COLUMN api.runners.last_busy_at IS 'Last observation that showed it busy; null: never.';
COMMENT ON COLUMN api.runners.removed_at IS 'When it was found or made unregistered; null: it is registered.';
COMMENT ON COLUMN api.runners.removal_cause IS 'Why: policy, scale_down, operator, host, ephemeral, github (by itself or by someone else), unknown.';
COMMENT ON COLUMN api.runners.host IS 'The host that asked for the token it was registered with, where known.';

CREATE VIEW api.runner_history AS
	SELECT target, runner_id, name, at, change, before, after, sync_id FROM muster.runner_history;
COMMENT ON VIEW api.runner_history IS 'What happened to runners, one row per transition. Runners that were there at the first sync of a target have no registered row.';
COMMENT ON COLUMN api.runner_history.target IS 'The target.';
COMMENT ON COLUMN api.runner_history.runner_id IS 'GitHub''s id of the runner.';
COMMENT ON COLUMN api.runner_history.name IS 'Its name at that time.';
COMMENT ON COLUMN api.runner_history.at IS 'When the change was observed.';
COMMENT ON COLUMN api.runner_history.change IS 'registered, online, offline, busy, idle, relabelled, renamed or removed.';
COMMENT ON COLUMN api.runner_history.before IS 'The fields that changed, as they were; null for registered.';
COMMENT ON COLUMN api.runner_history.after IS 'The fields that changed, as they became; null for removed.';
COMMENT ON COLUMN api.runner_history.sync_id IS 'The sync that saw it; null where muster did it itself.';

CREATE VIEW api.syncs AS
	SELECT sync_id, target, trigger_id, started_at, finished_at, outcome, pages, api_calls,
		not_modified, runners, added, changed, removed, suspect, error
	FROM muster.sync;
COMMENT ON VIEW api.syncs IS 'One row per walk over a target.';
COMMENT ON COLUMN api.syncs.sync_id IS 'Id of the sync.';
COMMENT ON COLUMN api.syncs.target IS 'The target.';
COMMENT ON COLUMN api.syncs.trigger_id IS 'The trigger that caused it; see api.runs.';
COMMENT ON COLUMN api.syncs.started_at IS 'When the walk began: the time its observations count for.';
COMMENT ON COLUMN api.syncs.finished_at IS 'When its result was written.';
COMMENT ON COLUMN api.syncs.outcome IS 'complete; partial: what was seen counts and what was not seen proves nothing; failed: nothing was seen.';
COMMENT ON COLUMN api.syncs.pages IS 'Pages that arrived.';
COMMENT ON COLUMN api.syncs.api_calls IS 'Requests made of GitHub.';
COMMENT ON COLUMN api.syncs.not_modified IS 'Those of them answered 304.';
COMMENT ON COLUMN api.syncs.runners IS 'Distinct runners seen.';
COMMENT ON COLUMN api.syncs.added IS 'Runners seen for the first time.';
COMMENT ON COLUMN api.syncs.changed IS 'Runners whose row was written because something about them changed.';
COMMENT ON COLUMN api.syncs.removed IS 'Runners proven to be gone.';
COMMENT ON COLUMN api.syncs.suspect IS 'Why a complete listing looks more like a fault than a fleet: empty, shrunk, mass_offline; null: it does not.';
COMMENT ON COLUMN api.syncs.error IS 'What went wrong; null: nothing.';

CREATE VIEW api.policies AS
	SELECT policy, target, sha256, enforcement,
		CASE WHEN halted_at IS NULL THEN 'active' ELSE 'halted' END AS state,
		reason, last_run_at
	FROM muster.policy;
COMMENT ON VIEW api.policies IS 'One row per policy and target that it has run on.';
COMMENT ON COLUMN api.policies.policy IS 'Name of the policy; operator is the built-in one of muster remove.';
COMMENT ON COLUMN api.policies.target IS 'The target.';
COMMENT ON COLUMN api.policies.sha256 IS 'Hash of the text that last ran; null for operator.';
COMMENT ON COLUMN api.policies.enforcement IS 'disabled, audit or enforce.';
COMMENT ON COLUMN api.policies.state IS 'active, or halted: it acts on nobody until muster policy resume.';
COMMENT ON COLUMN api.policies.reason IS 'Why it is halted, with numbers; after a resume, what the operator gave as reason.';
COMMENT ON COLUMN api.policies.last_run_at IS 'When it was last evaluated.';

CREATE VIEW api.decisions AS
	SELECT decision_id, at, trigger_id, policy, policy_sha256, enforcement, target, runner_id, name,
		verdict, reasons, evidence
	FROM muster.decision;
COMMENT ON VIEW api.decisions IS 'What policies decided about runners. A decision that led to an intent is stored each time, any other when it differs from the last.';
COMMENT ON COLUMN api.decisions.decision_id IS 'Id of the decision.';
COMMENT ON COLUMN api.decisions.at IS 'When it was taken.';
COMMENT ON COLUMN api.decisions.trigger_id IS 'The trigger that caused it; see api.runs.';
COMMENT ON COLUMN api.decisions.policy IS 'Name of the policy.';
COMMENT ON COLUMN api.decisions.policy_sha256 IS 'Hash of its text; null for operator.';
COMMENT ON COLUMN api.decisions.enforcement IS 'audit or enforce at that time.';
COMMENT ON COLUMN api.decisions.target IS 'The target.';
COMMENT ON COLUMN api.decisions.runner_id IS 'GitHub''s id of the runner.';
COMMENT ON COLUMN api.decisions.name IS 'Its name.';
COMMENT ON COLUMN api.decisions.verdict IS 'act, keep, or halt: it would have been acted on, had the policy not run into its limit.';
COMMENT ON COLUMN api.decisions.reasons IS 'Stable codes; the numbers are in evidence.';
COMMENT ON COLUMN api.decisions.evidence IS 'What the decision rests on.';

CREATE VIEW api.actions AS
	SELECT action_id, decision_id, trigger_id, target, runner_id, name, action, state,
		nullif(reason, '') AS reason, http_status, intended_at, settled_at
	FROM muster.action;
COMMENT ON VIEW api.actions IS 'Intents with their outcomes: everything muster did or was about to do to runners.';
COMMENT ON COLUMN api.actions.action_id IS 'Id of the action.';
COMMENT ON COLUMN api.actions.decision_id IS 'The decision it carries out.';
COMMENT ON COLUMN api.actions.trigger_id IS 'The trigger that caused it; see api.runs.';
COMMENT ON COLUMN api.actions.target IS 'The target.';
COMMENT ON COLUMN api.actions.runner_id IS 'GitHub''s id of the runner.';
COMMENT ON COLUMN api.actions.name IS 'Its name.';
COMMENT ON COLUMN api.actions.action IS 'delete_runner.';
COMMENT ON COLUMN api.actions.state IS 'intended, done (GitHub confirmed it), gone (it was not there any more), spared (the last look spoke against it) or failed.';
COMMENT ON COLUMN api.actions.reason IS 'Why it was spared or failed, or how it was settled.';
COMMENT ON COLUMN api.actions.http_status IS 'Status of GitHub''s deciding answer; null: none came.';
COMMENT ON COLUMN api.actions.intended_at IS 'When the intent was committed, before anything was tried.';
COMMENT ON COLUMN api.actions.settled_at IS 'When the outcome was committed; null: still open.';

CREATE VIEW api.tokens AS
	SELECT request_id, attempt, host, target, kind, outcome, code, requested_at, issued_at, expires_at,
		fingerprint, runner_id
	FROM muster.token;
COMMENT ON VIEW api.tokens IS 'Every attempt of a host at a token. The token itself is nowhere.';
COMMENT ON COLUMN api.tokens.request_id IS 'Id that the host gave its request, or that was made for it.';
COMMENT ON COLUMN api.tokens.attempt IS '1, or more where another replica answered a repeat.';
COMMENT ON COLUMN api.tokens.host IS 'Who asked, as the NATS subject says.';
COMMENT ON COLUMN api.tokens.target IS 'For which target, as asked, even where there is none of that name.';
COMMENT ON COLUMN api.tokens.kind IS 'registration, removal or jit.';
COMMENT ON COLUMN api.tokens.outcome IS 'requested, issued, denied, failed, or unknown: it may exist, unsent.';
COMMENT ON COLUMN api.tokens.code IS 'Code of the refusal; null where there was none.';
COMMENT ON COLUMN api.tokens.requested_at IS 'When the intent was committed.';
COMMENT ON COLUMN api.tokens.issued_at IS 'When the token was handed over.';
COMMENT ON COLUMN api.tokens.expires_at IS 'When GitHub lets it expire.';
COMMENT ON COLUMN api.tokens.fingerprint IS 'First 16 hex digits of the token''s SHA-256.';
COMMENT ON COLUMN api.tokens.runner_id IS 'The runner it was made for, where known.';

CREATE VIEW api.ticks AS
	SELECT schedule, tick_at, state, fired_at, trigger_id FROM muster.tick;
COMMENT ON VIEW api.ticks IS 'One row per due moment of a schedule.';
COMMENT ON COLUMN api.ticks.schedule IS 'JOB/NAME.';
COMMENT ON COLUMN api.ticks.tick_at IS 'The due moment.';
COMMENT ON COLUMN api.ticks.state IS 'fired, missed (nobody was there in time) or skipped (the run before was still going).';
COMMENT ON COLUMN api.ticks.fired_at IS 'When it was fired; null otherwise.';
COMMENT ON COLUMN api.ticks.trigger_id IS 'The trigger it became; see api.runs.';

CREATE VIEW api.runs AS
	SELECT trigger_id, job, name, source, attempt, state, started_at, finished_at, error, counts
	FROM muster.run
	WHERE state <> 'queued';
COMMENT ON VIEW api.runs IS 'One row per trigger that was worked on.';
COMMENT ON COLUMN api.runs.trigger_id IS 'Id of the trigger.';
COMMENT ON COLUMN api.runs.job IS 'sync, enforce, scale or housekeep.';
COMMENT ON COLUMN api.runs.name IS 'The target or pool, or all.';
COMMENT ON COLUMN api.runs.source IS 'cron, nats, cli, or sync: a complete sync asked for enforcement.';
COMMENT ON COLUMN api.runs.attempt IS 'How often it was begun.';
COMMENT ON COLUMN api.runs.state IS 'running, done, failed (and will be tried again) or dead (and will not; see api.dead_letters).';
COMMENT ON COLUMN api.runs.started_at IS 'When the newest attempt began.';
COMMENT ON COLUMN api.runs.finished_at IS 'When it ended; null while it runs.';
COMMENT ON COLUMN api.runs.error IS 'What went wrong last; null: nothing.';
COMMENT ON COLUMN api.runs.counts IS 'Figures of the run by name.';

CREATE VIEW api.dead_letters AS
	SELECT id, subject, trigger_id, body, error, attempts, died_at FROM muster.dead_letter;
COMMENT ON VIEW api.dead_letters IS 'Triggers that failed for good, and messages that never became one.';
COMMENT ON COLUMN api.dead_letters.id IS 'Id of the dead letter, for muster dead-letters.';
COMMENT ON COLUMN api.dead_letters.subject IS 'NATS subject it came on.';
COMMENT ON COLUMN api.dead_letters.trigger_id IS 'Its trigger; null where it never became one.';
COMMENT ON COLUMN api.dead_letters.body IS 'The message as it came, at most 16 KiB.';
COMMENT ON COLUMN api.dead_letters.error IS 'Why it died.';
COMMENT ON COLUMN api.dead_letters.attempts IS 'How often it was tried.';
COMMENT ON COLUMN api.dead_letters.died_at IS 'When it was given up.';

CREATE VIEW api.audit AS
	SELECT event_id, occurred_at, code, action, outcome, actor_type, actor, target, runner_id,
		runner_name, host, policy, trigger_id, reason, payload::jsonb AS payload
	FROM audit.event;
COMMENT ON VIEW api.audit IS 'The audit trail: append-only, one row per event, written in the transaction of what it tells of.';
COMMENT ON COLUMN api.audit.event_id IS 'Id of the event (UUIDv7).';
COMMENT ON COLUMN api.audit.occurred_at IS 'When it happened.';
COMMENT ON COLUMN api.audit.code IS 'Stable code of the kind of event; I informs, W wants a look, E wants a person.';
COMMENT ON COLUMN api.audit.action IS 'What it is about, such as runner.delete.';
COMMENT ON COLUMN api.audit.outcome IS 'intended, done, gone, spared, failed, denied, unknown or noted.';
COMMENT ON COLUMN api.audit.actor_type IS 'cron, nats, cli, host, policy or system.';
COMMENT ON COLUMN api.audit.actor IS 'Who it was.';
COMMENT ON COLUMN api.audit.target IS 'The target, where there is one.';
COMMENT ON COLUMN api.audit.runner_id IS 'GitHub''s id of the runner, where there is one.';
COMMENT ON COLUMN api.audit.runner_name IS 'Its name.';
COMMENT ON COLUMN api.audit.host IS 'The host, where there is one.';
COMMENT ON COLUMN api.audit.policy IS 'The policy, where there is one.';
COMMENT ON COLUMN api.audit.trigger_id IS 'The trigger that caused it; see api.runs.';
COMMENT ON COLUMN api.audit.reason IS 'Why, in a code or in words.';
COMMENT ON COLUMN api.audit.payload IS 'The event as it was sealed, with all its details.';
