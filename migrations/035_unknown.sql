-- GitHub does not always say what a runner is like (issue 10). What it did not
-- say is unknown, and what was known stays.

-- An older server does not say whether a runner is ephemeral.
ALTER TABLE muster.runner
	ALTER COLUMN ephemeral DROP NOT NULL,
	ALTER COLUMN ephemeral DROP DEFAULT,
	ADD COLUMN unreadable text NOT NULL DEFAULT ''; -- why the newest sight of it could not be read in full
UPDATE muster.runner SET ephemeral = NULL WHERE NOT ephemeral;
UPDATE muster.runner SET os = '' WHERE os = 'unknown';

ALTER TABLE muster.sync
	ADD COLUMN unreadable integer NOT NULL DEFAULT 0,
	ADD COLUMN unreadable_items text[] NOT NULL DEFAULT '{}';

-- Every page is read anew once, so that the rows above are filled.
DELETE FROM muster.page;
UPDATE muster.target SET proven_listing = NULL;

CREATE OR REPLACE VIEW api.runners AS
	SELECT r.target, r.runner_id, r.name, nullif(r.os, '') AS os, nullif(r.status, '') AS status, r.busy, r.labels,
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
COMMENT ON COLUMN api.runners.os IS 'Operating system: linux, windows or macos, else the server''s word; null where GitHub never said.';
COMMENT ON COLUMN api.runners.status IS 'online or offline, as GitHub last showed it; null where GitHub never said.';
COMMENT ON COLUMN api.runners.labels IS 'Labels, lower case, sorted. Empty: not known, since every self-hosted runner has labels. A listing without labels leaves those that were known.';
COMMENT ON COLUMN api.runners.ephemeral IS 'Whether it takes one workflow job only; null where the server does not say.';

CREATE OR REPLACE VIEW api.syncs AS
	SELECT sync_id, target, trigger_id, started_at, finished_at, outcome, pages, api_calls,
		not_modified, runners, added, changed, removed, suspect, error, unreadable, unreadable_items
	FROM muster.sync;
COMMENT ON COLUMN api.syncs.outcome IS 'complete; partial: what was seen counts and what was not seen proves nothing; failed: nothing was seen, or what was seen could not be recorded.';
COMMENT ON COLUMN api.syncs.unreadable IS 'Items of the listing that could not be read in full. Each is kept as it was known, and no policy deletes it.';
COMMENT ON COLUMN api.syncs.unreadable_items IS 'The first 20 of those items, each with the reason.';
