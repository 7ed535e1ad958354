package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/muster-fleet/muster/db/dbtest"
	"github.com/muster-fleet/muster/github/githubsim"
)

// One muster serve sees Postgres, NATS and GitHub go and come back, one after
// the other, and is never started again.
func TestOutagesLoseNothing(t *testing.T) {
	t.Parallel()
	postgres := dbtest.Server(t)
	w := newWorldOn(t, postgres.URL())
	w.configure(head+often, reaper())
	ids := w.runners("alive-", 30, githubsim.RunnerSpec{Online: true})
	h := w.host("build-01")

	// Not there yet: it waits, and says for what.
	postgres.Stop()
	p := w.serve()
	if code, body := p.get("/healthz"); code != http.StatusOK {
		t.Errorf("/healthz before Postgres = %d %s, want 200", code, body)
	}
	notReady(t, p, "postgres: ")
	postgres.Start()
	p.up()
	ready(t, p)
	w.syncs(1)

	t.Log("Postgres goes")
	before := publishTrigger(t, w, "before Postgres went")
	minted := len(mints(w.sim))
	postgres.Stop()
	notReady(t, p, "postgres: ")
	r, err := h.ask(t.Context(), `{"target":"acme","kind":"registration"}`)
	if err != nil || r.Code != http.StatusServiceUnavailable || r.Error != "audit_unavailable" || r.Token != "" {
		t.Errorf("a request for a token without Postgres = %+v, %v, want 503 audit_unavailable", r, err)
	}
	meanwhile := publishTrigger(t, w, "while Postgres was away")
	if n := len(mints(w.sim)); n != minted {
		t.Errorf("GitHub minted %d tokens while Postgres was away", n-minted)
	}
	postgres.Start()
	ready(t, p)
	w.ran(before, meanwhile)
	h.gets(t, "registration")
	w.syncs(2)

	t.Log("NATS goes")
	before = publishTrigger(t, w, "before NATS went")
	w.nats.stop()
	notReady(t, p, "nats ")
	now := w.value(`SELECT clock_timestamp()`)
	w.becomes("true", `(SELECT count(*) FROM api.ticks WHERE tick_at > $1::timestamptz) >= 4`, now)
	w.nats.start()
	ready(t, p)
	w.ran(before)
	h.gets(t, "removal")
	w.syncs(2)

	t.Log("GitHub goes")
	w.sim.Down(true)
	failed := w.value(`SELECT count(*) FROM api.syncs WHERE outcome = 'failed'`)
	w.becomes("true", `(SELECT count(*) FROM api.syncs WHERE outcome = 'failed') > $1::bigint`, failed)
	if r, err := h.ask(t.Context(), `{"target":"acme","kind":"removal"}`); err != nil || r.Code != http.StatusBadGateway || r.Token != "" {
		t.Errorf("a request for a token without GitHub = %+v, %v, want 502", r, err)
	}
	ready(t, p)
	w.sim.Down(false)
	w.syncs(2)
	if n := w.value(`SELECT count(*) FROM api.runners WHERE status = 'online' AND removed_at IS NULL`); n != fmt.Sprint(len(ids)) {
		t.Errorf("%s runners are online after all that, want %d", n, len(ids))
	}

	// It still does its work, and each moment of each schedule is accounted
	// for.
	w.kill(ids[0])
	w.becomes("1", `SELECT count(*) FROM api.runners WHERE removal_cause = 'policy'`)
	// A run that an outage broke off comes back when its lease has ended.
	last := w.value(`SELECT max(tick_at) FROM api.ticks`)
	w.becomes("0", `SELECT count(*) FROM api.ticks k LEFT JOIN api.runs r USING (trigger_id)
		WHERE k.state = 'fired' AND k.tick_at <= $1::timestamptz AND (r.state IN ('done', 'joined')) IS NOT TRUE`, last)
	w.becomes("0", `SELECT count(*) FROM api.actions WHERE state = 'intended'`)
	p.stop()
	for _, row := range w.rows(`
		SELECT schedule, count(*)::text, (extract(epoch FROM max(tick_at) - min(tick_at)) + 1)::bigint::text
		FROM api.ticks WHERE schedule LIKE '%/acme' GROUP BY schedule`) {
		if row[1] != row[2] {
			t.Errorf("%s has %s ticks in %s seconds", row[0], row[1], row[2])
		}
	}
	if n := w.value(`SELECT count(*) FROM api.dead_letters`); n != "0" {
		t.Errorf("%s triggers died: %v", n, w.rows(`SELECT subject, error FROM api.dead_letters`))
	}
	if got, want := reconcile(t, w), (reconciled{deleted: 1, minted: 2}); got != want {
		t.Errorf("reconcile = %+v, want %+v", got, want)
	}
}

func ready(t testing.TB, p *process) {
	t.Helper()
	eventually(t, "/readyz is 200", func() (string, bool) {
		code, body := p.get("/readyz")
		return fmt.Sprint(code, " ", body), code == http.StatusOK && strings.HasPrefix(body, "ready\n")
	})
}

// notReady waits for a 503 in which each fault is a line, this one among them.
func notReady(t testing.TB, p *process, fault string) {
	t.Helper()
	eventually(t, "/readyz is 503 for "+fault, func() (string, bool) {
		code, body := p.get("/readyz")
		if code != http.StatusServiceUnavailable {
			return fmt.Sprint(code, " ", body), false
		}
		told := false
		for line := range strings.Lines(body) {
			if !strings.HasPrefix(line, "fault: ") && !strings.HasPrefix(line, "detail: ") {
				t.Errorf("/readyz has the line %q, want fault: or detail:", line)
			}
			told = told || strings.HasPrefix(line, "fault: "+fault)
		}
		return body, told
	})
}

// publishTrigger asks for a sync of acme and returns once the stream has it.
// The reason, which nothing else has, is what its run is found by.
func publishTrigger(t testing.TB, w *world, reason string) string {
	t.Helper()
	stream, err := w.nats.connect().JetStream(nats.MaxWait(patience))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Publish("muster.v1.trigger.sync.acme", fmt.Appendf(nil, `{"reason":%q}`, reason)); err != nil {
		t.Fatalf("publish a trigger: %v", err)
	}
	return reason
}

// ran waits until the triggers published for these reasons are done, or the runs
// that they were joined to.
func (w *world) ran(reasons ...string) {
	w.t.Helper()
	for _, reason := range reasons {
		w.becomes("done", `
			WITH RECURSIVE way AS (
				SELECT state, joined_to FROM muster.run WHERE reason = $1
				UNION ALL
				SELECT r.state, r.joined_to FROM way JOIN muster.run r ON r.trigger_id = way.joined_to
			)
			SELECT state FROM way WHERE joined_to IS NULL`, reason)
	}
}
