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
		name    string
		tell    func(listings int) error
		suspect bool // looks like a fault rather than a fleet
	}{
		{"all offline", func(n int) error { return w.sim.ShowOffline(acme, n) }, true},
		{"three offline", func(n int) error { return w.sim.ShowOffline(acme, n, ids[:3]...) }, false},
		{"three missing", func(n int) error { return w.sim.Hide(acme, n, ids[5:8]...) }, false},
		{"none at all", func(n int) error { return w.sim.EmptyListing(acme, n) }, true},
		{"half of them gone", func(n int) error { return w.sim.Hide(acme, n, ids[20:]...) }, true},
	}
	for _, lie := range lies {
		for _, listings := range []int{1, 2} {
			name := fmt.Sprintf("%s in %d listings", lie.name, listings)
			const suspects, intents = `SELECT count(*) FROM api.syncs WHERE suspect IS NOT NULL`, `SELECT count(*) FROM api.actions`
			suspectsBefore, intentsBefore := w.value(suspects), w.value(intents)
			if err := lie.tell(listings); err != nil {
				t.Fatal(err)
			}
			for range listings {
				look()
			}
			if lie.suspect && w.value(suspects) == suspectsBefore {
				t.Errorf("%s: no sync is marked as suspect", name)
			}
			if listings == 1 && w.value(intents) != intentsBefore {
				t.Errorf("%s: a deletion was intended on one listing", name)
			}
			nobodyRemoved(t, w, name)
			look() // the truth again
			nobodyRemoved(t, w, name+", and the truth")
			if online := w.value(`SELECT count(*) FROM api.runners WHERE status = 'online'`); online != fmt.Sprint(len(ids)) {
				t.Errorf("%s: %s runners are online after the truth, want %d", name, online, len(ids))
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

// nobodyRemoved looks at GitHub's log, and at every trace that a removal
// leaves: a listing that shows the runner again takes some of them away.
func nobodyRemoved(t *testing.T, w *world, when string) {
	t.Helper()
	for _, e := range w.sim.Log() {
		if e.Method == "DELETE" {
			t.Fatalf("%s: GitHub was asked to delete %s", when, e.RunnerName)
		}
	}
	for _, trace := range []string{
		`SELECT count(*) FROM api.runners WHERE removed_at IS NOT NULL`,
		`SELECT count(*) FROM api.runner_history WHERE change = 'removed'`,
		`SELECT count(*) FROM api.audit WHERE code = 'RN110I'`,
	} {
		if n := w.value(trace); n != "0" {
			t.Fatalf("%s: %s = %s, want 0", when, trace, n)
		}
	}
}
