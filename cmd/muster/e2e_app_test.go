package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

// installation issues tokens that the simulator takes, in its place.
type installation struct {
	sim *githubsim.Sim

	mu         sync.Mutex
	issued     []string
	assertions []string
	suspended  bool
}

func (i *installation) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.assertions = append(i.assertions, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	rw.Header().Set("Content-Type", "application/json; charset=utf-8")
	rw.Header().Set("X-GitHub-Request-Id", "1")
	if i.suspended {
		rw.WriteHeader(http.StatusForbidden)
		_, _ = rw.Write([]byte(`{"message":"This installation has been suspended"}`)) // a client that is gone notices
		return
	}
	token := fmt.Sprintf("ghs_canary7c3e%d", len(i.issued))
	i.issued = append(i.issued, token)
	i.sim.Accept(token)
	rw.WriteHeader(http.StatusCreated)
	_, _ = fmt.Fprintf(rw, `{"token":%q,"expires_at":%q}`, token, time.Now().Add(time.Hour).Format(time.RFC3339)) // as above
}

// suspend ends the tokens of the installation, and issues no more.
func (i *installation) suspend() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.suspended = true
	for _, token := range i.issued {
		i.sim.Revoke(token)
	}
}

// secrets are the assertions that arrived and the tokens that were issued.
func (i *installation) secrets() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Concat(i.assertions, i.issued)
}

// Two organisations share an App, a third has a token. When the App is
// suspended, the two say so and lose nobody, and the third goes on.
func TestASuspendedAppConcernsItsTargetsAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := &installation{sim: w.sim}
	w.sim.Intercept(func(r *http.Request) http.Handler {
		if strings.HasSuffix(r.URL.Path, "/app/installations/22/access_tokens") {
			return app
		}
		return nil
	})
	w.write("app.pem", pemKey())
	const byApp = `api_url: "API", auth: {app: {id: 11, installation_id: 22, private_key_file: app.pem}}`
	w.configure(`
database_url: "DATABASE"
nats: {url: "NATS", allow_shared_inbox: true}
listen: 127.0.0.1:0
targets:
  - {name: acme, scope: org/acme, `+byApp+`}
  - {name: beta, scope: org/beta, `+byApp+`}
  - {name: gamma, scope: org/gamma, api_url: "API", auth: {token_file: github.token}}
`, "")
	names := []string{"acme", "beta", "gamma"}
	for _, name := range names {
		scope := fleet.Scope{Kind: fleet.ScopeOrg, Owner: name}
		if scope != acme { // which is there already
			if err := w.sim.AddScope(scope); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.sim.Create(scope, githubsim.RunnerSpec{Name: name + "-1", Online: true}); err != nil {
			t.Fatal(err)
		}
	}
	p := w.serve().up()
	w.nats.publish("muster.v1.trigger.sync.all", "")
	const outcomes = `SELECT string_agg(target || ' ' || outcome, ', ' ORDER BY target) FROM (
		SELECT DISTINCT ON (target) target, outcome FROM api.syncs ORDER BY target, started_at DESC) newest`
	w.becomes("acme complete, beta complete, gamma complete", outcomes)
	if got := len(app.secrets()); got != 2 {
		t.Errorf("%d assertions and installation tokens for two targets of one installation, want 1 and 1", got)
	}

	app.suspend()
	before := w.value(`SELECT count(*) FROM api.syncs WHERE target = 'gamma'`)
	w.nats.publish("muster.v1.trigger.sync.all", "")
	w.becomes("acme failed, beta failed, gamma complete", outcomes)
	w.becomes("true", `SELECT count(*) > $1::bigint FROM api.syncs WHERE target = 'gamma'`, before)
	w.becomes("acme, beta", `SELECT string_agg(DISTINCT target, ', ' ORDER BY target) FROM api.audit WHERE code = 'TG300E'`)
	nobodyRemoved(t, w, "suspended")
	status, readiness := p.get("/readyz")
	for _, name := range names[:2] {
		want := "target " + name + ": create installation token of org/" + name +
			": forbidden (HTTP 403): installation 22 of App 11: This installation has been suspended"
		if !strings.Contains(readiness, want) {
			t.Errorf("/readyz = %q, want %q in it", readiness, want)
		}
	}
	if status != http.StatusOK || strings.Contains(readiness, "target gamma") {
		t.Errorf("/readyz = %d %q, want it not to fail, and nothing against gamma", status, readiness)
	}
	p.stop()

	for _, secret := range app.secrets() {
		if found := append(linesWith(p.log.String(), secret), tablesWith(t, w, secret)...); len(found) > 0 {
			t.Errorf("a secret of the App is in %q", found)
		}
	}
}
