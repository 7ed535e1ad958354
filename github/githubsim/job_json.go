package githubsim

import (
	"cmp"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// jobJSON is a workflow job as the API and the event have it.
type jobJSON struct {
	ID           int64      `json:"id"`
	RunID        int64      `json:"run_id"`
	WorkflowName string     `json:"workflow_name"`
	HeadBranch   string     `json:"head_branch"`
	RunURL       string     `json:"run_url"`
	RunAttempt   int        `json:"run_attempt"`
	NodeID       string     `json:"node_id"`
	HeadSHA      string     `json:"head_sha"`
	URL          string     `json:"url"`
	HTMLURL      string     `json:"html_url"`
	Status       JobState   `json:"status"`
	Conclusion   *string    `json:"conclusion"`
	CreatedAt    string     `json:"created_at"`
	StartedAt    string     `json:"started_at"`
	CompletedAt  *string    `json:"completed_at"`
	Name         string     `json:"name"`
	Steps        []stepJSON `json:"steps"`
	CheckRunURL  string     `json:"check_run_url"`
	Labels       []string   `json:"labels"`
	RunnerID     *int64     `json:"runner_id"`
	RunnerName   *string    `json:"runner_name"`
	GroupID      *int64     `json:"runner_group_id"`
	GroupName    *string    `json:"runner_group_name"`
}

type stepJSON struct {
	Name        string  `json:"name"`
	Status      string  `json:"status"`
	Conclusion  *string `json:"conclusion"`
	Number      int     `json:"number"`
	StartedAt   *string `json:"started_at"`
	CompletedAt *string `json:"completed_at"`
}

// instant is how GitHub writes times.
func instant(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// addresses are where the API and the pages of a repository are.
func (s *Sim) addresses(repository string) (api, page string) {
	return s.web.origin + s.prefix + "/repos/" + repository, s.web.origin + "/" + repository
}

func (s *Sim) jobJSON(j *workflowJob) jobJSON {
	api, page := s.addresses(j.Repository)
	id, run := strconv.FormatInt(j.ID, 10), strconv.FormatInt(j.RunID, 10)
	out := jobJSON{
		ID: j.ID, RunID: j.RunID, WorkflowName: j.Workflow, HeadBranch: j.Branch,
		RunURL: api + "/actions/runs/" + run, RunAttempt: j.Attempt,
		NodeID: fmt.Sprintf("CR_kwDO%09d", j.ID), HeadSHA: commit(run),
		URL: api + "/actions/jobs/" + id, HTMLURL: page + "/actions/runs/" + run + "/job/" + id,
		Status: j.State, CreatedAt: instant(j.CreatedAt), StartedAt: instant(j.CreatedAt),
		Name: j.Name, Steps: []stepJSON{}, CheckRunURL: api + "/check-runs/" + id, Labels: j.Labels,
	}
	if !j.StartedAt.IsZero() {
		// Until it is in progress no runner is named, though one may have it.
		out.RunnerID, out.RunnerName, out.GroupID, out.GroupName = &j.RunnerID, &j.RunnerName, &j.RunnerGroup, &j.group
		out.StartedAt = instant(j.StartedAt)
		out.Steps = append(out.Steps, stepJSON{Name: "Set up job", Status: "in_progress", Number: 1, StartedAt: &out.StartedAt})
	}
	if j.State == JobCompleted {
		at := instant(j.CompletedAt)
		out.Conclusion, out.CompletedAt = &j.Conclusion, &at
		for i := range out.Steps {
			of := "success"
			if j.Conclusion != of {
				of = "failure"
			}
			out.Steps[i].Status, out.Steps[i].Conclusion, out.Steps[i].CompletedAt = "completed", &of, &at
		}
	}
	return out
}

// commit makes up the hash of a commit.
func commit(of string) string {
	sum := sha1.Sum([]byte(of))
	return hex.EncodeToString(sum[:])
}

type accountJSON struct {
	ID    int64  `json:"id"`
	Login string `json:"login"`
	Type  string `json:"type,omitempty"`
	URL   string `json:"url,omitempty"`
}

type repositoryJSON struct {
	ID       int64       `json:"id"`
	Name     string      `json:"name"`
	FullName string      `json:"full_name"`
	Private  bool        `json:"private"`
	Owner    accountJSON `json:"owner"`
	HTMLURL  string      `json:"html_url"`
	URL      string      `json:"url"`
	Branch   string      `json:"default_branch"`
}

// repositoryJSON is a repository as the API has it inside of other things. One
// that is no scope has no id, and is private.
func (s *Sim) repositoryJSON(full string) repositoryJSON {
	owner, name, _ := strings.Cut(full, "/")
	api, page := s.addresses(full)
	out := repositoryJSON{
		Name: name, FullName: full, Private: true, HTMLURL: page, URL: api, Branch: "main",
		Owner: s.ownerJSON(owner),
	}
	if st := s.scopes[key(fleet.Scope{Kind: fleet.ScopeRepo, Owner: owner, Repo: name})]; st != nil {
		out.ID, out.Private = st.id, !st.public
	}
	return out
}

func (s *Sim) ownerJSON(login string) accountJSON {
	out := accountJSON{Login: login, Type: "Organization"}
	if st := s.scopes[key(fleet.Scope{Kind: fleet.ScopeOrg, Owner: login})]; st != nil {
		out.ID = st.id
	}
	return out
}

// eventJSON is what all events have, and the thing that they are about.
type eventJSON struct {
	Action       string          `json:"action"`
	WorkflowJob  *jobJSON        `json:"workflow_job,omitempty"`
	CheckRun     *checkRunJSON   `json:"check_run,omitempty"`
	Repository   repositoryJSON  `json:"repository"`
	Organization accountJSON     `json:"organization"`
	Enterprise   *enterpriseJSON `json:"enterprise,omitempty"`
	Sender       accountJSON     `json:"sender"`
	Installation *struct {
		ID int64 `json:"id"`
	} `json:"installation,omitempty"`
}

type enterpriseJSON struct {
	ID   int64  `json:"id"`
	Slug string `json:"slug"`
	Name string `json:"name"`
}

// checkRunJSON is what a job is to those that know no workflow jobs: nothing in
// it tells which runner it wants.
type checkRunJSON struct {
	ID          int64    `json:"id"`
	Name        string   `json:"name"`
	HeadSHA     string   `json:"head_sha"`
	URL         string   `json:"url"`
	HTMLURL     string   `json:"html_url"`
	Status      JobState `json:"status"`
	Conclusion  *string  `json:"conclusion"`
	StartedAt   string   `json:"started_at"`
	CompletedAt *string  `json:"completed_at"`
}

// eventOf is what an event about a job tells a hook, now.
func (s *Sim) eventOf(j *workflowJob, event, action string, h *webhook) []byte {
	owner, _, _ := strings.Cut(j.Repository, "/")
	e := eventJSON{
		Action: action, Repository: s.repositoryJSON(j.Repository), Organization: s.ownerJSON(owner),
		Sender: accountJSON{ID: 1, Login: "octocat", Type: "User"},
	}
	e.Organization.Type = ""
	if j.in.scope.Kind == fleet.ScopeEnterprise {
		e.Enterprise = &enterpriseJSON{j.in.id, j.in.scope.Owner, j.in.scope.Owner}
	}
	if h.Installation != 0 {
		e.Installation = &struct {
			ID int64 `json:"id"`
		}{h.Installation}
	}
	job := s.jobJSON(j)
	if event == eventWorkflowJob {
		job.Status = JobState(cmp.Or(action, string(job.Status)))
		e.WorkflowJob = &job
	} else {
		e.CheckRun = &checkRunJSON{
			job.ID, job.Name, job.HeadSHA, job.CheckRunURL, job.HTMLURL, job.Status, job.Conclusion, job.StartedAt, job.CompletedAt,
		}
	}
	body, err := json.Marshal(e)
	if err != nil {
		panic(err) // nothing in it that cannot be
	}
	return body
}
