package githubsim_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

const jitConfig = list + "/generate-jitconfig"

func TestAJITConfigurationRegistersItsRunnerAtOnce(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Version: "dotcom"})
	s.create(org, githubsim.RunnerSpec{Name: "a", Group: 4})
	r := s.ask("POST", jitConfig, `{"name":"jit","runner_group_id":4,"labels":["self-hosted","gpu"]}`)
	var body struct {
		Runner json.RawMessage
		Config string `json:"encoded_jit_config"`
	}
	r.decode(t, &body)
	const want = `{"id":2,"name":"jit","os":"unknown","status":"offline","busy":false,"ephemeral":true,"runner_group_id":4,"labels":[` +
		`{"id":0,"name":"self-hosted","type":"read-only"},{"id":0,"name":"gpu","type":"read-only"}],"version":null}`
	if r.status != http.StatusCreated || string(body.Runner) != want {
		t.Errorf("%d %s, want %s", r.status, body.Runner, want)
	}
	if raw, err := base64.StdEncoding.DecodeString(body.Config); err != nil || !json.Valid(raw) {
		t.Errorf("configuration %s: %v", body.Config, err)
	}
	print := fleet.NewSecret(body.Config).Fingerprint()
	if e := s.last(); !e.Acted || e.Token != print || e.RunnerID != 2 || e.RunnerName != "jit" {
		t.Errorf("log: %+v", e)
	}
	if r := s.ask("GET", list+"/2", ""); r.body != want {
		t.Errorf("by itself: %s", r.body)
	}
	if st := s.Snapshot(org)[1]; st.OS != "unknown" || !st.Ephemeral || st.RegisteredWith != print {
		t.Errorf("the truth: %+v", st)
	}
	must(t, s.Connect(org, 2))
	if r := s.ask("GET", list+"/2", ""); !strings.HasPrefix(r.body, `{"id":2,"name":"jit","os":"Linux","status":"online"`) {
		t.Errorf("connected: %s", r.body)
	}
	must(t, s.Assign(org, 2))
	must(t, s.Finish(org, 2))
	if r := s.ask("GET", list+"/2", ""); r.status != http.StatusNotFound {
		t.Errorf("after its workflow job: %d", r.status)
	}
}

func TestJITConfigurationsThatAreRefused(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Version: "3.10"})
	s.create(org, githubsim.RunnerSpec{Name: "taken"})
	for body, want := range map[string]int{
		`{`:                                    400,
		``:                                     422,
		`{"runner_group_id":1,"labels":["a"]}`: 422,
		`{"name":"x","labels":["a"]}`:          422,
		`{"name":"x","runner_group_id":"1","labels":["a"]}`:                                           422,
		`{"name":"x","runner_group_id":1}`:                                                            422,
		`{"name":"x","runner_group_id":1,"labels":[""]}`:                                              422,
		fmt.Sprintf(`{"name":"x","runner_group_id":1,"labels":[%s"a"]}`, strings.Repeat(`"a",`, 100)): 422,
		`{"name":"x","runner_group_id":2,"labels":["a"]}`:                                             404,
	} {
		if r := s.ask("POST", jitConfig, body); r.status != want || s.last().Acted {
			t.Errorf("%.60s: %d %s, want %d", body, r.status, r.body, want)
		}
	}
	r := s.ask("POST", jitConfig, `{"name":"taken","runner_group_id":1,"labels":["a"]}`)
	var body struct{ Message string }
	r.decode(t, &body)
	if r.status != http.StatusConflict || body.Message != "Already exists - A runner with the name taken already exists." {
		t.Errorf("a name that is taken: %d %s", r.status, r.body)
	}
	if got := len(s.Snapshot(org)); got != 1 {
		t.Errorf("%d runners, want 1", got)
	}
}

func TestLabelsOfARunner(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Version: "3.4"})
	ids, err := s.CreateMany(org, 40, func(i int) githubsim.RunnerSpec {
		return githubsim.RunnerSpec{Name: fmt.Sprint("r", i), Labels: []string{"gpu"}}
	})
	must(t, err)
	labels := fmt.Sprintf("%s/%d/labels", list, ids[35])
	for _, tt := range []struct {
		method, path, body, want string
		status                   int
	}{
		{"GET", "", "", "self-hosted Linux X64 gpu", 200},
		{"POST", "", `{"labels":["a","GPU"]}`, "self-hosted Linux X64 gpu a", 200},
		{"PUT", "", `{"labels":["b","c"]}`, "self-hosted Linux X64 b c", 200},
		{"DELETE", "/B", "", "self-hosted Linux X64 c", 200},
		{"DELETE", "/b", "", "", 404},
		{"DELETE", "/x64", "", "", 422},
		{"PUT", "", `{"labels":[]}`, "self-hosted Linux X64", 200},
		{"POST", "", `{"labels":["d"]}`, "self-hosted Linux X64 d", 200},
		{"DELETE", "", "", "self-hosted Linux X64", 200},
		{"POST", "", `{`, "", 400},
		{"PUT", "", `{"labels":"a"}`, "", 422},
		{"POST", "/e", `{"labels":["e"]}`, "", 404},
		{"POST", "", `{"labels":["e"]}`, "self-hosted Linux X64 e", 200},
	} {
		s.ask("GET", list+"?page=2", "") // so that the page is kept
		r := s.ask(tt.method, labels+tt.path, tt.body)
		if r.status != tt.status {
			t.Errorf("%s %s %s: %d %s, want %d", tt.method, tt.path, tt.body, r.status, r.body, tt.status)
			continue
		}
		if acted := tt.status == 200 && tt.method != "GET"; s.last().Acted != acted {
			t.Errorf("%s %s %s: log %+v", tt.method, tt.path, tt.body, s.last())
		}
		if tt.status != 200 {
			continue
		}
		if diff := cmp.Diff(tt.want, names(t, r)); diff != "" {
			t.Errorf("%s %s %s (-want +got):\n%s", tt.method, tt.path, tt.body, diff)
		}
		page := s.ask("GET", list+"?page=2", "")
		one := s.ask("GET", fmt.Sprintf("%s/%d", list, ids[35]), "")
		if !strings.Contains(page.body, one.body) {
			t.Errorf("%s %s %s: the list does not have %s", tt.method, tt.path, tt.body, one.body)
		}
	}
	if r := s.ask("GET", fmt.Sprintf("%s/%d/labels", list, ids[0]), ""); names(t, r) != "self-hosted Linux X64 gpu" {
		t.Errorf("another runner's: %s", r.body)
	}
}

// names are the labels of an answer.
func names(t *testing.T, r response) string {
	t.Helper()
	var body struct {
		Total  int `json:"total_count"`
		Labels []struct{ Name string }
	}
	r.decode(t, &body)
	var all []string
	for _, l := range body.Labels {
		all = append(all, l.Name)
	}
	if len(all) != body.Total {
		t.Errorf("total_count %d of %v", body.Total, all)
	}
	return strings.Join(all, " ")
}
