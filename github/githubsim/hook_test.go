package githubsim_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

const secret = "the secret of the hook"

// heard is a webhook as it arrived.
type heard struct {
	header http.Header
	body   string
}

// receiver keeps what it hears and answers with status.
type receiver struct {
	url    string
	status int
	each   func()

	mu  sync.Mutex
	all []heard
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		panic(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, heard{req.Header, string(body)})
	if r.each != nil {
		r.each()
	}
	w.Header().Set("X-Receiver", "here")
	w.WriteHeader(r.status)
	_, _ = io.WriteString(w, "thanks")
}

func (r *receiver) heard() []heard {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}

// said is what was heard after the ping, in words: event, action, job, runner.
func (r *receiver) said(t *testing.T) []string {
	t.Helper()
	var words []string
	for _, h := range r.heard() {
		var body struct {
			Action string
			Job    struct {
				ID     int64
				Runner string `json:"runner_name"`
			} `json:"workflow_job"`
			Check struct{ ID int64 } `json:"check_run"`
		}
		if err := json.Unmarshal([]byte(h.body), &body); err != nil {
			t.Fatalf("%v in %s", err, h.body)
		}
		if event := h.header.Get("X-GitHub-Event"); event != "ping" {
			words = append(words, strings.TrimSpace(fmt.Sprintf("%s %s %d %s", strings.TrimPrefix(event, "workflow_job"), body.Action, body.Job.ID+body.Check.ID, body.Job.Runner)))
		}
	}
	return words
}

// hook makes a receiver and has a scope tell it of workflow jobs, or of other
// events.
func (s *simulator) hook(scope fleet.Scope, events ...string) (*receiver, int64) {
	s.t.Helper()
	r := &receiver{status: http.StatusNoContent}
	srv := httptest.NewServer(r)
	s.t.Cleanup(srv.Close)
	r.url = srv.URL
	id, err := s.AddHook(githubsim.Hook{Scope: scope, URL: srv.URL + "/webhooks/github", Secret: secret, Events: events})
	must(s.t, err)
	return r, id
}

