package db

// witnesses joins what others than GitHub's listings say of the runners r. Each
// is gathered as a whole and joined by hash: asked for row by row, a fleet of
// 100,000 would be 100,000 questions.
//
// A workflow job in progress counts for every runner that its events named. It is
// the runner's whose id an event names, unless the name beside it is another's:
// ids are counted anew in every scope and for GitHub's own machines, and one hook
// may tell of several. Then, and where the event has no id or one that nobody here
// has, the name alone says whose it is: so no job that tells of a runner at all is
// lost. Names are compared case-insensitively, since they protect. A job counts
// from when it was heard of: the date of its beginning may be wrong.
//
// Several hosts may speak of one name. That one of them says busy or idle protects
// the runner, in whatever case it writes the name. How a host fares itself may be
// held against the runner: it is read of the runner's own host alone, and the name
// has to be the very same. That is the host that was handed its token, or else the
// one of its very name.
//
// The one exception is the newest completed job: there are as many of those as a
// year has, and reading them all costs more than going down two indexes for each
// runner. Completed is what has an end: so the indexes know all, and no job is
// read itself. Only of the few jobs that moved is each runner read. By its name
// alone a job counts as the runner's since that was first seen, whatever its id: at
// worst a runner seems to have worked later than it did, and never earlier.
//
// Where it is about one runner, ofName is a condition that leaves the workflow jobs
// of all other names alone.
func witnesses(ofName string) string {
	return `
	LEFT JOIN (
		SELECT DISTINCT ON (j.target, j.runner_id) j.target, j.runner_id, j.workflow_job_id,
			least(coalesce(j.started_at, j.changed_at), j.changed_at) AS began_at, j.changed_at AS heard_at
		FROM muster.job_runner j
		WHERE j.state = 'in_progress' AND j.runner_id <> 0 AND EXISTS (` + runnerOfJob + `)
		ORDER BY j.target, j.runner_id, j.changed_at DESC
	) open ON open.target = r.target AND open.runner_id = r.runner_id
	LEFT JOIN (
		SELECT DISTINCT ON (j.target, lower(j.runner_name)) j.target, lower(j.runner_name) AS runner_name, j.workflow_job_id,
			least(coalesce(j.started_at, j.changed_at), j.changed_at) AS began_at, j.changed_at AS heard_at
		FROM muster.job_runner j
		WHERE j.state = 'in_progress' AND j.runner_name <> ''` + ofName + ` AND NOT EXISTS (` + runnerOfJob + `)
		ORDER BY j.target, lower(j.runner_name), j.changed_at DESC
	) named ON named.target = r.target AND named.runner_name = lower(r.name)
	LEFT JOIN (
		SELECT target, lower(runner_name) AS runner_name, max(completed_at) AS at
		FROM (` + movedJobs + `) j
		WHERE runner_name <> ''
		GROUP BY target, lower(runner_name)
	) moved ON moved.target = r.target AND moved.runner_name = lower(r.name)
	LEFT JOIN (
		SELECT target, runner_id, max(completed_at) AS at
		FROM (` + movedJobs + `) j
		WHERE runner_name = ''
		GROUP BY target, runner_id
	) moved_id ON moved_id.target = r.target AND moved_id.runner_id = r.runner_id
	LEFT JOIN LATERAL (
		SELECT greatest((
			SELECT completed_at
			FROM muster.workflow_job
			WHERE target = r.target AND runner_id = r.runner_id AND runner_id <> 0 AND completed_at IS NOT NULL
				AND lower(runner_name) IN ('', lower(r.name))
			ORDER BY completed_at DESC
			LIMIT 1
		), (
			SELECT completed_at
			FROM muster.workflow_job
			WHERE target = r.target AND lower(runner_name) = lower(r.name) AND runner_name <> '' AND completed_at > r.first_seen_at
			ORDER BY completed_at DESC
			LIMIT 1
		), CASE WHEN moved.at > r.first_seen_at THEN moved.at END, CASE WHEN moved_id.at > r.first_seen_at THEN moved_id.at END) AS at
	) done ON true
	LEFT JOIN (
		SELECT s.target, lower(s.name) AS name, min(s.host) AS first, max(s.host) AS last,
			max(h.last_heartbeat_at) FILTER (WHERE s.state = 'busy') AS busy_at,
			max(h.last_heartbeat_at) FILTER (WHERE s.state = 'idle') AS idle_at
		FROM muster.host_runner s
		JOIN muster.host h ON h.host = s.host
		GROUP BY s.target, lower(s.name)
	) says ON says.target = r.target AND says.name = lower(r.name)
	LEFT JOIN (
		SELECT s.target, s.name, s.host, h.last_heartbeat_at AS seen_at, whole.stopped
		FROM muster.host_runner s
		JOIN muster.host h ON h.host = s.host
		JOIN (
			SELECT host, bool_and(state = 'stopped') AS stopped FROM muster.host_runner GROUP BY host
		) whole ON whole.host = s.host
	) own ON own.target = r.target AND own.name = r.name AND own.host = coalesce(r.host, r.name)
	LEFT JOIN (
		SELECT target, host, max(issued_at) AS at
		FROM muster.token
		WHERE kind = 'registration' AND outcome = 'issued'
		GROUP BY target, host
	) tokens ON tokens.target = r.target AND tokens.host = r.host`
}

// runnerOfJob finds the runner that a workflow job j names by its id, if its name
// is or was the one that j has. GitHub renames no runner; the history is asked
// for servers that do.
const runnerOfJob = `
			SELECT FROM muster.runner o
			WHERE o.target = j.target AND o.runner_id = j.runner_id AND (lower(j.runner_name) IN ('', lower(o.name)) OR EXISTS (
				SELECT FROM muster.runner_history h
				WHERE h.target = o.target AND h.runner_id = o.runner_id AND h.change = 'renamed'
					AND lower(h.before->>'name') = lower(j.runner_name)))`

// movedJobs are the workflow jobs that are over and that more than one runner was
// named for, once for each of them.
const movedJobs = `
			SELECT w.target, w.completed_at, coalesce(n.id, 0) AS runner_id, coalesce(n.name, '') AS runner_name
			FROM muster.workflow_job w
			CROSS JOIN LATERAL jsonb_to_recordset(w.runners) AS n (id bigint, name text)
			WHERE jsonb_array_length(w.runners) > 1 AND w.completed_at IS NOT NULL`
