package demand_test

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/muster-fleet/muster/fleet"
)

// hand publishes an event as a webhook receiver of somebody else's does.
func (b bus) hand(t *testing.T, subject, body string, headers ...string) {
	t.Helper()
	m := nats.NewMsg(subject)
	m.Data = []byte(body)
	for i := 0; i < len(headers); i += 2 {
		m.Header.Set(headers[i], headers[i+1])
	}
	js, err := b.other.JetStream()
	if err == nil {
		_, err = js.PublishMsg(m)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestEventsOverNATS(t *testing.T) {
	t.Parallel()
	w, bus := newWorld(t), newBus(t)
	w.intake.Conn = bus.muster
	background(t, w.intake.Consume)
	const subject = "muster.v1.github.workflow_job"
	running := body(41, fleet.WorkflowJobInProgress)
	// A target without a secret too: whoever publishes has checked signatures.
	// Go's HTTP writes the names of headers its own way.
	bus.hand(t, subject, running, "X-Github-Event", "workflow_job", "X-Github-Delivery", "d1", "Muster-Target", "widgets")
	bus.hand(t, subject, running, "X-GitHub-Event", "workflow_job", "X-GitHub-Delivery", "d1", "Muster-Target", "widgets")
	bus.hand(t, subject, strings.ReplaceAll(running, "acme", "dark"), "X-GitHub-Event", "workflow_job", "X-GitHub-Delivery", "d1", "Muster-Target", "dark")
	bus.hand(t, "muster.v1.github.push", "{", "X-GitHub-Event", "push", "X-GitHub-Delivery", "d2", "Muster-Target", "acme")
	w.becomes(jobs, "dark 41 in_progress build-03", "widgets 41 in_progress build-03")
	w.hears("nats folded dark", "nats folded widgets", "nats ignored", "nats repeated widgets")
	if dead := w.rows(`SELECT subject FROM api.dead_letters`); len(dead) != 0 {
		t.Errorf("dead letters %q, want none", dead)
	}
}

func TestPoisonOverNATSBecomesADeadLetter(t *testing.T) {
	t.Parallel()
	w, bus := newWorld(t), newBus(t)
	w.intake.Conn = bus.muster
	background(t, w.intake.Consume)
	const subject = "muster.v1.github.workflow_job"
	queued := body(41, fleet.WorkflowJobQueued)
	bus.hand(t, subject, queued)
	bus.hand(t, subject, "{", "X-GitHub-Event", "workflow_job", "X-GitHub-Delivery", "d1", "Muster-Target", "acme")
	bus.hand(t, subject, queued, "X-GitHub-Event", "workflow_job", "X-GitHub-Delivery", "d1", "Muster-Target", "nobody")
	bus.hand(t, subject, queued, "X-GitHub-Event", "workflow_job", "X-GitHub-Delivery", "d1", "Muster-Target", "dark")
	bus.hand(t, subject, queued, "X-GitHub-Event", "workflow_job", "X-GitHub-Delivery", "ä", "Muster-Target", "acme")
	bus.hand(t, subject+".x", queued, "X-GitHub-Event", "workflow_job", "X-GitHub-Delivery", "d1", "Muster-Target", "acme")
	w.becomes(`SELECT error FROM api.dead_letters ORDER BY error`,
		`header Muster-Target is dark, which is org/dark: the event is of "acme/widgets"`,
		`header Muster-Target: there is no target "nobody" in the configuration`,
		`header X-GitHub-Delivery is not 1 to 128 printable characters`,
		`header X-GitHub-Event is "workflow_job", and the subject says "workflow_job.x"`,
		`read a workflow_job event: not JSON, or a field of another type: malformed answer`,
		`want the headers X-GitHub-Event, X-GitHub-Delivery and Muster-Target`)
	w.becomes(`SELECT count(*)::text, min(actor), min(action) FROM api.audit WHERE code = 'TR500E'`, "6 "+subject+" trigger.die")
	if got := w.rows(jobs); len(got) != 0 {
		t.Errorf("jobs %q, want none", got)
	}
	// What comes behind them is taken in.
	bus.hand(t, subject, queued, "X-GitHub-Event", "workflow_job", "X-GitHub-Delivery", "d9", "Muster-Target", "acme")
	w.becomes(jobs, "acme 41 queued ")
}
