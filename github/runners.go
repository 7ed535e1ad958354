package github

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/muster-fleet/muster/fleet"
)

// wireRunner is a runner as servers of all versions send it. It is a struct of
// our own, and not go-github's of pointers, because a listing has a hundred
// thousand of them; what v45 does not know came with GitHub Enterprise Server
// 3.7 and later. A null is as good as a field that is absent.
type wireRunner struct {
	ID        int64       `json:"id"`
	Name      string      `json:"name"`
	OS        string      `json:"os"`
	Status    string      `json:"status"`
	Busy      *bool       `json:"busy"`
	Labels    []wireLabel `json:"labels"`
	GroupID   *int64      `json:"runner_group_id"`
	Ephemeral bool        `json:"ephemeral"`
	Version   string      `json:"version"`
}

// wireLabel leaves out ids, which today's github.com gives as 0 for all, and
// types.
type wireLabel struct {
	Name string `json:"name"`
}

// runner converts, or says what is missing. A runner without busy counts as
// busy. One without labels is refused: a label is what an operator marks
// runners with that must stay.
func (w *wireRunner) runner(sets *labelSets) (fleet.Runner, error) {
	switch {
	case w.ID <= 0:
		return fleet.Runner{}, errors.New("a runner is null or has no id")
	case w.Labels == nil:
		return fleet.Runner{}, fmt.Errorf("runner %d has no labels field", w.ID)
	}
	labels, ok := sets.of(w.Labels)
	if !ok {
		return fleet.Runner{}, fmt.Errorf("runner %d has a label without a name", w.ID)
	}
	r := fleet.Runner{
		ID:        w.ID,
		Name:      w.Name,
		OS:        system(w.OS),
		Status:    fleet.Status(w.Status),
		Busy:      w.Busy == nil || *w.Busy,
		Labels:    labels,
		Ephemeral: w.Ephemeral,
		Version:   w.Version,
	}
	if w.GroupID != nil {
		r.Group = strconv.FormatInt(*w.GroupID, 10)
	}
	return r, nil
}

// labelSets keeps each set of labels once: a fleet has few. The zero value is
// ready, and safe for concurrent use. Nobody may change what it gives.
type labelSets struct {
	mu   sync.Mutex
	sets map[string][]string // by the names as they came, each behind its length
	key  []byte
}

// of gives the names in lower case, sorted, each once; false where one is
// missing.
func (l *labelSets) of(wire []wireLabel) ([]string, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.key = l.key[:0]
	for i := range wire {
		if wire[i].Name == "" {
			return nil, false
		}
		l.key = binary.AppendUvarint(l.key, uint64(len(wire[i].Name)))
		l.key = append(l.key, wire[i].Name...)
	}
	if set, ok := l.sets[string(l.key)]; ok {
		return set, true
	}
	set := make([]string, 0, len(wire))
	for i := range wire {
		set = append(set, strings.ToLower(wire[i].Name))
	}
	slices.Sort(set)
	set = slices.Clip(slices.Compact(set))
	if l.sets == nil {
		l.sets = make(map[string][]string)
	}
	l.sets[string(l.key)] = set
	return set, true
}

// Runner looks one runner up. fleet.ErrNotFound means that it is gone only if
// CanList succeeds as well.
func (c *Client) Runner(ctx context.Context, scope fleet.Scope, id int64) (fleet.Runner, error) {
	return c.runner(ctx, runnerOperation(OpRunner, http.MethodGet, http.StatusOK, scope, id))
}

// Confirm is Runner for those who can do without: before the limits of the
// credential stop Runner they stop Confirm.
func (c *Client) Confirm(ctx context.Context, scope fleet.Scope, id int64) (fleet.Runner, error) {
	return c.runner(ctx, runnerOperation(OpConfirm, http.MethodGet, http.StatusOK, scope, id))
}

func (c *Client) runner(ctx context.Context, o operation) (fleet.Runner, error) {
	var w wireRunner
	if _, err := c.do(ctx, o, decoded{&w}); err != nil {
		return fleet.Runner{}, err
	}
	r, err := w.runner(new(labelSets))
	if err == nil && r.ID != o.runnerID {
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
//
// The reason for a deletion may end while the request waits for its turn.
// confirm is therefore called right before the request is sent, and again before
// each repetition. Its error is returned as it is, and then nothing is sent. Nil:
// nobody is asked.
func (c *Client) RemoveRunner(ctx context.Context, scope fleet.Scope, id int64, confirm func(context.Context) error) error {
	o := runnerOperation(OpRemoveRunner, http.MethodDelete, http.StatusNoContent, scope, id)
	o.confirm = confirm
	_, err := c.do(ctx, o, nil)
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
	_, err := c.page(ctx, ask{op: OpCanList, scope: scope, number: 1, size: 1})
	return err
}
