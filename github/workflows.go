package github

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/muster-fleet/muster/fleet"
)

// WorkflowRun is what a listing of runs tells of one.
type WorkflowRun struct {
	ID int64
	// State is in GitHub's words, of which there are more than those of jobs;
	// empty where GitHub does not say.
	State fleet.WorkflowJobState
}

type wireWorkflowRun struct {
	ID     int64  `json:"id"`
	Status string `json:"status"`
}

// WorkflowRuns is a listing of the runs of a repository in a state.
type WorkflowRuns struct {
	Runs []WorkflowRun // those that are not over
	// Lacks says why there may be others; empty: these are all.
	Lacks string
}

// mostRuns is how many runs in one state GitHub lists: the newest.
const mostRuns = 1000

// WorkflowRuns lists the runs of a repository that are in a state. GitHub's index
// of states lags: a run that has moved on stands in the list with the state that
// it is in by now, and is taken as what it says it is. A server that does not heed
// the state lists all there are, which is as good where it is not more than can be
// listed. Charged is how many requests it took of the hour's: a list that is as it
// was takes none.
func (c *Client) WorkflowRuns(ctx context.Context, repo fleet.Scope, state fleet.WorkflowJobState) (list WorkflowRuns, charged int, err error) {
	listed, lacks, charged, err := whole[wireWorkflowRun, WorkflowRun]{
		op: OpWorkflowRuns, scope: repo, path: "actions/runs?status=" + string(state), of: "workflow_runs", most: mostRuns,
		read: func(w *wireWorkflowRun) (WorkflowRun, error) {
			if w.ID <= 0 {
				return WorkflowRun{}, errors.New("a run has no id")
			}
			// A run without a status counts as open: its jobs say what it is.
			return WorkflowRun{w.ID, fleet.WorkflowJobState(w.Status)}, nil
		},
		id:   func(r WorkflowRun) int64 { return r.ID },
		kept: &c.runs,
	}.shown(ctx, c)
	if err != nil {
		return WorkflowRuns{}, charged, err
	}
	open := slices.DeleteFunc(listed, func(r WorkflowRun) bool { return r.State == fleet.WorkflowJobCompleted })
	if lacks != "" {
		lacks = fmt.Sprintf("list the %s runs of %s: %s", state, repo, lacks)
	}
	return WorkflowRuns{open, lacks}, charged, nil
}

// WorkflowJobs lists the workflow jobs of a run, or those of its newest attempt:
// all of them or, with an error, those that could be read. They are without a Target, and without a
// State where it is one that muster does not know. Charged is how many requests it
// took of the hour's.
func (c *Client) WorkflowJobs(ctx context.Context, repo fleet.Scope, run int64, attempts WorkflowAttempts) (jobs []fleet.WorkflowJob, charged int, err error) {
	return whole[wireWorkflowJob, fleet.WorkflowJob]{
		op: OpWorkflowJobs, scope: repo, of: "jobs",
		path: "actions/runs/" + strconv.FormatInt(run, 10) + "/jobs?filter=" + string(attempts),
		read: func(w *wireWorkflowJob) (fleet.WorkflowJob, error) { return w.listed(repo) },
		id:   func(j fleet.WorkflowJob) int64 { return j.ID },
	}.list(ctx, c)
}

// WorkflowAttempts are those of a run whose jobs are wanted.
type WorkflowAttempts string

// The attempts, in GitHub's words.
const (
	LatestAttempt WorkflowAttempts = "latest"
	AllAttempts   WorkflowAttempts = "all"
)

// WorkflowJob looks one workflow job up. fleet.ErrNotFound means that it is
// gone only if the repository's runs can be listed as well.
func (c *Client) WorkflowJob(ctx context.Context, repo fleet.Scope, id int64) (fleet.WorkflowJob, error) {
	o := operation{
		op: OpWorkflowJob, scope: repo, method: http.MethodGet, want: http.StatusOK, path: "actions/jobs/" + strconv.FormatInt(id, 10),
	}
	var w wireWorkflowJob
	if _, err := c.do(ctx, o, decoded{&w}); err != nil {
		return fleet.WorkflowJob{}, err
	}
	j, err := w.listed(repo)
	if err == nil && j.ID != id {
		err = fmt.Errorf("answer is workflow job %d", j.ID)
	}
	if err != nil {
		return fleet.WorkflowJob{}, o.malformed(http.StatusOK, err.Error())
	}
	return j, nil
}

// listed converts a workflow job that a listing shows, or says what is wrong.
func (w *wireWorkflowJob) listed(repo fleet.Scope) (fleet.WorkflowJob, error) {
	j, err := w.job(fleet.WorkflowJobState(w.Status))
	if err != nil {
		return j, fmt.Errorf("workflow job %d: %w", w.ID, err)
	}
	j.Repository = repo.Owner + "/" + repo.Repo
	return j, nil
}

// Repository is what a listing of an organisation's repositories tells of one.
type Repository struct {
	fleet.Scope
	Public bool // neither private nor internal; false too where GitHub does not say
}

type wireRepository struct {
	Name     string `json:"name"`
	Private  *bool  `json:"private"`
	Archived bool   `json:"archived"`
	Disabled bool   `json:"disabled"`
	Owner    struct {
		Login string `json:"login"`
	} `json:"owner"`
}

// repository converts, or says what is wrong.
func (w *wireRepository) repository(org fleet.Scope) (Repository, error) {
	repo := fleet.Scope{Kind: fleet.ScopeRepo, Owner: org.Owner, Repo: w.Name}
	if strings.EqualFold(w.Owner.Login, org.Owner) {
		repo.Owner = w.Owner.Login // as events write it
	}
	public := w.Private != nil && !*w.Private
	return Repository{repo, public}, repo.Valid()
}

// Repositories lists the repositories of an organisation that can have runs:
// all that the credential may see or, with an error, none. A repository that
// cannot be read, for example since its name is no GitHub name, costs itself
// alone: unread names it, with the reason. A classic token without the scope repo
// is fleet.ErrForbidden: GitHub shows it the public ones as if they were all.
func (c *Client) Repositories(ctx context.Context, org fleet.Scope) (all []Repository, unread []string, err error) {
	seen := 0
	for number := 1; number <= maxPages; number++ {
		o := operation{
			op: OpRepositories, scope: org, method: http.MethodGet, want: http.StatusOK,
			path: fmt.Sprintf("repos?sort=full_name&per_page=%d&page=%d", perPage, number),
		}
		var page []json.RawMessage
		header, err := c.do(ctx, o, decoded{&page})
		if err != nil {
			return nil, nil, err
		}
		if scopes, classic := header["X-Oauth-Scopes"]; classic && !slices.Contains(words(strings.Join(scopes, ",")), "repo") {
			e := o.fail(fleet.ErrForbidden, "the token's OAuth scopes lack repo, so that private repositories are left out", nil)
			e.Status = http.StatusOK
			return nil, nil, e
		}
		for i, raw := range page {
			idle := false
			repo, err := element(raw, func(w *wireRepository) (Repository, error) {
				idle = w.Archived || w.Disabled
				return w.repository(org)
			})
			switch {
			case idle:
				seen++
			case err != nil:
				unread = append(unread, clean(fmt.Sprintf("repository %d of page %d: %v", i+1, number, err)))
			default:
				seen++
				all = append(all, repo)
			}
		}
		if len(page) == 0 || nextPage(header) == nil {
			break
		}
	}
	if seen == 0 && len(unread) > 0 {
		return nil, nil, operation{op: OpRepositories, scope: org}.malformed(http.StatusOK, unread[0])
	}
	return all, unread, nil
}
