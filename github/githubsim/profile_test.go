package githubsim_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/github/githubsim"
)

// TestTheJSONOfARunnerByVersion has the runner with id 2 of two, connected, and
// the first by name.
func TestTheJSONOfARunnerByVersion(t *testing.T) {
	t.Parallel()
	const (
		ids  = `[{"id":1,"name":"self-hosted","type":"read-only"},{"id":4,"name":"Windows","type":"read-only"},{"id":3,"name":"X64","type":"read-only"}]`
		zero = `[{"id":0,"name":"self-hosted","type":"read-only"},{"id":0,"name":"Windows","type":"read-only"},{"id":0,"name":"X64","type":"read-only"}]`
	)
	for version, want := range map[string]string{
		"3.1":  `{"id":2,"name":"a","os":"windows","status":"online","busy":false,"labels":` + ids + `}`,
		"3.4":  `{"id":2,"name":"a","os":"windows","status":"online","busy":false,"labels":` + ids + `}`,
		"3.7":  `{"id":2,"name":"a","os":"Windows","status":"online","busy":false,"runner_group_id":7,"labels":` + ids + `}`,
		"3.10": `{"id":2,"name":"a","os":"Windows","status":"online","busy":false,"runner_group_id":7,"labels":` + ids + `}`,
		"3.11": `{"id":2,"name":"a","os":"Microsoft Windows 10.0.17763 ","status":"online","busy":false,"runner_group_id":7,"labels":` + ids + `}`,
		"3.19": `{"id":2,"name":"a","os":"Microsoft Windows 10.0.17763 ","status":"online","busy":false,"ephemeral":true,"runner_group_id":7,"labels":` + ids + `,"version":"2.329.0"}`,
		"dotcom": `{"id":2,"name":"a","os":"Windows","status":"online","busy":false,"ephemeral":true,"runner_group_id":7,"labels":` +
			zero + `,"version":"2.329.0"}`,
	} {
		s := start(t, githubsim.Config{Version: version})
		s.create(org, githubsim.RunnerSpec{Name: "b"})
		id := s.create(org, githubsim.RunnerSpec{Name: "a", OS: "windows", Group: 7, Ephemeral: true})
		must(t, s.Connect(org, id))
		if r := s.ask("GET", list+"/2", ""); r.body != want {
			t.Errorf("%s: got\n%s, want\n%s", version, r.body, want)
		}
	}
}

func TestAVersionIsNullUntilTheRunnerHasConnected(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Version: "3.19"})
	id := s.create(org, githubsim.RunnerSpec{Name: "a", Version: "2.300.2"})
	for _, want := range []string{`"version":null}`, `"version":"2.300.2"}`} {
		if r := s.ask("GET", fmt.Sprintf("%s/%d", list, id), ""); !strings.HasSuffix(r.body, want) {
			t.Errorf("%s, want it to end with %s", r.body, want)
		}
		must(t, s.Connect(org, id))
	}
}

func TestFieldsThatCameByDateCanBeChosen(t *testing.T) {
	t.Parallel()
	for _, c := range []githubsim.Config{
		{Version: "3.1", EphemeralField: githubsim.On, VersionField: githubsim.On},
		{Version: "3.19", EphemeralField: githubsim.Off, VersionField: githubsim.Off},
	} {
		s := start(t, c)
		s.create(org, githubsim.RunnerSpec{Name: "a", Online: true})
		r := s.ask("GET", list, "")
		for _, field := range []string{`"ephemeral":`, `"version":`} {
			if want := c.EphemeralField == githubsim.On; strings.Contains(r.body, field) != want {
				t.Errorf("%s: %s: %t, want %t: %s", c.Version, field, !want, want, r.body)
			}
		}
	}
}

func TestTheOrderOfLists(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		version string
		order   githubsim.Order
		want    string
	}{
		{"3.1", "", "b d a c"}, {"3.11", "", "b d a c"}, {"3.19", "", "a b c d"}, {"dotcom", "", "a b c d"},
		{"3.1", githubsim.OrderName, "a b c d"}, {"dotcom", githubsim.OrderID, "b d a c"},
	} {
		s := start(t, githubsim.Config{Version: tt.version, Order: tt.order})
		for _, name := range strings.Fields("b d x a c") {
			s.create(org, githubsim.RunnerSpec{Name: name})
		}
		must(t, s.Remove(org, 3))
		var body struct{ Runners []struct{ Name string } }
		s.ask("GET", list, "").decode(t, &body)
		var names []string
		for _, r := range body.Runners {
			names = append(names, r.Name)
		}
		if got := strings.Join(names, " "); got != tt.want {
			t.Errorf("%s ordered by %q: %s, want %s", tt.version, tt.order, got, tt.want)
		}
		if states := s.Snapshot(org); states[0].Name != "b" || states[3].Name != "c" {
			t.Errorf("%s: the snapshot is not by id: %v", tt.version, states)
		}
	}
}

