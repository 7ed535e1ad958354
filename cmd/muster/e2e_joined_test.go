package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

// A flood of triggers for one target costs a handful of listings, since those that
// come while one waits are done with it. The trigger of another target, which
// comes last, does not wait behind them.
func TestAFloodOfTriggersCostsAHandfulOfListings(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	widgets := fleet.Scope{Kind: fleet.ScopeOrg, Owner: "widgets"}
	if err := w.sim.AddScope(widgets); err != nil {
		t.Fatal(err)
	}
	w.configure(strings.Replace(head, "grants:",
		`  - {name: widgets, scope: org/widgets, api_url: "API", auth: {token_file: github.token}}
grants:`, 1), "")
	w.runners("r-", 3, githubsim.RunnerSpec{Online: true})
	// Each of acme's listings takes longer than the flood needs to come in.
	slow := githubsim.Fault{Kind: githubsim.FaultLatency, Method: "GET", Path: "/actions/runners", Scope: acme, Delay: 5 * time.Second}
	if _, err := w.sim.Inject(slow); err != nil {
		t.Fatal(err)
	}
	w.serve().up()

	const flood = 2000
	nc := w.nats.connect()
	began := time.Now()
	for i := range flood {
		body, err := json.Marshal(map[string]string{"reason": fmt.Sprint("flood ", i)})
		if err != nil {
			t.Fatal(err)
		}
		if err := nc.PublishMsg(&nats.Msg{Subject: "muster.v1.trigger.sync.acme", Data: body}); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	w.nats.publish("muster.v1.trigger.sync.widgets", "")
	w.becomes("1", `SELECT count(*) FROM api.runs WHERE job = 'sync' AND name = 'widgets' AND state = 'done'`)
	other := time.Since(began)
	settled := w.value(`SELECT count(*) FROM api.runs WHERE job = 'sync' AND name = 'acme' AND state = 'done'`)

	w.becomes(fmt.Sprint(flood), `SELECT count(*) FROM api.runs WHERE job = 'sync' AND name = 'acme' AND state IN ('done', 'joined')`)
	all := time.Since(began)
	ran := w.value(`SELECT count(*) FROM api.runs WHERE job = 'sync' AND name = 'acme' AND state = 'done'`)
	listings := 0
	for _, e := range w.sim.Log() {
		if e.Method == "GET" && e.Scope == acme.String() && strings.HasSuffix(e.Path, "/actions/runners") {
			listings++
		}
	}
	t.Logf("%d triggers: %s runs, %d listings, all done after %s; another target's trigger after %s, when %s of acme's runs were done",
		flood, ran, listings, all.Round(time.Millisecond), other.Round(time.Millisecond), settled)
	// The slower the machine takes the flood in, the more runs begin meanwhile:
	// one for each 5 s. Unjoined, there would be one for each trigger.
	if handful := 5 + int(all/slow.Delay); listings == 0 || listings > 2*handful {
		t.Errorf("%d triggers made %d listings in %s, want about %d", flood, listings, all, handful)
	}
	if settled == ran {
		t.Error("the other target's trigger was done after all of acme's")
	}
}
