package github

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	gh "github.com/google/go-github/v45/github"

	"github.com/muster-fleet/muster/fleet"
)

// wireRunner is a runner as servers of all versions send it. The fields that
// v45 does not know came with GitHub Enterprise Server 3.7 and later.
type wireRunner struct {
	gh.Runner
	GroupID   *int64  `json:"runner_group_id"`
	Ephemeral bool    `json:"ephemeral"`
	Version   *string `json:"version"`
}

// runner converts, or says what is missing. A runner without busy counts as
// busy. One without labels is refused: a label is what an operator marks
// runners with that must stay.
func (w *wireRunner) runner() (fleet.Runner, error) {
	switch {
	case w == nil:
		return fleet.Runner{}, errors.New("a runner is null")
	case w.GetID() <= 0:
		return fleet.Runner{}, errors.New("a runner has no id")
	case w.Labels == nil:
		return fleet.Runner{}, fmt.Errorf("runner %d has no labels field", w.GetID())
	}
	labels := make([]string, 0, len(w.Labels))
	for _, l := range w.Labels {
		if l.GetName() == "" {
			return fleet.Runner{}, fmt.Errorf("runner %d has a label without a name", w.GetID())
		}
		labels = append(labels, strings.ToLower(l.GetName()))
	}
	slices.Sort(labels)
	r := fleet.Runner{
		ID:        w.GetID(),
		Name:      w.GetName(),
		OS:        w.GetOS(),
		Status:    fleet.Status(w.GetStatus()),
		Busy:      w.Busy == nil || *w.Busy,
		Labels:    slices.Compact(labels),
		Ephemeral: w.Ephemeral,
	}
	if w.GroupID != nil {
		r.Group = strconv.FormatInt(*w.GroupID, 10)
	}
	if w.Version != nil {
		r.Version = *w.Version
	}
	return r, nil
}

// Runner looks one runner up. fleet.ErrNotFound means that it is gone only if
// CanList succeeds as well.
func (c *Client) Runner(ctx context.Context, scope fleet.Scope, id int64) (fleet.Runner, error) {
	o := runnerOperation(OpRunner, http.MethodGet, http.StatusOK, scope, id)
	var w wireRunner
	if _, err := c.do(ctx, o, &w); err != nil {
		return fleet.Runner{}, err
	}
	r, err := w.runner()
	if err == nil && r.ID != id {
		err = fmt.Errorf("answer is runner %d", r.ID)
	}
	if err != nil {
		return fleet.Runner{}, o.malformed(http.StatusOK, err.Error())
	}
	return r, nil
}

// RemoveRunner deletes a registration. It returns nil only if GitHub answered
// 204. fleet.ErrBusy means that GitHub refused because of a running workflow
// job; fleet.ErrUnavailable and fleet.ErrMalformed leave open whether the
// runner is gone.
func (c *Client) RemoveRunner(ctx context.Context, scope fleet.Scope, id int64) error {
	_, err := c.do(ctx, runnerOperation(OpRemoveRunner, http.MethodDelete, http.StatusNoContent, scope, id), nil)
	return err
}

func runnerOperation(op, method string, want int, scope fleet.Scope, id int64) operation {
	return operation{
		op: op, scope: scope, single: true, runnerID: id, method: method, want: want,
		path: "actions/runners/" + strconv.FormatInt(id, 10),
	}
}

// CanList reports whether the credential can list the runners of the scope: it
// tells a runner that is gone from a scope that cannot be seen, since GitHub
// answers 404 to both.
func (c *Client) CanList(ctx context.Context, scope fleet.Scope) error {
	_, err := c.page(ctx, OpCanList, scope, 1, 1)
	return err
}