func (s *simulator) wantHeard(name string, r *receiver, want ...string) {
	s.t.Helper()
	s.Deliver(s.t.Context())
	if diff := cmp.Diff(want, r.said(s.t)); diff != "" {
		s.t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func signed(secret string, body string) (sha1Hex, sha256Hex string) {
	old, now := hmac.New(sha1.New, []byte(secret)), hmac.New(sha256.New, []byte(secret))
	old.Write([]byte(body))
	now.Write([]byte(body))
	return "sha1=" + hex.EncodeToString(old.Sum(nil)), "sha256=" + hex.EncodeToString(now.Sum(nil))
}

func TestAWebhookTellsTheLifeOfAWorkflowJob(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Version: "3.19"})
	r, id := s.hook(org)
	s.create(org, githubsim.RunnerSpec{Name: "a", Online: true})
	s.queue(githubsim.JobSpec{Waiting: true})
	s.wantHeard("made", r, "waiting 1")
	must(t, s.Approve(1))
	must(t, s.Assign(org, 1))
	must(t, s.Finish(org, 1))
	s.queue(githubsim.JobSpec{Skipped: true})
	s.wantHeard("all of it", r, "waiting 1", "queued 1", "in_progress 1 a", "completed 1 a", "completed 2")

	first, guids := r.heard()[0], make(map[string]bool)
	if first.header.Get("X-GitHub-Event") != "ping" || !strings.HasPrefix(first.body, `{"zen":"`) || !strings.Contains(first.body, fmt.Sprintf(`"hook_id":%d,`, id)) {
		t.Errorf("the first is no ping: %v %s", first.header, first.body)
	}
	for _, h := range r.heard() {
		guids[h.header.Get("X-GitHub-Delivery")] = true
		sha1Hex, sha256Hex := signed(secret, h.body)
		for name, want := range map[string]string{
			"X-Hub-Signature": sha1Hex, "X-Hub-Signature-256": sha256Hex, "Content-Type": "application/json",
			"X-GitHub-Hook-ID": fmt.Sprint(id), "X-GitHub-Hook-Installation-Target-ID": "2", "X-GitHub-Hook-Installation-Target-Type": "organization",
			"X-GitHub-Enterprise-Version": "3.19.0", "X-GitHub-Enterprise-Host": "github.example.com",
		} {
			if got := h.header.Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		if !strings.HasPrefix(h.header.Get("User-Agent"), "GitHub-Hookshot/") {
			t.Errorf("User-Agent %q", h.header.Get("User-Agent"))
		}
	}
	if len(guids) != 6 || guids[""] {
		t.Errorf("GUIDs: %v, want six that differ", guids)
	}
	last := r.heard()[4].body
	for _, part := range []string{
		`{"action":"completed","workflow_job":{"id":1,"run_id":1,`, `"run_attempt":1,`, `"status":"completed","conclusion":"success"`, `"labels":["self-hosted"],"runner_id":1,"runner_name":"a","runner_group_id":1,"runner_group_name":"Default"}`,
		`"full_name":"acme/widgets"`, `"organization":{"id":2,"login":"acme"}`, `"sender":{`,
	} {
		if !strings.Contains(last, part) {
			t.Errorf("%s, want %s", last, part)
		}
	}
}

func TestHooksHearOfTheirOwnScope(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Version: "dotcom"})
	ofEnterprise, _ := s.hook(enterprise)
	ofOrg, _ := s.hook(org)
	ofRepo, _ := s.hook(repo)
	s.queue(githubsim.JobSpec{Repository: "Acme/Widgets"})
	s.queue(githubsim.JobSpec{Repository: "acme/gadgets"})
	_, err := s.QueueJob(enterprise, githubsim.JobSpec{Repository: "acme/widgets"})
	must(t, err)
	s.wantHeard("repository", ofRepo, "queued 1", "queued 3")
	s.wantHeard("organisation", ofOrg, "queued 1", "queued 2", "queued 3")
	s.wantHeard("enterprise", ofEnterprise, "queued 3")
	h := ofEnterprise.heard()[1]
	if h.header.Get("X-GitHub-Hook-Installation-Target-Type") != "business" || !strings.Contains(h.body, `"enterprise":{"id":1,"slug":"octo"`) || h.header.Get("X-GitHub-Enterprise-Host") != "" {
		t.Errorf("of the enterprise: %v %s", h.header, h.body)
	}
	if strings.Contains(ofRepo.heard()[1].body, "enterprise") {
		t.Errorf("of no enterprise: %s", ofRepo.heard()[1].body)
	}
}

func TestEventsByVersion(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]string{
		"3.1":  "check_run created 1, check_run completed 1",
		"3.7":  "queued 1, check_run created 1, in_progress 1 a, completed 1 a, check_run completed 1",
		"3.10": "waiting 1, queued 1, check_run created 1, in_progress 1 a, completed 1 a, check_run completed 1",
	} {
		s := start(t, githubsim.Config{Version: version})
		r, _ := s.hook(org, "*")
		checks, _ := s.hook(org, "check_run")
		jobs, _ := s.hook(org)
		s.create(org, githubsim.RunnerSpec{Name: "a", Online: true})
		must(t, s.Approve(s.queue(githubsim.JobSpec{Waiting: true})))
		must(t, s.Assign(org, 1))
		must(t, s.Finish(org, 1))
		s.wantHeard(version+", all", r, strings.Split(want, ", ")...)
		s.wantHeard(version+", checks", checks, "check_run created 1", "check_run completed 1")
		for _, word := range jobs.said(t) {
			if strings.Contains(word, "check_run") {
				t.Errorf("%s: a hook of workflow jobs heard %s", version, word)
			}
		}
	}
}

// TestEventsAgreeWithThePublishedDescription has every action of a workflow job.
func TestEventsAgreeWithThePublishedDescription(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"3.10", "3.19", githubsim.DotCom} {
		var file struct{ Webhooks map[string]json.RawMessage }
		must(t, json.Unmarshal(descriptionFile(t, version), &file))
		s := start(t, githubsim.Config{Version: version})
		r, _ := s.hook(org)
		s.create(org, githubsim.RunnerSpec{Name: "a", Online: true})
		must(t, s.Approve(s.queue(githubsim.JobSpec{Waiting: true, Labels: []string{"Linux", "self-hosted"}})))
		must(t, s.Assign(org, 1))
		must(t, s.Finish(org, 1))
		s.queue(githubsim.JobSpec{Skipped: true, Labels: []string{}})
		s.Deliver(t.Context())
		seen := make(map[string]bool)
		for _, h := range r.heard()[1:] {
			var body struct {
				Action string
				Job    json.RawMessage `json:"workflow_job"`
			}
			must(t, json.Unmarshal([]byte(h.body), &body))
			name := "workflow-job-" + strings.ReplaceAll(body.Action, "_", "-")
			schema, err := compileSchema(file.Webhooks[name])
			must(t, err)
			doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(body.Job))
			must(t, err)
			if err := schema.Validate(doc); err != nil {
				t.Errorf("%s %s: %v\n%s", version, name, err, body.Job)
			}
			seen[name] = true
		}
		if len(seen) != len(file.Webhooks) {
			t.Errorf("%s: %v are described, seen were %v", version, len(file.Webhooks), seen)
		}
	}
}

