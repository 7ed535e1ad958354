package githubsim_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/github/githubsim"
)

func TestFaultsInTheOrderOfDeliveries(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fault githubsim.Fault
		now   []string // heard at once of three jobs that are queued
		later []string // and a minute later
	}{
		"dropped":         {githubsim.Fault{Kind: githubsim.FaultHookDropped, Nth: 2, Count: 1}, []string{"queued 1", "queued 3"}, nil},
		"twice":           {githubsim.Fault{Kind: githubsim.FaultHookTwice, Nth: 2, Count: 1}, []string{"queued 1", "queued 2", "queued 2", "queued 3"}, nil},
		"late":            {githubsim.Fault{Kind: githubsim.FaultHookLate, Nth: 2, Count: 1, Delay: time.Minute}, []string{"queued 1", "queued 3"}, []string{"queued 2"}},
		"reordered":       {githubsim.Fault{Kind: githubsim.FaultHookReordered, Nth: 2, Count: 1}, []string{"queued 1", "queued 3", "queued 2"}, nil},
		"with none after": {githubsim.Fault{Kind: githubsim.FaultHookReordered, Nth: 3}, []string{"queued 1", "queued 2"}, []string{"queued 3"}},
		"of other events": {githubsim.Fault{Kind: githubsim.FaultHookDropped, Event: "workflow_job.completed"}, []string{"queued 1", "queued 2", "queued 3"}, nil},
		"of this event":   {githubsim.Fault{Kind: githubsim.FaultHookDropped, Event: "workflow_job.queued"}, nil, nil},
		"of other scopes": {githubsim.Fault{Kind: githubsim.FaultHookDropped, Scope: repo}, []string{"queued 1", "queued 2", "queued 3"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, githubsim.Config{Version: "3.19"})
			r, _ := s.hook(org)
			s.Deliver(t.Context())
			s.inject(tt.fault)
			for range 3 {
				s.queue(githubsim.JobSpec{})
			}
			s.wantHeard("at once", r, tt.now...)
			s.now = s.now.Add(time.Minute)
			s.wantHeard("later", r, append(tt.now, tt.later...)...)
			guids := make(map[string]bool)
			for _, h := range r.heard() {
				guids[h.header.Get("X-GitHub-Delivery")] = true
			}
			want := len(tt.now) + len(tt.later) + 1
			if tt.fault.Kind == githubsim.FaultHookTwice {
				want-- // twice with one GUID
			}
			if len(guids) != want {
				t.Errorf("%d GUIDs, want %d", len(guids), want)
			}
		})
	}
}

func TestFaultsInDeliveries(t *testing.T) {
	t.Parallel()
	const size = 25 << 20
	good := func(h heard) bool {
		_, signature := signed(secret, h.body)
		return signature == h.header.Get("X-Hub-Signature-256")
	}
	for kind, right := range map[githubsim.FaultKind]func(heard) bool{
		githubsim.FaultHookSignature: func(h heard) bool {
			return !good(h) && strings.HasPrefix(h.header.Get("X-Hub-Signature-256"), "sha256=") && strings.HasPrefix(h.body, `{"action":"queued",`)
		},
		githubsim.FaultHookType: func(h heard) bool {
			form, err := url.ParseQuery(h.body)
			return err == nil && good(h) && strings.HasPrefix(form.Get("payload"), `{"action":"queued",`) && h.header.Get("Content-Type") == "application/x-www-form-urlencoded"
		},
		githubsim.FaultHookBig: func(h heard) bool {
			return good(h) && len(h.body) > size && strings.HasSuffix(h.body, `x"}`)
		},
		githubsim.FaultHookUnknown: func(h heard) bool {
			return good(h) && h.header.Get("X-GitHub-Event") == "muster_simulated"
		},
	} {
		s := start(t, githubsim.Config{Version: "3.19"})
		r, id := s.hook(org)
		s.Deliver(t.Context())
		s.inject(githubsim.Fault{Kind: kind, Count: 1})
		s.queue(githubsim.JobSpec{})
		s.queue(githubsim.JobSpec{})
		s.Deliver(t.Context())
		all := r.heard()
		if len(all) != 3 || !right(all[1]) || !good(all[2]) || all[2].header.Get("X-GitHub-Event") != "workflow_job" {
			t.Errorf("%s: %v %.200s", kind, all[1].header, all[1].body)
		}
		if d := s.Deliveries(id); d[1].Fault != string(kind) || d[2].Fault != "" {
			t.Errorf("%s: deliveries %+v", kind, d)
		}
		log := s.Log()
		if e := log[len(log)-2]; e.Change != githubsim.ChangeDelivered || e.Fault != string(kind) || e.Status != http.StatusNoContent || e.Job != 1 || e.Delivery != all[1].header.Get("X-GitHub-Delivery") {
			t.Errorf("%s: log %+v", kind, e)
		}
	}
}

