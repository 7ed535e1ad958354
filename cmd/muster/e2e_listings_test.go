package main

import (
	"fmt"
	"testing"

	"github.com/muster-fleet/muster/github/githubsim"
)

// Listings lie. The policy here deletes as early as any may, without grace or
// witnesses, so that little but the doubt of muster itself is in its way.
func TestLyingListingsRemoveNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configure(head, reaper(`duration("2s")`, `duration("1ms")`,
		"grace: 1s", "grace: 0s", "{listings: 2, apart: 1s}", "{listings: 1, apart: 0s}"))
	ids := w.runners("alive-", 40, githubsim.RunnerSpec{Online: true})
	p := w.serve().up()
	// look syncs once, and waits for the enforcement that follows.
	looks := 0
	look := func() {
		t.Helper()
		looks++
		w.nats.publish("muster.v1.trigger.sync.acme", "")
		w.becomes(fmt.Sprint(looks), `SELECT count(*) FROM api.runs WHERE job = 'sync' AND state = 'done'`)
		w.becomes(fmt.Sprint(looks), `SELECT count(*) FROM api.runs WHERE job = 'enforce' AND state = 'done'`)
	}
	look()

	lies := []struct {
		name     string
		tell     func(listings int) error
		suspects int // of the listings of one telling
	}{
		{"all offline", func(n int) error { return w.sim.ShowOffline(acme, n) }, 1},
		{"three offline", func(n int) error { return w.sim.ShowOffline(acme, n, ids[:3]...) }, 0},
		{"three missing", func(n int) error { return w.sim.Hide(acme, n, ids[5:8]...) }, 0},
		{"none at all", func(n int) error { return w.sim.EmptyListing(acme, n) }, 1},
		{"half of them gone", func(n int) error { return w.sim.Hide(acme, n, ids[20:]...) }, 1},
	}
	for _, lie := range lies {
		for _, listings := range []int{1, 2} {
			suspects := w.value(`SELECT count(*) FROM api.syncs WHERE suspect IS NOT NULL`)
			if err := lie.tell(listings); err != nil {
				t.Fatal(err)
			}
			for range listings {
				look()
			}
			if got := w.value(`(SELECT count(*) FROM api.syncs WHERE suspect IS NOT NULL) - $1::bigint`, suspects); lie.suspects > 0 && got == "0" {
				t.Errorf("%s in %d listings: no sync is marked as suspect", lie.name, listings)
			}
			look() // the truth again
			for _, e := range w.sim.Log() {
				if e.Method == "DELETE" {
					t.Fatalf("%s in %d listings: GitHub was asked to delete %s", lie.name, listings, e.RunnerName)
				}
			}
			if gone := w.value(`SELECT count(*) FROM api.runners WHERE removed_at IS NOT NULL`); gone != "0" {
				t.Fatalf("%s in %d listings: %s runners count as removed", lie.name, listings, gone)
			}
			if online := w.value(`SELECT count(*) FROM api.runners WHERE status = 'online'`); online != fmt.Sprint(len(ids)) {
				t.Errorf("%s in %d listings: %s runners are online after the truth, want %d", lie.name, listings, online, len(ids))
			}
		}
	}

	// What is true is acted on.
	w.kill(ids[:3]...)
	for range 3 {
		look()
	}
	w.becomes("3", `SELECT count(*) FROM api.runners WHERE removal_cause = 'policy'`)
	p.stop()
	if got, want := reconcile(t, w), (reconciled{deleted: 3}); got != want {
		t.Errorf("reconcile = %+v, want %+v", got, want)
	}
}
