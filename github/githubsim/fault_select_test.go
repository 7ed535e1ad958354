package githubsim_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

func TestFaultsSelect(t *testing.T) {
	t.Parallel()
	const get, remove = "GET " + list, "DELETE " + list + "/99"
	const elsewhere = "GET /api/v3/repos/ACME/widgets/actions/runners"
	for name, tt := range map[string]struct {
		fault githubsim.Fault
		asks  []string
		want  []int // which of them were struck
	}{
		"any":      {githubsim.Fault{}, []string{get, remove, elsewhere}, []int{0, 1, 2}},
		"method":   {githubsim.Fault{Method: "delete"}, []string{get, remove, elsewhere}, []int{1}},
		"path":     {githubsim.Fault{Path: "/orgs/{org}/actions/runners"}, []string{get, remove, elsewhere}, []int{0}},
		"its end":  {githubsim.Fault{Path: "/actions/runners"}, []string{get, remove, elsewhere}, []int{0, 2}},
		"scope":    {githubsim.Fault{Scope: fleet.Scope{Kind: fleet.ScopeRepo, Owner: "Acme", Repo: "Widgets"}}, []string{get, remove, elsewhere}, []int{2}},
		"nth":      {githubsim.Fault{Nth: 2}, []string{get, get, get, get}, []int{1, 2, 3}},
		"only nth": {githubsim.Fault{Nth: 2, Count: 1}, []string{get, get, get, get}, []int{1}},
		"every":    {githubsim.Fault{Nth: 2, Every: 3}, []string{get, get, get, get, get, get}, []int{1, 4}},
		"count":    {githubsim.Fault{Count: 2}, []string{get, remove, get, get}, []int{0, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, githubsim.Config{})
			tt.fault.Kind, tt.fault.Status = githubsim.FaultStatus, 503
			s.inject(tt.fault)
			var struck []int
			for i, ask := range tt.asks {
				method, path, _ := strings.Cut(ask, " ")
				if s.ask(method, path, "").status == http.StatusServiceUnavailable {
					struck = append(struck, i)
				}
			}
			if diff := cmp.Diff(tt.want, struck); diff != "" {
				t.Errorf("struck (-want +got):\n%s", diff)
			}
		})
	}
}

// Pages that are fetched side by side arrive in any order; what befalls each
// must not depend on it.
func TestChanceFollowsFromTheSeedAndTheRequestAlone(t *testing.T) {
	t.Parallel()
	const pages = 40
	befallen := func(seed int64, order []int) []int {
		s := start(t, githubsim.Config{Seed: seed})
		s.inject(githubsim.Fault{Kind: githubsim.FaultStatus, Status: 502, Probability: 0.3})
		var all []int
		for range 2 {
			for _, page := range order {
				if s.ask("GET", fmt.Sprintf("%s?page=%d", list, page), "").status == http.StatusBadGateway {
					all = append(all, page)
				}
			}
		}
		slices.Sort(all)
		return all
	}
	up := make([]int, pages)
	for i := range up {
		up[i] = i + 1
	}
	down := slices.Clone(up)
	slices.Reverse(down)
	first := befallen(7, up)
	if diff := cmp.Diff(first, befallen(7, down)); diff != "" {
		t.Errorf("in another order (-want +got):\n%s", diff)
	}
	if slices.Equal(first, befallen(8, up)) {
		t.Error("another seed: the same")
	}
	if len(first) < pages*2*15/100 || len(first) > pages*2*45/100 {
		t.Errorf("%d of %d requests, want about three in ten", len(first), pages*2)
	}
	if slices.Equal(slices.Compact(slices.Clone(first)), first) {
		t.Error("no page was befallen twice, want the second time to be left to chance as well")
	}
}

func TestFaultsAddUp(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	s.create(org, githubsim.RunnerSpec{Name: "a", Online: true})
	s.create(org, githubsim.RunnerSpec{Name: "b"})
	s.inject(githubsim.Fault{Kind: githubsim.FaultFieldMissing, Field: "busy"})
	s.inject(githubsim.Fault{Kind: githubsim.FaultTotal, By: 5})
	s.inject(githubsim.Fault{Kind: githubsim.FaultOffline})
	want := strings.ReplaceAll(strings.Replace(strings.Replace(both, ":2", ":7", 1), "online", "offline", 1), `"busy":false,`, "")
	if r := s.ask("GET", list, ""); r.body != want {
		t.Errorf("got  %s\nwant %s", r.body, want)
	}
	if e := s.last(); e.Fault != "field-missing,total,offline" {
		t.Errorf("log: %+v", e)
	}
}