func TestHooksThatCannotBe(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	for says, h := range map[string]githubsim.Hook{
		"url":          {Scope: org, URL: "here"},
		`event "push"`: {Scope: org, URL: "http://127.0.0.1/", Events: []string{"push"}},
		"org/nobody":   {Scope: scopeOf("nobody"), URL: "http://127.0.0.1/"},
	} {
		if _, err := s.AddHook(h); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("AddHook(%+v) = %v, want %q", h, err, says)
		}
	}
	if err := s.RemoveHook(1); err == nil {
		t.Error("RemoveHook of none = nil, want an error")
	}
	if s.Deliveries(1) != nil {
		t.Error("deliveries of no hook")
	}
}

func TestARemovedHookHearsNothingMore(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Version: "3.19"})
	r, id := s.hook(org)
	s.Deliver(t.Context())
	s.queue(githubsim.JobSpec{})
	must(t, s.RemoveHook(id))
	s.queue(githubsim.JobSpec{})
	s.wantHeard("afterwards", r)
}

func TestADeliveryThatFailsIsNotRepeated(t *testing.T) {
	t.Parallel()
	slow := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-slow:
		case <-r.Context().Done():
		}
	}))
	defer srv.Close()
	defer close(slow)
	nobody := httptest.NewServer(nil)
	nobody.Close()
	for _, tt := range []struct {
		url     string
		timeout time.Duration
		want    string
	}{
		{srv.URL, time.Millisecond, "timed out"}, {nobody.URL, 0, "failed to connect to host"},
	} {
		s := start(t, githubsim.Config{Version: "3.19", HookTimeout: tt.timeout})
		id, err := s.AddHook(githubsim.Hook{Scope: org, URL: tt.url})
		must(t, err)
		if n := s.Deliver(t.Context()); n != 1 {
			t.Errorf("Deliver() = %d, want one request", n)
		}
		if d := s.Deliveries(id); len(d) != 1 || d[0].StatusCode != 0 || d[0].Status != tt.want || d[0].DeliveredAt.IsZero() {
			t.Errorf("deliveries %+v, want one that %s", d, tt.want)
		}
		if n := s.Deliver(t.Context()); n != 0 {
			t.Errorf("Deliver() = %d once more, want 0", n)
		}
	}
}

func TestDeliverEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Version: "3.19"})
	s.hook(org)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	s.queue(githubsim.JobSpec{})
	if n := s.Deliver(over); n != 0 {
		t.Errorf("Deliver() = %d with its context over", n)
	}
}

func TestRunDeliversByItself(t *testing.T) {
	t.Parallel()
	sim, stop, err := githubsim.Start(t.Context(), githubsim.Config{Version: "3.19"})
	must(t, err)
	defer stop()
	must(t, sim.AddScope(org))
	got := make(chan string, 10)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got <- r.Header.Get("X-GitHub-Event") + " " + r.Header.Get("X-GitHub-Enterprise-Host")
	}))
	defer srv.Close()
	_, err = sim.AddHook(githubsim.Hook{Scope: org, URL: srv.URL})
	must(t, err)
	host := strings.TrimSuffix(strings.TrimPrefix(sim.APIURL(), "http://"), "/api/v3")
	if first := <-got; first != "ping "+host {
		t.Errorf("heard %q, want a ping of %s", first, host)
	}
	_, err = sim.QueueJob(org, githubsim.JobSpec{})
	must(t, err)
	if second := <-got; second != "workflow_job "+host {
		t.Errorf("heard %q, want the job", second)
	}
}
