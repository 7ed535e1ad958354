package scale_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/worker/scale"
)

func TestJobsThatNoPoolServesAreFindings(t *testing.T) {
	t.Parallel()
	w := newWorld(t, linux(nil))
	w.sync(everybody)
	w.queue(2, "gpu", "linux")
	w.queue(1)
	w.queue(1, "x64") // which every runner of the pool was seen to carry
	w.tx(func(tx *db.Tx) error { return tx.AddRunners(w.ctx, "acme", []db.RunnerRow{w.online("a")}) })
	w.scale()
	w.wantPool(1, 1, 0, 1, 0)
	w.want("unlabelled_job acme/widgets 1, unserved_job gpu,linux 2", `SELECT string_agg(concat_ws(' ', kind, subject, detail->>'jobs'), ', ' ORDER BY kind) FROM api.findings`)
	w.exec(`UPDATE muster.workflow_job SET state = 'completed'`)
	w.scale()
	w.want("0", `SELECT count(*) FROM api.findings`)
}

// Who writes a workflow says what its jobs ask for, and how much of it: that must
// keep nobody else from their hosts.
func TestJobsThatAskForMoreThanAnIndexHoldsAreFindings(t *testing.T) {
	t.Parallel()
	w := newWorld(t, linux(nil))
	w.sync(everybody)
	rng := rand.New(rand.NewPCG(1, 2))
	var long []string
	for range 200 {
		text := make([]byte, 0, 256)
		for len(text) < cap(text) {
			text = append(text, 'a'+byte(rng.IntN(26)))
		}
		long = append(long, string(text))
	}
	w.queue(2, long...)
	w.queue(1, long[1:]...)
	w.queue(3, "linux")
	w.scale()
	w.want("requested 1 3", leases)
	w.want("1 2", `SELECT string_agg(detail->>'jobs', ' ' ORDER BY detail->>'jobs') FROM api.findings WHERE kind = 'unserved_job'`)
	w.scale() // the same again
	w.want("2", `SELECT count(*) FROM api.findings`)
}

// Hosts that come with other labels than they were asked for with count for who
// asked, or there would be more and more of them.
func TestHostsWithoutTheLabelsOfTheirPoolCountForIt(t *testing.T) {
	t.Parallel()
	gpu := linux(func(p *fleet.Pool) { p.Name, p.Labels = "gpu", []string{"gpu"} })
	w := newWorld(t, linux(func(p *fleet.Pool) { p.Max, p.Cooldown.Up = 4, 0 }), gpu)
	w.sync(everybody)
	w.queue(9, "linux")
	w.scale()
	w.claim()
	for id, host := range w.column(`SELECT host FROM muster.lease ORDER BY host`) {
		r := w.online(host)
		if r.Labels = []string{"self-hosted", "x64"}; id == 0 {
			r.Labels = []string{"gpu"} // as of another pool
		}
		w.tx(func(tx *db.Tx) error { return tx.AddRunners(w.ctx, "acme", []db.RunnerRow{r}) })
	}
	w.sync(nobody)
	for range 3 {
		w.scale()
		w.pass(time.Minute)
	}
	w.want("online 1 4", leases)
	w.wantPool(4, 4, 0, 9, 0)
	w.want("mislabelled_host linux 4 linux,self-hosted", `SELECT string_agg(concat_ws(' ', kind, subject, detail->>'hosts', detail->>'they_lack'), ', ') FROM api.findings`)
	_, err := w.scaler.Handle(w.ctx, trigger("gpu"))
	w.ok(err)
	w.want("0", `SELECT online FROM api.pools WHERE pool = 'gpu'`)
	w.exec(`UPDATE muster.runner SET labels = '{linux,self-hosted}'`)
	w.scale()
	w.want("0", `SELECT count(*) FROM api.findings`)
}

// A pool asks for no host that could not take the workflow job: not with hosts
// there, and not when they have left.
func TestAPoolDoesNotGrowForRepositoriesThatItsRunnersDoNotServe(t *testing.T) {
	t.Parallel()
	w := newWorld(t, linux(nil))
	w.sync(everybody)
	w.queue(2, "linux")
	w.scale() // nothing is known of groups
	w.want("requested 1 2", leases)
	w.claim()
	w.sync(everybody)
	w.exec(`UPDATE muster.runner SET runner_group = '2', ephemeral = true`)
	group := fleet.RunnerGroup{ID: "2", Name: "release", Visibility: fleet.GroupSelected, Selected: []string{"acme/release"}}
	save := func() {
		w.tx(func(tx *db.Tx) error { return tx.SaveGroups(w.ctx, "acme", []fleet.RunnerGroup{group}) })
	}
	save()
	const counted = `SELECT concat_ws(' ', queued, desired) FROM api.pools`
	const findings = `SELECT coalesce(string_agg(concat_ws(' ', kind, subject, detail->>'jobs', detail->>'repository', detail->>'closed_pool'), ', '), 'none') FROM api.findings`
	w.scale()
	w.want("0 0", counted)
	w.want("unserved_job linux 2 acme/widgets linux", findings)

	w.exec(`UPDATE muster.runner SET removed_at = $1, removal_cause = 'ephemeral'`, w.clock())
	w.pass(time.Hour)
	w.scale()
	w.want("0 0", counted)
	w.want("online 1 2", leases)
	preview, err := scale.Plan(w.ctx, w.db, w.pools[0], w.pools, fleet.HostNames{}, w.clock())
	w.ok(err)
	if got := preview.State.Demand.Queued; got != 0 {
		t.Errorf("Plan counts %d workflow jobs, want none", got)
	}

	// Somebody opens the group.
	group.Selected = append(group.Selected, "acme/widgets")
	save()
	w.scale()
	w.want("2 2", counted)
	w.want("none", findings)
	w.want("online 1 2, requested 1 2", leases)
}
