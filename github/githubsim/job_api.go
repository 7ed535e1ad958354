package githubsim

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/muster-fleet/muster/fleet"
)

// maxResults is how far a list of runs goes that is filtered.
const maxResults = 1000

type runJSON struct {
	ID         int64          `json:"id"`
	Name       string         `json:"name"`
	HeadBranch string         `json:"head_branch"`
	HeadSHA    string         `json:"head_sha"`
	Number     int64          `json:"run_number"`
	Attempt    int            `json:"run_attempt"`
	Event      string         `json:"event"`
	Status     JobState       `json:"status"`
	Conclusion *string        `json:"conclusion"`
	URL        string         `json:"url"`
	HTMLURL    string         `json:"html_url"`
	JobsURL    string         `json:"jobs_url"`
	CreatedAt  string         `json:"created_at"`
	UpdatedAt  string         `json:"updated_at"`
	Repository repositoryJSON `json:"repository"`
}

func (s *Sim) runJSON(run *workflowRun) runJSON {
	first := run.jobs[0]
	api, page := s.addresses(first.Repository)
	at := "/actions/runs/" + strconv.FormatInt(run.id, 10)
	out := runJSON{
		ID: run.id, Name: first.Workflow, HeadBranch: first.Branch, HeadSHA: commit(strconv.FormatInt(run.id, 10)),
		Number: run.id, Attempt: run.attempt, Event: "push", Status: run.status(),
		URL: api + at, HTMLURL: page + at, JobsURL: api + at + "/jobs",
		CreatedAt: instant(run.createdAt), UpdatedAt: instant(run.updatedAt), Repository: s.repositoryJSON(first.Repository),
	}
	if out.Status == JobCompleted {
		conclusion := run.conclusion()
		out.Conclusion = &conclusion
	}
	return out
}

// conclusion is the worst of the newest attempt's jobs.
func (run *workflowRun) conclusion() string {
	worst := "skipped"
	for _, of := range []string{"success", "neutral", "action_required", "cancelled", "timed_out", "failure"} {
		if slices.ContainsFunc(run.latest(), func(j *workflowJob) bool { return j.Conclusion == of }) {
			worst = of
		}
	}
	return worst
}

// listRepos answers with the repositories of an organisation that are known, by
// name: scopes, and those that a workflow job was queued for.
func (s *Sim) listRepos(r *http.Request, q query, st *scopeState) *answer {
	var names []string
	for _, repo := range s.byID {
		if repo.scope.Kind == fleet.ScopeRepo && strings.EqualFold(repo.scope.Owner, st.scope.Owner) {
			names = append(names, repo.scope.Owner+"/"+repo.scope.Repo)
		}
	}
	slices.Sort(names)
	params := r.URL.Query()
	page, perPage := paging(params)
	shown := make([]repositoryJSON, 0, perPage)
	for _, name := range pageSlice(names, page, perPage) {
		shown = append(shown, s.repositoryJSON(name))
	}
	return &answer{status: http.StatusOK, body: quote(shown), link: s.pageLinks(r, q, st, params, page, pageCount(len(names), perPage))}
}

// listRuns answers with the runs of a repository, the newest first. A filter by
// status, which takes conclusions too, ends the list after 1,000.
func (s *Sim) listRuns(r *http.Request, q query, st *scopeState) *answer {
	s.settleAll()
	params := r.URL.Query()
	filter := params.Get("status")
	var runs []*workflowRun
	for _, run := range s.flows.runs {
		if !strings.EqualFold(run.jobs[0].Repository, st.scope.Owner+"/"+st.scope.Repo) {
			continue
		}
		if status := run.status(); filter == "" || filter == string(status) || status == JobCompleted && filter == run.conclusion() {
			runs = append(runs, run)
		}
	}
	slices.SortFunc(runs, func(a, b *workflowRun) int { return int(b.id - a.id) })
	total := len(runs)
	if filter != "" {
		runs = runs[:min(total, maxResults)]
	}
	page, perPage := paging(params)
	shown := make([]runJSON, 0, perPage)
	for _, run := range pageSlice(runs, page, perPage) {
		shown = append(shown, s.runJSON(run))
	}
	return &answer{status: http.StatusOK, body: quote(struct {
		Total int       `json:"total_count"`
		Runs  []runJSON `json:"workflow_runs"`
	}{total, shown}), link: s.pageLinks(r, q, st, params, page, pageCount(len(runs), perPage))}
}

// listRunJobs answers with the jobs of a run: those of its newest attempt, or
// with filter=all those of all.
func (s *Sim) listRunJobs(r *http.Request, q query, st *scopeState) *answer {
	s.settleAll()
	run := s.flows.runs[q.ids[0]]
	if run == nil || !strings.EqualFold(run.jobs[0].Repository, st.scope.Owner+"/"+st.scope.Repo) {
		return s.notFound(q)
	}
	params := r.URL.Query()
	jobs := run.jobs
	if params.Get("filter") != "all" {
		jobs = run.latest()
	}
	page, perPage := paging(params)
	shown := make([]jobJSON, 0, perPage)
	for _, j := range pageSlice(jobs, page, perPage) {
		shown = append(shown, s.jobJSON(j))
	}
	return &answer{status: http.StatusOK, body: quote(struct {
		Total int       `json:"total_count"`
		Jobs  []jobJSON `json:"jobs"`
	}{len(jobs), shown}), link: s.pageLinks(r, q, st, params, page, pageCount(len(jobs), perPage))}
}

func (s *Sim) getJob(q query, st *scopeState) *answer {
	s.settleAll()
	j := s.flows.byID[q.ids[0]]
	if j == nil || !strings.EqualFold(j.Repository, st.scope.Owner+"/"+st.scope.Repo) {
		return s.notFound(q)
	}
	return &answer{status: http.StatusOK, body: quote(s.jobJSON(j))}
}

func pageSlice[T any](all []T, page, perPage int) []T {
	if page > pageCount(len(all), perPage) {
		return nil
	}
	return all[(page-1)*perPage : min(page*perPage, len(all))]
}

// pageLinks is the Link header of a list that is not of runners: its other
// parameters stay.
func (s *Sim) pageLinks(r *http.Request, q query, st *scopeState, params url.Values, page, last int) string {
	var all []string
	add := func(rel string, to int) {
		params.Set("page", strconv.Itoa(to))
		all = append(all, "<"+origin(r)+s.idPath(st)+"/"+q.rest+"?"+params.Encode()+`>; rel="`+rel+`"`)
	}
	eachLink(page, last, add)
	return strings.Join(all, ", ")
}
