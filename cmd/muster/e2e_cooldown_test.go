package main

import (
	"testing"

	"github.com/muster-fleet/muster/github/githubsim"
)

// heldBack has a pool that asks for three hosts at a time, and no schedule that
// would look at it again within a year.
const heldBack = `
schedules:
  - {job: sync, targets: [acme], cron: "0 0 1 1 *"}
pools:
  - {name: linux, target: acme, labels: [self-hosted, linux], max: 4, boot_deadline: 10m, cooldown: {up: 1s}, step: {up: 3}}
`

// Eight jobs wait, four hosts are allowed and three are asked for at once: the
// fourth is asked for when the cool-down ends, without another sync.
func TestAPoolLooksAgainWhenItsCoolDownEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configure(head+heldBack, "")
	for range 8 {
		if _, err := w.sim.QueueJob(acme, githubsim.JobSpec{}); err != nil {
			t.Fatal(err)
		}
	}
	p := w.serve().up()
	// The triggers that the jobs themselves leave come too early: there is no
	// inventory yet.
	w.becomes("8 t 0", `SELECT concat_ws(' ', (SELECT count(*) FROM api.workflow_jobs), (SELECT as_of IS NOT NULL FROM api.comparisons),
		(SELECT count(*) FROM api.runs WHERE state IN ('queued', 'running')))`)
	w.nats.publish("muster.v1.trigger.sync.acme", "")
	w.becomes("4", `SELECT count(*) FROM api.leases`)
	w.becomes("3 1", `SELECT string_agg(counts->>'up', ' ' ORDER BY counts->>'up' DESC) FROM api.runs WHERE job = 'scale' AND counts ? 'up'`)
	if got := w.value(`SELECT count(*) FROM api.syncs`); got != "1" {
		t.Errorf("%s syncs, want the one that began it", got)
	}
	p.stop()
}