func TestDeliveriesAreListedByTheAPI(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Version: "3.19"})
	r, id := s.hook(org)
	for range 4 {
		s.queue(githubsim.JobSpec{})
	}
	s.inject(githubsim.Fault{Kind: githubsim.FaultHookDropped})
	s.queue(githubsim.JobSpec{})
	s.Deliver(t.Context())
	at := fmt.Sprintf("/api/v3/orgs/acme/hooks/%d/deliveries", id)
	type row struct {
		ID         int64
		GUID       string
		Redelivery bool
		StatusCode int `json:"status_code"`
		Event      string
		Action     *string
	}
	var ids []int64
	next := at + "?per_page=2"
	for next != "" {
		answer := s.ask("GET", next, "")
		var rows []row
		answer.decode(t, &rows)
		for _, row := range rows {
			ids = append(ids, row.ID)
		}
		link, _, _ := strings.Cut(strings.TrimPrefix(answer.header.Get("Link"), "<"), ">")
		next = strings.TrimPrefix(link, s.url)
	}
	if diff := cmp.Diff([]int64{5, 4, 3, 2, 1}, ids); diff != "" {
		t.Errorf("pages (-want +got):\n%s", diff)
	}

	var one struct {
		row
		URL     string
		Request struct {
			Headers map[string]string
			Payload struct{ Action string }
		}
		Response struct {
			Headers map[string]string
			Payload string
		}
	}
	s.ask("GET", at+"/2", "").decode(t, &one)
	first := r.heard()[1]
	if one.GUID != first.header.Get("X-GitHub-Delivery") || one.URL != r.url+"/webhooks/github" || one.StatusCode != 204 ||
		one.Request.Payload.Action != "queued" || one.Request.Headers["X-Github-Event"] != "workflow_job" || one.Response.Headers["X-Receiver"] != "here" {
		t.Errorf("one: %+v", one)
	}

	if a := s.ask("POST", at+"/2/attempts", ""); a.status != http.StatusAccepted || a.body != "{}" {
		t.Errorf("attempts: %d %s", a.status, a.body)
	}
	if e := s.last(); !e.Acted || e.Delivery != one.GUID {
		t.Errorf("log: %+v", e)
	}
	s.Deliver(t.Context())
	again := r.heard()[5]
	if again.body != first.body || again.header.Get("X-GitHub-Delivery") != one.GUID {
		t.Errorf("again: %v %s", again.header, again.body)
	}
	var rows []row
	s.ask("GET", at+"?per_page=1", "").decode(t, &rows)
	if len(rows) != 1 || !rows[0].Redelivery || rows[0].GUID != one.GUID || rows[0].ID == 2 {
		t.Errorf("the newest: %+v", rows)
	}

	for _, ask := range []string{
		"GET /api/v3/repos/acme/widgets/hooks/1/deliveries", "GET /api/v3/enterprises/octo/hooks/1/deliveries", "GET /api/v3/orgs/acme/hooks/9/deliveries",
		"GET " + at + "/99", "POST " + at + "/99/attempts", "GET " + at + "/2/attempts",
	} {
		method, path, _ := strings.Cut(ask, " ")
		if a := s.ask(method, path, ""); a.status != http.StatusNotFound {
			t.Errorf("%s = %d, want 404", ask, a.status)
		}
	}
	for _, cursor := range []string{"x", "v1_x", "7"} {
		if a := s.ask("GET", at+"?cursor="+cursor, ""); a.status != http.StatusUnprocessableEntity {
			t.Errorf("cursor %s = %d, want 422", cursor, a.status)
		}
	}
	s.now = s.now.Add(7 * 24 * time.Hour)
	if a := s.ask("GET", at, ""); a.body != "[]" {
		t.Errorf("a week later: %s", a.body)
	}
}

