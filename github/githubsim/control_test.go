package githubsim_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

// control sends a command, or a GET where there is no body.
func (s *simulator) control(path, body string) (int, string) {
	s.t.Helper()
	method := http.MethodPost
	if body == "" {
		method = http.MethodGet
	}
	w := httptest.NewRecorder()
	s.ControlHandler().ServeHTTP(w, httptest.NewRequestWithContext(s.t.Context(), method, "/_sim/"+path, strings.NewReader(body)))
	return w.Code, strings.TrimSpace(w.Body.String())
}

func TestControlCommands(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Tokens: []string{credential}})
	token, _ := s.mint(registrationToken)
	do := func(path, body, want string) {
		t.Helper()
		if status, got := s.control(path, body); status != http.StatusOK || got != want {
			t.Errorf("%s %s: %d %s, want %s", path, body, status, got, want)
		}
	}
	state := func() string {
		t.Helper()
		var all []string
		for _, st := range s.Snapshot(org) {
			word := st.Name
			if st.Online {
				word += "+online"
			}
			if st.Busy {
				word += "+busy"
			}
			all = append(all, word)
		}
		return strings.Join(all, " ")
	}
	want := func(name, want string) {
		t.Helper()
		if got := state(); got != want {
			t.Errorf("after %s: %q, want %q", name, got, want)
		}
	}

	do("scope", `{"scope":"org/new"}`, `{}`)
	do("create", `{"scope":"org/acme","name":"a","os":"macos","labels":["gpu"],"ephemeral":true}`, `{"ids":[1]}`)
	do("create", `{"scope":"org/acme","name":"many","count":2,"online":true,"busy":true}`, `{"ids":[2,3]}`)
	want("create", "a many-1+online+busy many-2+online+busy")
	do("connect", `{"scope":"org/acme","names":["a"]}`, `{"ids":[1]}`)
	do("finish", `{"scope":"org/acme","ids":[2],"names":["many-2"]}`, `{"ids":[2,3]}`)
	do("assign", `{"scope":"org/acme","ids":[1]}`, `{"ids":[1]}`)
	want("assign", "a+online+busy many-1+online many-2+online")
	do("kill", `{"scope":"org/acme","ids":[2]}`, `{"ids":[2]}`)
	do("remove", `{"scope":"org/acme","ids":[3]}`, `{"ids":[3]}`)
	do("register", `{"token":"`+token+`","name":"host-1","labels":["gpu"]}`, `{"id":4,"scope":"org/acme"}`)
	want("register", "a+online+busy many-1 host-1")

	do("hide", `{"scope":"org/acme","listings":1,"names":["a"]}`, `{"ids":[1]}`)
	s.wantWalk("hide", []int64{2, 4}, 0)
	do("hide", `{"scope":"org/acme","listings":1,"count":3}`, `{"ids":[1,2,4]}`)
	s.wantWalk("hide by number", nil, 0)
	do("show-offline", `{"scope":"org/acme","listings":1}`, `{}`)
	s.wantWalk("show-offline", []int64{1, 2, 4}, 0)
	do("empty", `{"scope":"org/acme","listings":1}`, `{}`)
	s.wantWalk("empty", nil, 0)
	s.wantWalk("all lies", []int64{1, 2, 4}, 1)

	do("revoke", `{"token":"`+credential+`"}`, `{}`)
	wantError(t, "revoke", s.ask("GET", list, ""), http.StatusUnauthorized, "Bad credentials")
	do("accept", `{"token":"`+credential+`"}`, `{}`)
	do("grant", `{"token":"`+credential+`","scope":"org/acme","access":"invisible"}`, `{}`)
	wantError(t, "grant", s.ask("GET", list, ""), http.StatusNotFound, "Not Found")
	do("grant", `{"token":"`+credential+`","scope":"org/acme","access":"full"}`, `{}`)
	do("maintenance", `{"on":true}`, `{}`)
	wantPage(t, "maintenance", s.ask("GET", list, ""), http.StatusServiceUnavailable)
	do("maintenance", `{"on":false}`, `{}`)
	do("down", `{"on":true}`, `{}`)
	do("down", `{"on":false}`, `{}`)
	do("rename", `{"scope":"org/acme","to":"org/acme-corp"}`, `{}`)
	if r := s.ask("GET", list, ""); r.status != http.StatusMovedPermanently {
		t.Errorf("after the renaming: %d, want 301", r.status)
	}
}

