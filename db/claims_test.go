package db_test

import (
	"testing"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

// A runner that a host lists which is not its own is a finding, for as long as
// that is so.
func TestRunnersThatStrangersClaimAreFindings(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.target()
	for id := range int64(7) {
		w.runner(id + 1)
	}
	for id, name := range []string{"tokened", "granted", "prefixed-1", "nobodys", "Granted", "removed", "quiet"} {
		w.exec(`UPDATE muster.runner SET name = $2 WHERE runner_id = $1`, id+1, name)
	}
	w.exec(`UPDATE muster.runner SET host = 'tokened' WHERE name = 'tokened'`)
	w.exec(`UPDATE muster.runner SET removed_at = $1, removal_cause = 'unknown' WHERE name = 'removed'`, t0)
	hosts := fleet.HostNames{Names: []string{"granted", "stranger"}, Prefixes: []string{"prefixed-"}}
	list := func(host string, names ...string) {
		w.exec(`INSERT INTO muster.host (host, last_heartbeat_at) VALUES ($1, $2)`, host, t0)
		w.exec(`INSERT INTO muster.host_runner (host, target, name, state, at) SELECT $1, 'acme', name, 'idle', $3 FROM unnest($2::text[]) AS l (name)`, host, names, t0)
	}
	save := func(hosts fleet.HostNames, at time.Time) {
		w.tx(func(tx *db.Tx) error { return tx.SaveClaims(w.ctx, "acme", hosts, at) })
	}
	const found = `SELECT coalesce(string_agg(concat_ws(' ', subject, detail->>'runner_id', coalesce(detail->>'host', '-'), 'by', detail->>'claimed_by', to_char(since AT TIME ZONE 'UTC', 'MI:SS')), '; ' ORDER BY subject COLLATE "C"), '') FROM api.findings WHERE kind = 'claimed_runner'`

	// Their own hosts.
	list("tokened", "tokened")
	list("granted", "granted")
	list("prefixed-1", "prefixed-1")
	save(hosts, t0)
	w.want("", found)
	// Strangers, with a grant for other names or without any.
	list("stranger", "tokened", "granted", "prefixed-1", "removed", "unknown", "Granted")
	list("nobodys", "nobodys", "granted")
	save(hosts, t0)
	w.want("Granted 5 - by stranger 00:00; granted 2 - by nobodys, stranger 00:00; nobodys 4 - by nobodys 00:00; prefixed-1 3 - by stranger 00:00; tokened 1 tokened by stranger 00:00", found)

	w.exec(`INSERT INTO muster.finding (kind, target, subject, since, detail) VALUES ('unserved_job', 'acme', 'gpu', $1, '{}'), ('claimed_runner', 'other', 'r', $1, '{}')`, t0)
	w.exec(`DELETE FROM muster.host_runner WHERE host = 'stranger' AND name <> 'granted' AND name <> 'tokened'`)
	w.exec(`DELETE FROM muster.host_runner WHERE host = 'nobodys' AND name = 'granted'`)
	save(fleet.HostNames{Names: []string{"granted", "nobodys"}}, t0.Add(time.Minute))
	w.want("granted 2 - by stranger 00:00; prefixed-1 3 - by prefixed-1 00:00; r - by 00:00; tokened 1 tokened by stranger 00:00", found)
	w.want("unserved_job", `SELECT kind FROM api.findings WHERE subject = 'gpu'`)
	save(fleet.HostNames{}, t0.Add(2*time.Minute))
	w.want("4", `SELECT count(*) FROM api.findings WHERE kind = 'claimed_runner' AND target = 'acme'`)
}
