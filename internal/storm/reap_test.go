package storm_test

import (
	"fmt"
	"strings"
	"time"

	"github.com/muster-fleet/muster/policies"
)

// reap is the policy of a life.
type reap struct {
	offlineFor, grace, apart time.Duration
	listings, count, rate    int
	policy                   *policies.Policy
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
	var names []string
	for _, t := range w.targets {
		if t.covered {
			names = append(names, t.Name)
		}
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
`, strings.Join(names, ", "), p.offlineFor/time.Minute, keepLabel, minutes(p.grace), p.count, p.rate, p.listings, minutes(p.apart)))
	w.ok(err)
	p.policy = all[0]
	return p
}

func minutes(d time.Duration) string { return fmt.Sprintf("%dm", d/time.Minute) }
