package main

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-fleet/muster/github/githubsim"
)

// death is a request to GitHub at which muster is killed: before GitHub has
// done what it asks, so that the answer finds nobody.
type death struct {
	method, path string // the path's end
	nth          int    // of this life; 0: as soon as muster is up
}

// deaths are those of twenty lives in four worlds, one after the other in each.
// Most lie between an intent and its outcome: the last look, the DELETE, the
// minting.
var deaths = map[string][]death{
	"tokens": {
		{"POST", "/registration-token", 1},
		{"POST", "/remove-token", 1},
		{"POST", "/registration-token", 2},
		{"POST", "/remove-token", 2},
		{"POST", "/registration-token", 3},
		{},
	},
	"first deletions": {
		{"DELETE", "/{runner_id}", 1},
		{"GET", "/{runner_id}", 1},
		{"DELETE", "/{runner_id}", 2},
		{"GET", "/actions/runners", 1},
		{"DELETE", "/{runner_id}", 3},
	},
	"listings between": {
		{"GET", "/{runner_id}", 2},
		{"DELETE", "/{runner_id}", 1},
		{"GET", "/actions/runners", 3},
		{"DELETE", "/{runner_id}", 4},
	},
	"as soon as it is up": {
		{"GET", "/{runner_id}", 3},
		{},
		{"DELETE", "/{runner_id}", 2},
		{"GET", "/{runner_id}", 1},
		{"DELETE", "/{runner_id}", 1},
	},
}

func (m death) String() string { return fmt.Sprintf("%s …%s, number %d", m.method, m.path, m.nth) }

// killAt arranges the death of a process that is still to come: the one sent
// on the channel returned first. The second is closed when it is dead.
func killAt(w *world, m death) (chan<- *process, <-chan struct{}) {
	victim, dead := make(chan *process, 1), make(chan struct{})
	var seen atomic.Int64
	w.sim.Before(func(r githubsim.Request) {
		if r.Method == m.method && strings.HasSuffix(r.Path, m.path) && seen.Add(1) == int64(m.nth) {
			(<-victim).kill()
			close(dead)
		}
	})
	return victim, dead
}

// openIntents are those without an outcome, by what they are about.
func openIntents(w *world) map[string]bool {
	open := map[string]bool{}
	for _, row := range w.rows(`
		SELECT action_id::text FROM api.actions WHERE state = 'intended'
		UNION ALL
		SELECT host || ' ' || request_id || ' ' || attempt FROM api.tokens WHERE outcome = 'requested'`) {
		open[row[0]] = true
	}
	return open
}

// hostsAsk has each host ask for its kind of token again and again, and take
// what it gets, until the function returned is called.
func hostsAsk(t testing.TB, hosts map[string]*host) func() {
	ctx, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	for kind, h := range hosts {
		asking.Go(func() {
			again := time.NewTicker(pollEvery)
			defer again.Stop()
			for ctx.Err() == nil {
				_, _ = h.ask(ctx, fmt.Sprintf(`{"target":"acme","kind":%q}`, kind)) // nobody there: ask again
				select {
				case <-ctx.Done():
				case <-again.C:
				}
			}
		})
	}
	return func() {
		cancel()
		asking.Wait()
	}
}

func TestKilledAtTwentyMomentsItLosesNoRecord(t *testing.T) {
	t.Parallel()
	var between atomic.Int64
	t.Run("worlds", func(t *testing.T) {
		for name, lives := range deaths {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				between.Add(diesAndRecovers(t, lives))
			})
		}
	})
	if n := between.Load(); n < 5 {
		t.Errorf("%d of 20 kills came between an intent and its outcome, want at least 5", n)
	}
}

// diesAndRecovers kills muster once for each death, lets one more life finish
// the work, and compares the record with what GitHub did. It returns how many
// kills left a fresh intent without an outcome.
func diesAndRecovers(t *testing.T, lives []death) int64 {
	w := newWorld(t)
	w.configure(head+often, reaper())
	const doomed = 20
	w.runners("alive-", 50, githubsim.RunnerSpec{Online: true})
	w.runners("doomed-", doomed, githubsim.RunnerSpec{})

	hosts := map[string]*host{"registration": w.host("build-01"), "removal": w.host("build-02")}
	var between int64
	minted := false
	before := map[string]bool{}
	for i, m := range lives {
		if m.nth == 0 {
			w.serve().up().kill()
			before = openIntents(w)
			continue
		}
		victim, dead := killAt(w, m)
		p := w.serve()
		// A kill may leave requests for tokens open, which takes long to
		// settle: hosts ask only where a minting is the moment.
		asking := func() {}
		if m.method == "POST" {
			asking = hostsAsk(t, hosts)
			minted = true
		}
		victim <- p
		eventually(t, fmt.Sprintf("life %d meets its end at %s", i+1, m), func() (string, bool) {
			select {
			case <-dead:
				return "", true
			default:
				return tail(p.log.String(), 3), false
			}
		})
		asking()
		after := openIntents(w)
		fresh := maps.Clone(after)
		maps.DeleteFunc(fresh, func(id string, _ bool) bool { return before[id] })
		if len(fresh) > 0 {
			between++
		}
		before = after
	}

	last := w.serve().up()
	w.becomes(fmt.Sprint(doomed), `SELECT count(*) FROM api.runners WHERE removed_at IS NOT NULL`)
	w.becomes("0", `SELECT count(*) FROM api.tokens WHERE outcome = 'requested'`)
	w.becomes("0", `SELECT count(*) FROM api.actions WHERE state = 'intended'`)
	last.stop()

	got := reconcile(t, w)
	if got.deleted != doomed || got.unknown == 0 && minted {
		t.Errorf("reconcile = %+v, want %d deletions, and tokens of which nobody lived to tell", got, doomed)
	}
	return between
}