func TestFaultsThatCannotBe(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	for says, f := range map[string]githubsim.Fault{
		`kind ""`:              {},
		`want one of latency,`: {Kind: "earthquake"},
		"status 200":           {Kind: githubsim.FaultStatus, Status: 200},
		"status 204":           {Kind: githubsim.FaultLost, Status: 204},
		"status 500":           {Kind: githubsim.FaultRedirect, Status: 500},
		"delay is required":    {Kind: githubsim.FaultLatency},
		"age is required":      {Kind: githubsim.FaultStale},
		"skew is required":     {Kind: githubsim.FaultSkew},
		"field is required":    {Kind: githubsim.FaultFieldNull},
		"probability 2":        {Kind: githubsim.FaultReset, Probability: 2},
		"negative":             {Kind: githubsim.FaultReset, Count: -1},
		`path "x"`:             {Kind: githubsim.FaultReset, Path: "x"},
		"whole seconds":        {Kind: githubsim.FaultStatus, Status: 429, RetryAfter: time.Millisecond},
	} {
		if _, err := s.Inject(f); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("Inject(%+v) = %v, want %q", f, err, says)
		}
	}
	if n := len(s.Faults()); n != 0 {
		t.Errorf("%d at work afterwards", n)
	}
}

func TestControlFaults(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	s.create(org, githubsim.RunnerSpec{Name: "a"})
	do := func(path, body string, status int, want string) {
		t.Helper()
		if got, text := s.control(path, body); got != status || !strings.Contains(text, want) {
			t.Errorf("%s %s: %d %s, want %d %s", path, body, got, text, status, want)
		}
	}
	do("fault", `{"kind":"status","status":503,"method":"GET","path":"/actions/runners","scope":"org/acme","count":1,"for":"1m30s","wait":"5s"}`, 200, `{"fault":1}`)
	do("fault", `{"kind":"hidden","scope":"org/acme","names":["a"]}`, 200, `{"fault":2}`)
	if r := s.ask("GET", list, ""); r.status != http.StatusServiceUnavailable {
		t.Errorf("GET = %d, want 503", r.status)
	}
	do("faults", "", 200, `[{"fault":1,"kind":"status","method":"GET","path":"/actions/runners","for":"1m30s","status":503,"wait":"5s","scope":"org/acme","count":1,"seen":1,"struck":1},`+
		`{"fault":2,"kind":"hidden","scope":"org/acme","ids":[1],"seen":1,"struck":1}]`)
	do("unfault", `{"fault":1}`, 200, `{}`)
	do("unfault", `{"fault":1}`, 404, "fault 1")
	do("unfault", `{}`, 200, `{}`)
	do("unfault", `{}`, 200, `{}`)
	do("faults", "", 200, `[]`)
	do("fault", `{"kind":"latency","delay":5}`, 400, "1m30s")
	do("fault", `{"kind":"latency","delay":"5"}`, 400, "missing unit")
	do("fault", `{"kind":"earthquake"}`, 400, "want one of latency")
	do("fault", `{"kind":"hidden","scope":"org/acme","names":["z"]}`, 404, "runner z")
	var changes []string
	for _, e := range s.Log() {
		if e.Change == githubsim.ChangeFault || e.Change == githubsim.ChangeMended {
			changes = append(changes, e.Change+" "+e.Cause+" "+e.Scope)
		}
	}
	want := []string{"fault status org/acme", "fault hidden org/acme", "mended status org/acme", "mended hidden org/acme"}
	if diff := cmp.Diff(want, changes); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

func TestTheTokensOfAppsCanBeRefused(t *testing.T) {
	t.Parallel()
	s := startWithApp(t, githubsim.Config{}, map[string]string{"organization_self_hosted_runners": "read"})
	token := s.token(70, "")
	for _, status := range []int{401, 403, 503} {
		remove := s.inject(githubsim.Fault{Kind: githubsim.FaultStatus, Status: status, Path: "/access_tokens"})
		if r := s.ask("POST", "/api/v3/app/installations/70/access_tokens", "", "Authorization", s.asApp()); r.status != status {
			t.Errorf("a token: %d, want %d", r.status, status)
		}
		if e := s.last(); e.Acted || e.Fault != "status" {
			t.Errorf("log: %+v", e)
		}
		if r := s.ask("GET", list, "", "Authorization", token); r.status != http.StatusOK {
			t.Errorf("with a token from before: %d", r.status)
		}
		remove()
	}
	s.token(70, "")
}