func TestWhatTheDeletionOfABusyRunnerIsAnsweredByVersion(t *testing.T) {
	t.Parallel()
	const (
		before = `Bad request - Runner "b" is still running a job"`
		after  = `Bad request - Runner b is currently running a job and cannot be deleted.`
	)
	for _, tt := range []struct {
		version, text string
		status        int
	}{
		{"", before, 422}, {"3.1", before, 500}, {"3.4", before, 422}, {"3.7", before, 422},
		{"3.10", after, 422}, {"3.11", after, 422}, {"3.19", after, 422}, {"dotcom", after, 422},
	} {
		s := start(t, githubsim.Config{Version: tt.version})
		id := s.create(org, githubsim.RunnerSpec{Name: "b", Busy: true})
		r := s.ask("DELETE", fmt.Sprintf("%s/%d", list, id), "")
		var body struct{ Message, Status string }
		r.decode(t, &body)
		status := ""
		if tt.version == "3.19" || tt.version == "dotcom" {
			status = fmt.Sprint(tt.status)
		}
		if r.status != tt.status || body.Message != tt.text || body.Status != status {
			t.Errorf("%q: %d %s, want %d %s", tt.version, r.status, r.body, tt.status, tt.text)
		}
	}
}

func TestRunnersThatStayAwayAreForgottenByVersion(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for version, want := range map[string][2]time.Duration{"3.1": {30 * day, 30 * day}, "3.4": {30 * day, 30 * day}, "3.7": {14 * day, day}, "dotcom": {14 * day, day}} {
		for i, ephemeral := range []bool{false, true} {
			s := start(t, githubsim.Config{Version: version})
			s.create(org, githubsim.RunnerSpec{Name: "a", Ephemeral: ephemeral})
			s.now = s.now.Add(want[i])
			s.ask("GET", list, "")
			if got := len(s.Snapshot(org)); got != 1 {
				t.Errorf("%s, ephemeral %t: gone after %s", version, ephemeral, want[i])
			}
			s.now = s.now.Add(time.Hour)
			s.ask("GET", list, "")
			if got := len(s.Snapshot(org)); got != 0 {
				t.Errorf("%s, ephemeral %t: still there after %s", version, ephemeral, want[i]+time.Hour)
			}
		}
	}
}

func TestEveryVersionNamesItself(t *testing.T) {
	t.Parallel()
	for _, version := range githubsim.Versions() {
		names := []string{version}
		docs, header := "https://docs.github.com/rest", ""
		if version != githubsim.DotCom {
			names = append(names, version+".0")
			docs, header = "https://docs.github.com/enterprise-server@"+version+"/rest", version+".0"
		}
		for _, name := range names {
			s := start(t, githubsim.Config{Version: name})
			r := s.ask("GET", list+"/1", "")
			var body struct {
				Docs string `json:"documentation_url"`
			}
			r.decode(t, &body)
			if got := r.header.Get("X-GitHub-Enterprise-Version"); got != header || !strings.HasPrefix(body.Docs, docs+"/") || !strings.HasSuffix(body.Docs, "#get-a-self-hosted-runner-for-an-organization") {
				t.Errorf("%s: version %q, documentation %s", name, got, body.Docs)
			}
		}
	}
	for _, bad := range []string{"3.2", "3.1.1", "2.22", "3", "ghec"} {
		if err := githubsim.CheckVersion(bad); err == nil {
			t.Errorf("CheckVersion(%q) = nil, want an error", bad)
		}
		if _, _, err := githubsim.Start(t.Context(), githubsim.Config{Version: bad}); err == nil {
			t.Errorf("Start with version %q = nil, want an error", bad)
		}
	}
}

func TestTheAPICanBeAtTheRootAndWithoutEnterprises(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Version: githubsim.DotCom, Root: true, NoEnterprises: true})
	if r := s.ask("GET", "/orgs/acme/actions/runners", ""); r.status != 200 {
		t.Errorf("at the root: %d %s", r.status, r.body)
	}
	for _, path := range []string{list, "/enterprises/octo/actions/runners", "/"} {
		if r := s.ask("GET", path, ""); r.status != 404 || !strings.Contains(r.body, `"message":"Not Found"`) {
			t.Errorf("GET %s: %d %s, want 404", path, r.status, r.body)
		}
	}
	sim, stop, err := githubsim.Start(t.Context(), githubsim.Config{Root: true})
	must(t, err)
	defer stop()
	if strings.Count(sim.APIURL(), "/") != 2 {
		t.Errorf("address %s, want no path", sim.APIURL())
	}
}
