package demand_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

// sweep passes an hour and has the logs of webhooks read.
func (o *oracle) sweep() int {
	o.Helper()
	o.pass(time.Hour)
	n, err := o.reconciler.Sweep(o.Context(), "acme")
	o.ok(err)
	return n
}

// hands has the intake answer GitHub as it does in life, or be away.
func (o *oracle) hands(away bool) {
	o.answer.Store(func(d fleet.Delivery) int {
		if away {
			return http.StatusServiceUnavailable
		}
		if err := o.intake.Receive(o.Context(), d); err != nil {
			return http.StatusBadRequest
		}
		return http.StatusAccepted
	})
}

// wantHook compares the webhooks that are known.
func (o *oracle) wantHook(want string) {
	o.Helper()
	var got string
	conn, err := pgx.Connect(o.Context(), o.url)
	if err == nil {
		err = conn.QueryRow(o.Context(), `SELECT string_agg(concat_ws(' ', target, hook_id, scope, fault), ', ') FROM muster.hook`).Scan(&got)
		err = errors.Join(err, conn.Close(o.Context()))
	}
	o.ok(err)
	if got != want {
		o.Errorf("webhooks %q, want %q", got, want)
	}
}

func TestDeliveriesThatNobodyTookAreAskedForAgain(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	o.hands(false)
	o.queue(githubsim.JobSpec{Labels: []string{"linux"}})
	o.events() // one is taken: from now on the webhook is known
	o.wantHook("acme 1 org/acme ")

	o.hands(true) // nobody is there for a while
	o.pass(time.Minute)
	for range 40 {
		o.queue(githubsim.JobSpec{Labels: []string{"linux"}})
	}
	o.events()
	o.hands(false)
	if n := o.sweep(); n != 30 {
		t.Errorf("%d deliveries asked for, want the most at a time", n)
	}
	if n, err := o.reconciler.Sweep(t.Context(), "acme"); n != 0 || err != nil {
		t.Errorf("%d deliveries asked for at once again, %v", n, err)
	}
	o.events()
	if got := len(o.rows(openJobs)); got != 31 {
		t.Errorf("%d workflow jobs, want those of the deliveries that were asked for", got)
	}
	if n := o.sweep(); n != 10 {
		t.Errorf("%d deliveries asked for, want the rest", n)
	}
	o.events()
	o.wantTruth()
	if n := o.sweep(); n != 0 {
		t.Errorf("%d deliveries asked for, and all are taken", n)
	}

	// One that fails again is left to the comparison.
	o.hands(true)
	o.queue(githubsim.JobSpec{Labels: []string{"linux"}})
	o.events()
	for _, want := range []int{1, 0, 0} {
		if n := o.sweep(); n != want {
			t.Errorf("%d deliveries asked for, want %d", n, want)
		}
		o.events()
	}
}

func TestALogThatGitHubDoesNotShow(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	o.hands(false)
	o.exec(`INSERT INTO muster.target (name, scope, api_url, first_used_at, max_observation_gap) VALUES ('acme', 'org/acme', '', $1, '1 h')`, t0)
	o.queue(githubsim.JobSpec{Labels: []string{"linux"}})
	o.events()
	mend, err := o.sim.Inject(githubsim.Fault{Kind: githubsim.FaultStatus, Status: 403, Path: "/deliveries"})
	o.ok(err)
	o.sweep()
	o.wantHook("acme 1 org/acme list hook deliveries of org/acme: forbidden (HTTP 403): Resource not accessible by integration; a classic token needs admin:org_hook or admin:repo_hook; an App needs write access to the webhooks of the organisation or repository")
	mend()
	o.pass(59 * time.Minute)
	if _, err := o.reconciler.Sweep(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	if h, err := o.db.Hearings(t.Context()); err != nil || !strings.Contains(h["acme"].HookFault, "HTTP 403") {
		t.Errorf("Hearings = %+v, %v: read before an hour was over", h, err)
	}
	o.sweep()
	o.wantHook("acme 1 org/acme ")
}

// A delivery that GitHub will not send again, whatever it has against it, keeps
// none of the later ones.
func TestADeliveryThatIsRefusedKeepsNoOther(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	o.hands(false)
	o.queue(githubsim.JobSpec{Labels: []string{"linux"}})
	o.events()
	o.hands(true)
	o.pass(time.Minute)
	for range 3 {
		o.queue(githubsim.JobSpec{Labels: []string{"linux"}})
		o.pass(time.Second)
	}
	o.events()
	o.hands(false)
	var refused atomic.Value // the first that is asked for
	o.sim.Intercept(func(r *http.Request) http.Handler {
		if r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/attempts") {
			return nil
		}
		refused.CompareAndSwap(nil, r.URL.Path)
		if refused.Load() != r.URL.Path {
			return nil
		}
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnprocessableEntity)
			_, _ = io.WriteString(w, `{"message":"Validation Failed"}`)
		})
	})
	for _, want := range []int{2, 0, 0} {
		if n := o.sweep(); n != want {
			t.Errorf("%d deliveries asked for, want %d", n, want)
		}
		o.events()
		if want == 2 {
			o.wantHook("acme 1 org/acme redeliver hook of org/acme: malformed answer (HTTP 422): status is not 202: Validation Failed")
		}
	}
	o.wantHook("acme 1 org/acme ")
}

// A webhook that was replaced by another is nobody's trouble any more.
func TestAWebhookThatWasReplacedIsNotComplainedOf(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.exec(`INSERT INTO muster.target (name, scope, api_url, first_used_at, max_observation_gap) VALUES ('acme', 'org/acme', '', $1, '1 h')`, t0)
	w.exec(`INSERT INTO muster.hook (target, hook_id, scope, heard_at, due_at, swept_to, fault) VALUES
		('acme', 1, 'org/acme', $1::timestamptz - interval '25 h', $1, $1, 'HTTP 404'), ('acme', 2, 'org/acme', $1, $1, $1, '')`, t0)
	for _, want := range []string{"", "HTTP 403"} {
		all, err := w.db.Hearings(t.Context())
		if err != nil || all["acme"].HookFault != want {
			t.Errorf("Hearings = %+v, %v, want the fault %q", all, err, want)
		}
		w.exec(`UPDATE muster.hook SET fault = 'HTTP 403' WHERE hook_id = 2`)
	}
}
