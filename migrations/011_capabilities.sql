-- What a target's server was found to be able to do. Null is not known yet.
ALTER TABLE muster.target ADD COLUMN capabilities jsonb NOT NULL DEFAULT
	'{"server_version": null, "jit": null, "name_filter": null, "runner_groups": null, "ephemeral": null, "version": null, "delete_busy": null, "probed_at": null}';

CREATE OR REPLACE VIEW api.targets AS
	SELECT t.name AS target, t.scope, t.api_url, t.last_complete_sync_at,
		live.runners, live.online, live.busy, t.api_remaining,
		t.capabilities
	FROM muster.target t
	CROSS JOIN LATERAL (
		SELECT count(*)::integer AS runners,
			count(*) FILTER (WHERE r.status = 'online')::integer AS online,
			count(*) FILTER (WHERE r.busy)::integer AS busy
		FROM muster.runner r
		WHERE r.target = t.name AND r.removed_at IS NULL
	) live;
COMMENT ON COLUMN api.targets.capabilities IS 'What its server was found to be able to do: server_version (null on github.com), jit, name_filter, runner_groups, ephemeral and version as true or false, delete_busy (422 or 500: the answer to the deletion of a busy runner), probed_at. Null: not known yet.';
COMMENT ON COLUMN api.runners.os IS 'Operating system: linux, windows or macos, whatever the server calls them; unknown before the first connect; else the server''s word in lower case.';
