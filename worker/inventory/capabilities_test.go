package inventory_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

// can is what the record says of acme's server, probed_at apart.
const can = `SELECT concat_ws(' ', coalesce(c->>'server_version', '-'), 'jit', coalesce(c->>'jit', '-'), 'name', coalesce(c->>'name_filter', '-'),
	'groups', coalesce(c->>'runner_groups', '-'), 'ephemeral', coalesce(c->>'ephemeral', '-'), 'version', coalesce(c->>'version', '-'), coalesce(c->>'delete_busy', '-'))
	FROM (SELECT capabilities AS c FROM api.targets WHERE target = 'acme') t`

const probedAt = `SELECT (capabilities->>'probed_at')::timestamptz = $1 FROM api.targets`

func TestWhatEveryVersionCanDo(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]string{
		"3.1":            "3.1.0 jit false name false groups false ephemeral false version false 500",
		"3.4":            "3.4.0 jit false name false groups false ephemeral false version false 422",
		"3.7":            "3.7.0 jit false name false groups true ephemeral false version false 422",
		"3.10":           "3.10.0 jit true name false groups true ephemeral false version false 422",
		"3.11":           "3.11.0 jit true name true groups true ephemeral false version false 422",
		"3.19":           "3.19.0 jit true name true groups true ephemeral true version true 422",
		githubsim.DotCom: "- jit true name true groups true ephemeral true version true 422",
	} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := newWorldOf(t, version, nil)
			w.create(3, githubsim.RunnerSpec{})
			w.sync()
			w.want(want, can)
			w.want("true", probedAt, w.clock())
			probes(w, 1)
			for range 3 {
				w.sync()
			}
			w.want(want, can)
			probes(w, 1)
		})
	}
}

// probes counts what was asked only to find out.
func probes(w *world, want int) {
	w.Helper()
	got := 0
	for _, e := range w.sim.Log() {
		if strings.Contains(e.Query, "name=muster-asks") {
			got++
		}
		if e.Method != http.MethodGet && e.Method != "" {
			w.Errorf("%s %s was sent", e.Method, e.Path)
		}
	}
	if got != want {
		w.Errorf("%d probes, want %d", got, want)
	}
}

func TestProbesAreRare(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, "3.11", nil)
	// Where there is nobody, no listing can tell whether it heeds a name.
	w.sync()
	w.want("3.11.0 jit true name - groups - ephemeral - version - 422", can)
	w.pass(2 * time.Hour)
	w.sync()
	probes(w, 0)
	w.create(3, githubsim.RunnerSpec{})
	w.sync()
	probes(w, 1)
	const all = "3.11.0 jit true name true groups true ephemeral false version false 422"
	w.want(all, can)
	probed := w.clock()
	w.pass(24*time.Hour - 2*time.Minute)
	w.sync()
	w.want("true", probedAt, probed)
	probes(w, 1)
	w.sync()
	w.want("true", probedAt, w.clock())
	probes(w, 2)
	w.want(all, can)
}

// A probe that fails is no fault of the sync's, and is made again an hour later.
func TestProbeThatFails(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, "3.19", nil)
	w.create(3, githubsim.RunnerSpec{})
	w.sim.Intercept(func(r *http.Request) http.Handler {
		if !r.URL.Query().Has("name") {
			return nil
		}
		return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "oops", http.StatusBadGateway) })
	})
	w.wantSync("complete +3 ~0 -0")
	w.want("3.19.0 jit true name - groups true ephemeral true version true 422", can)
	w.sync()
	probes(w, 1)
	w.sim.Intercept(nil)
	w.sync()
	probes(w, 1)
	w.pass(time.Hour)
	w.wantSync("complete +0 ~0 -0")
	probes(w, 2)
	w.want("3.19.0 jit true name true groups true ephemeral true version true 422", can)
}

// An upgrade makes what is known old, whatever the pages say.
func TestProbesAfterAnUpgrade(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, "3.11", nil)
	w.create(3, githubsim.RunnerSpec{})
	w.sync()
	upgraded := func(r *http.Request) http.Handler {
		if r.Header.Get("X-Passed") != "" {
			return nil
		}
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			again := r.Clone(r.Context())
			again.Header.Set("X-Passed", "1")
			heard := httptest.NewRecorder()
			w.sim.Handler().ServeHTTP(heard, again)
			for key, values := range heard.Header() {
				rw.Header()[key] = values
			}
			rw.Header().Set("X-GitHub-Enterprise-Version", "3.12.1")
			rw.WriteHeader(heard.Code)
			_, _ = rw.Write(heard.Body.Bytes()) // a client that is gone notices
		})
	}
	w.sim.Intercept(upgraded)
	// The pages have not changed, so that the fields are for the next to tell.
	w.sync()
	w.want("3.12.1 jit true name true groups - ephemeral - version - 422", can)
	w.sim.Intercept(nil)
	w.create(1, githubsim.RunnerSpec{Name: "new"})
	w.sim.Intercept(upgraded)
	w.sync()
	w.want("3.12.1 jit true name true groups true ephemeral false version false 422", can)
}

func TestTargetsThatCannotBeListedAreNotProbed(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, "3.19", nil)
	w.create(3, githubsim.RunnerSpec{})
	w.sim.Grant(credential, acme, githubsim.AccessInvisible)
	if err := w.try(); err == nil {
		t.Error("sync of an invisible scope: no error")
	}
	w.want("- jit - name - groups - ephemeral - version - -", can)
	probes(w, 0)
}

// hidden is one listing that lacks runners whose GET by id fails.
func (w *world) hidden(ids ...int64) fleet.Sync {
	w.Helper()
	w.ok(w.sim.Hide(acme, 1, ids...))
	defer w.breakLookups()()
	return w.sync()
}

// A runner that GitHub gives no answer about by id is asked for by name, where
// the server lists by name. There it has to be the same; not to be there proves
// nothing.
func TestMissingRunnerIsFoundByItsName(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, "3.11", nil)
	ids := w.create(3, githubsim.RunnerSpec{Online: true})
	w.sync()
	s := w.hidden(ids[0])
	if got := outcome(s); got != "complete +0 ~0 -0" || s.APICalls != 3 {
		t.Errorf("sync: %s with %d calls, want nothing and 3: the listing, the id, the name", got, s.APICalls)
	}
	w.missing("")
	w.ok(w.sim.Kill(acme, ids[1])) // what is seen there counts
	w.hidden(ids[1])
	w.want("offline", `SELECT status FROM api.runners WHERE runner_id = $1`, ids[1])

	// Another one has the name: that says nothing about the one before.
	w.ok(w.sim.Remove(acme, ids[2]))
	_, err := w.sim.Create(acme, githubsim.RunnerSpec{Name: "r3"})
	w.ok(err)
	if got := outcome(w.hidden()); got != "complete +1 ~1 -0" {
		t.Errorf("sync: %s, want the new one added and the old one marked", got)
	}
	w.missing(text(ids[2]))
	w.removed("")
}

func TestMissingRunnerIsNotAskedForByANameNobodyHeeds(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, "3.10", nil)
	ids := w.create(3, githubsim.RunnerSpec{Online: true})
	w.sync()
	if s := w.hidden(ids[0]); outcome(s) != "complete +0 ~1 -0" || s.APICalls != 2 {
		t.Errorf("sync: %s with %d calls, want one marked and 2 calls", outcome(s), s.APICalls)
	}
	w.missing(text(ids[0]))
}
