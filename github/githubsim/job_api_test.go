package githubsim_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/github/githubsim"
)

const repoPath = "/api/v3/repos/acme/widgets/actions"

func TestRunsAreFoundByStatus(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	s.create(org, githubsim.RunnerSpec{Name: "a", Online: true})
	mixed := s.queue(githubsim.JobSpec{})
	s.queue(githubsim.JobSpec{RunID: 1})
	_, err := s.Dispatch(org)
	must(t, err)
	s.queue(githubsim.JobSpec{})
	s.queue(githubsim.JobSpec{Waiting: true})
	must(t, s.FinishJob(s.queue(githubsim.JobSpec{}), "cancelled"))
	s.queue(githubsim.JobSpec{Repository: "acme/gadgets"})
	runs := func(query, want string) {
		t.Helper()
		var body struct {
			Total int `json:"total_count"`
			Runs  []struct {
				ID         int64
				Status     string
				Conclusion string
				Repository struct {
					FullName string `json:"full_name"`
				}
			} `json:"workflow_runs"`
		}
		s.ask("GET", repoPath+"/runs"+query, "").decode(t, &body)
		var got []string
		for _, r := range body.Runs {
			got = append(got, strings.TrimSpace(fmt.Sprint(r.ID, " ", r.Status, " ", r.Conclusion)))
			if r.Repository.FullName != "acme/widgets" {
				t.Errorf("%s: run of %s", query, r.Repository.FullName)
			}
		}
		if strings.Join(got, ", ") != want || body.Total != len(got) {
			t.Errorf("runs%s: %v of %d, want %s", query, got, body.Total, want)
		}
	}
	runs("", "4 completed cancelled, 3 waiting, 2 queued, 1 in_progress")
	runs("?status=queued", "2 queued")
	runs("?status=waiting", "3 waiting")
	runs("?status=in_progress", "1 in_progress")
	runs("?status=completed", "4 completed cancelled")
	runs("?status=cancelled", "4 completed cancelled")
	runs("?status=success", "")
	must(t, s.FinishJob(mixed, "success"))
	runs("?status=in_progress", "1 in_progress") // with one job queued and none in progress
}

func TestAFilteredListOfRunsEndsAtAThousand(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	for range 1020 {
		s.queue(githubsim.JobSpec{})
	}
	for query, want := range map[string]string{
		"status=queued&per_page=100&page=10": `rel="prev", <`,
		"per_page=100&page=11":               `rel="prev", <`,
		"status=queued&per_page=100":         `page=10&per_page=100&status=queued>; rel="last"`,
		"per_page=100":                       `page=11&per_page=100>; rel="last"`,
	} {
		if link := s.ask("GET", repoPath+"/runs?"+query, "").header.Get("Link"); !strings.Contains(link, want) {
			t.Errorf("%s: Link %s, want %s", query, link, want)
		}
	}
	for query, want := range map[string]int{"status=queued&per_page=100&page=10": 100, "status=queued&per_page=100&page=11": 0, "per_page=100&page=11": 20} {
		r := s.ask("GET", repoPath+"/runs?"+query, "")
		if got := strings.Count(r.body, `"run_attempt"`); got != want || !strings.HasPrefix(r.body, `{"total_count":1020,`) {
			t.Errorf("%s: %d runs, want %d of 1020", query, got, want)
		}
	}
}