func TestControlReads(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	id := s.create(org, githubsim.RunnerSpec{Name: "a", Online: true})
	var states []githubsim.State
	status, body := s.control("runners?scope=org/acme", "")
	if err := json.Unmarshal([]byte(body), &states); err != nil || status != http.StatusOK || len(states) != 1 || states[0].ID != id || states[0].Shown != fleet.StatusOnline {
		t.Errorf("runners: %d %s", status, body)
	}
	if status, body := s.control("runners?scope=org/acme", ""); status != http.StatusOK || strings.Contains(body, "null") {
		t.Errorf("runners: %d %s", status, body)
	}
	if status, body := s.control("runners?scope=repo/acme/widgets", ""); status != http.StatusOK || body != "[]" {
		t.Errorf("runners of an empty scope: %d %s", status, body)
	}
	s.ask("GET", list, "")
	for query, want := range map[string]int{"log": 2, "log?since=1": 1, "log?since=2": 0} {
		var events []githubsim.Event
		status, body := s.control(query, "")
		if err := json.Unmarshal([]byte(body), &events); err != nil || status != http.StatusOK || len(events) != want {
			t.Errorf("%s: %d %s", query, status, body)
		}
	}
}

func TestControlRefuses(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	s.create(org, githubsim.RunnerSpec{Name: "a"})
	for _, tt := range []struct {
		path, body string
		status     int
		says       string
	}{
		{"create", `{`, 400, "not a JSON object"},
		{"create", `[]`, 400, "not a JSON object"},
		{"create", `null`, 400, "scope is required"},
		{"create", `{"name":"b"}`, 400, "scope is required"},
		{"create", `{"scope":"org/acme"}`, 400, "name is required"},
		{"create", `{"scope":"org/acme","name":""}`, 400, "name is required"},
		{"create", `{"scope":"org/acme","name":"b","colour":"red"}`, 400, `unknown field \"colour\"`},
		{"create", `{"scope":"org/acme","name":"b","token":"x"}`, 400, `unknown field \"token\"`},
		{"create", `{"scope":"org/acme","name":7}`, 400, "name"},
		{"create", `{"scope":"acme","name":"b"}`, 400, "want enterprise/SLUG"},
		{"create", `{"scope":"org/..","name":"b"}`, 400, "not a GitHub name"},
		{"create", `{"scope":"org/acme","name":"b","os":"plan9"}`, 400, "want linux, windows or macos"},
		{"create", `{"scope":"org/nobody","name":"b"}`, 404, "org/nobody"},
		{"create", `{"scope":"org/acme","name":"a"}`, 409, "taken"},
		{"kill", `{"scope":"org/acme"}`, 400, "ids or names is required"},
		{"kill", `{"scope":"org/acme","ids":[99]}`, 404, "runner 99"},
		{"kill", `{"scope":"org/acme","names":["zzz"]}`, 404, "runner zzz"},
		{"kill", `{"scope":"org/nobody","ids":[1]}`, 404, "org/nobody"},
		{"finish", `{"scope":"org/acme","ids":[1]}`, 409, "has none"},
		{"hide", `{"scope":"org/acme","listings":1}`, 400, "either"},
		{"hide", `{"scope":"org/acme","listings":1,"ids":[1],"count":1}`, 400, "either"},
		{"hide", `{"scope":"org/acme","ids":[1]}`, 400, "listings is required"},
		{"empty", `{"scope":"org/acme","listings":0}`, 400, "at least one"},
		{"grant", `{"scope":"org/acme","token":"t","access":"some"}`, 400, "want full, forbidden or invisible"},
		{"rename", `{"scope":"org/acme","to":"x"}`, 400, "want enterprise/SLUG"},
		{"register", `{"token":"AXXX","name":"h"}`, 401, "unknown"},
		{"down", `{}`, 400, "on is required"},
		{"dance", `{}`, 404, "dance"},
		{"runners", ``, 400, "want enterprise/SLUG"},
		{"runners?scope=org/nobody", ``, 404, "org/nobody"},
		{"log?since=x", ``, 400, "since"},
		{"dance", ``, 405, ""},
	} {
		status, body := s.control(tt.path, tt.body)
		if status != tt.status || !strings.Contains(body, tt.says) {
			t.Errorf("%s %s: %d %s, want %d with %q", tt.path, tt.body, status, body, tt.status, tt.says)
		}
	}
	if got := s.Snapshot(org); len(got) != 1 {
		t.Errorf("%d runners afterwards, want 1", len(got))
	}
}