func TestControlJobsAndHooks(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Version: "3.19"})
	r, _ := s.hook(repo)
	s.create(org, githubsim.RunnerSpec{Name: "a", Online: true})
	do := func(path, body string, status int, want string) {
		t.Helper()
		if got, text := s.control(path, body); got != status || !strings.Contains(text, want) {
			t.Errorf("%s %s: %d %s, want %d %s", path, body, got, text, status, want)
		}
	}
	do("hook", `{"scope":"org/acme","url":"`+r.url+`","secret":"x","events":["check_run"]}`, 200, `{"hook":2}`)
	do("hook", `{"scope":"org/acme","url":"nowhere"}`, 400, "want http or https")
	do("queue-job", `{"scope":"org/acme","labels":["linux"],"waiting":true,"name":"test"}`, 200, `{"jobs":[1]}`)
	do("queue-job", `{"scope":"org/acme","count":2,"run":1}`, 200, `{"jobs":[2,3]}`)
	do("approve", `{"job":1}`, 200, `{}`)
	do("approve", `{"job":1}`, 409, "it is queued")
	do("run-job", `{"scope":"org/acme","job":2,"names":["a"]}`, 200, `{}`)
	do("run-job", `{"scope":"org/acme","job":3}`, 400, "want one of")
	do("move-job", `{"scope":"org/acme","job":2}`, 400, "move-job: want one of")
	do("move-job", `{"scope":"org/acme","job":2,"names":["a"]}`, 409, "it has one")
	do("finish-job", `{"job":2}`, 200, `{}`)
	do("finish-job", `{"job":3,"conclusion":"cancelled"}`, 200, `{}`)
	do("finish-job", `{"job":9}`, 404, "workflow job 9")
	do("rerun", `{"run":1}`, 409, "in_progress")
	do("dispatch", `{"scope":"org/acme"}`, 200, `{"assigned":1}`)
	do("finish-job", `{"job":1}`, 200, `{}`)
	do("rerun", `{"run":1}`, 200, `{}`)
	do("jobs", "", 200, `{"id":1,"run_id":1,"attempt":2,"repository":"acme/widgets","name":"test"`)
	do("jobs", "", 200, `"state":"completed","conclusion":"success","runner_id":1,"runner_name":"a"`)
	do("jobs", "", 200, `"scope":"org/acme"}`)
	do("deliver", `{}`, 200, `{"requests":`)
	do("deliveries?hook=2", "", 200, `"event":"check_run","action":"created","job":1,`)
	do("deliveries?hook=x", "", 400, "number of a hook")
	do("deliveries?hook=9", "", 404, "hook 9")
	do("unhook", `{"hook":2}`, 200, `{}`)
	do("unhook", `{"hook":2}`, 404, "hook 2")
	do("fault", `{"kind":"hook-dropped","event":"workflow_job.queued"}`, 200, `{"fault":1}`)
	do("faults", "", 200, `"event":"workflow_job.queued"`)
	if said := r.said(t); len(said) == 0 {
		t.Error("nothing was delivered")
	}
}