func TestTheJobsOfARun(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	s.create(org, githubsim.RunnerSpec{Name: "a", Online: true, Group: 3})
	failed := s.queue(githubsim.JobSpec{Labels: []string{"self-hosted", "X64"}})
	s.queue(githubsim.JobSpec{RunID: 1, Name: "test"})
	const nobody = `"runner_id":null,"runner_name":null,"runner_group_id":null,"runner_group_name":null}`
	one := s.ask("GET", repoPath+"/jobs/1", "").body
	for _, part := range []string{
		`{"id":1,"run_id":1,"workflow_name":"CI","head_branch":"main",`, `"status":"queued","conclusion":null,"created_at":"2026-03-01T12:00:00Z","started_at":"2026-03-01T12:00:00Z","completed_at":null,"name":"build","steps":[],`,
		`"labels":["self-hosted","X64"],` + nobody,
	} {
		if !strings.Contains(one, part) {
			t.Errorf("queued: %s, want %s", one, part)
		}
	}
	must(t, s.RunJob(org, 1, failed))
	must(t, s.FinishJob(failed, "failure"))
	one = s.ask("GET", repoPath+"/jobs/1", "").body
	for _, part := range []string{`"status":"completed","conclusion":"failure"`, `"completed_at":"2026-03-01T12:00:00Z","name":"build"`, `"runner_id":1,"runner_name":"a","runner_group_id":3,"runner_group_name":"group-3"}`} {
		if !strings.Contains(one, part) {
			t.Errorf("completed: %s, want %s", one, part)
		}
	}
	must(t, s.FinishJob(2, "success"))
	must(t, s.Rerun(1))
	for query, want := range map[string]string{
		"":                      `{"total_count":2,"jobs":[{"id":2,`,
		"?filter=latest":        `{"total_count":2,"jobs":[{"id":2,`,
		"?filter=all":           `{"total_count":3,"jobs":[{"id":1,`,
		"?filter=all&page=2":    `{"total_count":3,"jobs":[]}`,
		"?per_page=1&page=2":    `{"total_count":2,"jobs":[{"id":3,`,
		"?per_page=200&page=-1": `{"total_count":2,"jobs":[{"id":2,`,
	} {
		if r := s.ask("GET", repoPath+"/runs/1/jobs"+query, ""); !strings.HasPrefix(r.body, want) {
			t.Errorf("jobs%s: %d %s, want %s", query, r.status, r.body, want)
		}
	}
	for _, path := range []string{repoPath + "/runs/9/jobs", repoPath + "/jobs/9", repoPath + "/jobs/x", repoPath + "/runs/1", "/api/v3/orgs/acme/actions/runs", "/api/v3/repos/acme/gadgets/actions/runs/1/jobs", "/api/v3/repos/acme/gadgets/actions/jobs/1"} {
		if r := s.ask("GET", path, ""); r.status != http.StatusNotFound {
			t.Errorf("GET %s = %d, want 404", path, r.status)
		}
	}
	s.Revoke(credential)
	if r := s.ask("GET", repoPath+"/runs", ""); r.status != http.StatusUnauthorized {
		t.Errorf("with a bad credential: %d", r.status)
	}
}

func TestWhatAnAppNeedsForJobsAndDeliveries(t *testing.T) {
	t.Parallel()
	s := startWithApp(t, githubsim.Config{Version: "3.19"}, map[string]string{"actions": "read", "organization_hooks": "write"})
	_, id := s.hook(org)
	s.Deliver(t.Context())
	s.queue(githubsim.JobSpec{})
	deliveries := fmt.Sprintf("/api/v3/orgs/acme/hooks/%d/deliveries", id)
	token := s.token(70, `{"permissions":{"actions":"read","organization_hooks":"read"}}`)
	for ask, want := range map[string]string{
		"GET " + repoPath + "/runs":                           "200 ",
		"GET " + repoPath + "/jobs/1":                         "200 ",
		"GET " + deliveries:                                   "200 ",
		"POST " + deliveries + "/1/attempts":                  "403 organization_hooks=write",
		"GET /api/v3/repos/acme/widgets/hooks/1/deliveries":   "403 repository_hooks=read",
		"GET /api/v3/repos/acme/secret/actions/runs":          "404 ",
		"GET /api/v3/orgs/acme/actions/runners?per_page=1":    "403 organization_self_hosted_runners=read",
		"GET /api/v3/repos/acme/widgets/actions/runs/1/jobs":  "200 ",
		"GET /api/v3/repos/acme/widgets/actions/runs/99/jobs": "404 ",
	} {
		method, path, _ := strings.Cut(ask, " ")
		r := s.ask(method, path, "", "Authorization", token)
		if got := fmt.Sprint(r.status, " ", r.header.Get("X-Accepted-GitHub-Permissions")); got != want {
			t.Errorf("%s: %s, want %s", ask, got, want)
		}
	}
}

func TestAnOrganisationsRepositoriesAreThoseThatHadAJob(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	for _, name := range []string{"acme/gadgets", "acme/widgets", "acme/gadgets"} {
		s.queue(githubsim.JobSpec{Repository: name})
	}
	r := s.ask("GET", "/api/v3/orgs/acme/repos?per_page=1", "")
	if !strings.Contains(r.body, `"full_name":"acme/gadgets"`) || strings.Contains(r.body, "acme/widgets") || !strings.Contains(r.header.Get("Link"), `/repos?page=2&per_page=1>; rel="next"`) {
		t.Errorf("%s, Link %s", r.body, r.header.Get("Link"))
	}
	if r := s.ask("GET", "/api/v3/orgs/acme/repos?per_page=1&page=2", ""); !strings.Contains(r.body, `"full_name":"acme/widgets"`) {
		t.Error(r.body)
	}
	if r := s.ask("GET", "/api/v3/repos/acme/widgets/repos", ""); r.status != http.StatusNotFound {
		t.Errorf("repositories of a repository: %d", r.status)
	}
}
