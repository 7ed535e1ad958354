package storm_test

import (
	"fmt"
	"strings"
	"time"

	"github.com/muster-fleet/muster/policies"
)

// reap is the policy of a life that is about runners which are offline.
type reap struct {
	offlineFor, grace, apart time.Duration
	listings, count, rate    int
	policy                   *policies.Policy
	all                      []*policies.Policy // and the one that drains, where there is one
}

const keepLabel = "keep"

func drawReap(w *world) *reap {
	p := &reap{offlineFor: 6 * time.Minute, apart: 2 * time.Minute, listings: 2}
	if w.reaping {
		p.count, p.rate = anyOf(w, "count", 1000, 1000, 60, 12), anyOf(w, "rate", 3, 2, 6)
		if w.about == aboutWork {
			p.grace = time.Duration(anyOf(w, "grace", 0, 4)) * time.Minute
		}
	} else {
		p.offlineFor = time.Duration(anyOf(w, "offline for", 6, 10, 20)) * time.Minute
		p.grace = time.Duration(anyOf(w, "grace", 0, 0, 5, 12)) * time.Minute
		p.apart = time.Duration(anyOf(w, "apart", 2, 6)) * time.Minute
		p.listings = anyOf(w, "listings", 2, 3)
		p.count, p.rate = anyOf(w, "count", 1000, 1000, 20, 3), anyOf(w, "rate", 1000, 1000, 10)
	}
	all, err := policies.Load("reap.yaml", fmt.Appendf(nil, `
apiVersion: muster/v1
kind: RunnerPolicy
metadata: {name: reap}
spec:
  enforcement: enforce
  scope: {targets: [%s]}
  match: runner.status == "offline" && runner.offline_for > duration("%dm")
  exempt: {keep-label: '"%s" in runner.labels'}
  guards:
    grace: %v
    max: {count: %d, percent: 100}
    rate: %d/m
    witnesses: {listings: %d, apart: %v}
  actions: [{delete_runner: {}}]
`, w.covered(), p.offlineFor/time.Minute, keepLabel, minutes(p.grace), p.count, p.rate, p.listings, minutes(p.apart)))
	w.ok(err)
	p.policy, p.all = all[0], all
	return p
}

// covered are the targets that policies are for, as a document has them.
func (w *world) covered() string {
	var names []string
	for _, t := range w.targets {
		if t.covered {
			names = append(names, t.born, otherName(t.born))
		}
	}
	return strings.Join(names, ", ")
}

// drawDrain adds the policy that drains.
func (p *reap) drawDrain(w *world) {
	all, err := policies.Load("drain.yaml", drainPolicy(w, w.covered()))
	w.ok(err)
	p.all = append(p.all, all...)
}

func minutes(d time.Duration) string { return fmt.Sprintf("%dm", d/time.Minute) }
