package githubsim

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	"github.com/muster-fleet/muster/fleet"
)

// jobFields are the fields of commands about workflow jobs and webhooks, beside
// those that other commands have too.
type jobFields struct {
	Job        int64    `json:"job"`
	Run        int64    `json:"run"`
	Hook       int64    `json:"hook"`
	Repository string   `json:"repository"`
	Workflow   string   `json:"workflow"`
	Branch     string   `json:"branch"`
	Waiting    bool     `json:"waiting"`
	Skipped    bool     `json:"skipped"`
	Conclusion string   `json:"conclusion"`
	URL        string   `json:"url"`
	Secret     string   `json:"secret"`
	Events     []string `json:"events"`
}

const (
	queueTakes = "scope! repository labels run name workflow branch waiting skipped count"
	hookTakes  = "scope! url! secret events installation"
)

// commandQueueJob queues one workflow job, or count of them.
func (s *Sim) commandQueueJob(c command, scope fleet.Scope) (any, error) {
	jobs := []int64{}
	for range max(c.Count, 1) {
		id, err := s.QueueJob(scope, JobSpec{
			Repository: c.Repository, Labels: c.Labels, RunID: c.Run, Name: c.Name,
			Workflow: c.Workflow, Branch: c.Branch, Waiting: c.Waiting, Skipped: c.Skipped,
		})
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, id)
	}
	return map[string]any{"jobs": jobs}, nil
}

func (s *Sim) commandRunJob(c command, scope fleet.Scope) (any, error) {
	runner, err := s.oneRunner(c, scope, "run-job")
	if err != nil {
		return nil, err
	}
	return nil, s.RunJob(scope, runner, c.Job)
}

func (s *Sim) commandMoveJob(c command, scope fleet.Scope) (any, error) {
	runner, err := s.oneRunner(c, scope, "move-job")
	if err != nil {
		return nil, err
	}
	return nil, s.MoveJob(scope, runner, c.Job)
}

// oneRunner is the id of the only runner that a command names.
func (s *Sim) oneRunner(c command, scope fleet.Scope, name string) (int64, error) {
	ids, err := s.ids(c, scope)
	if err != nil {
		return 0, err
	}
	if len(ids) != 1 {
		return 0, fmt.Errorf("%w: %s: want one of ids or names", errCommand, name)
	}
	return ids[0], nil
}

func (s *Sim) commandFinishJob(c command, _ fleet.Scope) (any, error) {
	if c.Conclusion == "" {
		c.Conclusion = "success"
	}
	return nil, s.FinishJob(c.Job, c.Conclusion)
}

func (s *Sim) commandDispatch(_ command, scope fleet.Scope) (any, error) {
	n, err := s.Dispatch(scope)
	return map[string]any{"assigned": n}, err
}

func (s *Sim) commandHook(c command, scope fleet.Scope) (any, error) {
	id, err := s.AddHook(Hook{Scope: scope, URL: c.URL, Secret: c.Secret, Events: c.Events, Installation: c.Installation})
	if err != nil {
		return nil, err
	}
	return map[string]any{"hook": id}, nil
}

// commandDeliver sends what is due, where that does not go out by itself.
func (s *Sim) commandDeliver(command, fleet.Scope) (any, error) {
	return map[string]any{"requests": s.Deliver(context.Background())}, nil
}

// MarshalJSON has the scope as everywhere in the control API.
func (j Job) MarshalJSON() ([]byte, error) {
	type fields Job
	return json.Marshal(struct {
		fields
		Scope string `json:"scope"`
	}{fields(j), j.Scope.String()})
}

// controlDeliveries answers with what a hook was sent.
func (s *Sim) controlDeliveries(w http.ResponseWriter, r *http.Request) {
	text := r.URL.Query().Get("hook")
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		reply(w, nil, fmt.Errorf("%w: hook %q: want the number of a hook", errCommand, text))
		return
	}
	all := s.Deliveries(id)
	if all == nil {
		reply(w, nil, fmt.Errorf("hook %d: %w", id, fleet.ErrNotFound))
		return
	}
	reply(w, all, nil)
}
