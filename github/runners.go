package github

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/muster-fleet/muster/fleet"
)

const (
	// maxRunnerText bounds a text that is kept of a runner, in bytes. GitHub
	// allows 64 characters for a name and 256 for a label; what is longer than
	// package policies takes stays longer.
	maxRunnerText = 1100
	// maxRunnerLabels bounds the labels of a runner. GitHub allows 100.
	maxRunnerLabels = 200
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
	Ephemeral *bool       `json:"ephemeral"`
	Version   string      `json:"version"`

	// wrong says which field has another type than expected; empty: none has.
	wrong string
}

// wireLabel leaves out ids, which today's github.com gives as 0 for all, and
// types.
type wireLabel struct {
	Name string `json:"name"`
}

// lenient decodes a runner field by field, so that a field of another type
// costs that field alone. It is for the items that do not decode as a whole.
func lenient(raw json.RawMessage) wireRunner {
	var fields map[string]json.RawMessage
	var w wireRunner
	if err := json.Unmarshal(raw, &fields); err != nil {
		w.wrong = "it is not an object"
		return w
	}
	for _, f := range []struct {
		name string
		into any
	}{
		{"id", &w.ID}, {"name", &w.Name}, {"os", &w.OS}, {"status", &w.Status}, {"busy", &w.Busy}, {"labels", &w.Labels},
		{"runner_group_id", &w.GroupID}, {"ephemeral", &w.Ephemeral}, {"version", &w.Version},
	} {
		text, has := fields[f.name]
		if !has {
			continue
		}
		if err := json.Unmarshal(text, f.into); err != nil && w.wrong == "" {
			w.wrong = f.name + " has the wrong type"
		}
	}
	return w
}

// runner converts what GitHub shows. What GitHub does not say stays empty, and
// a runner without busy counts as busy. Unreadable says what could not be read.
// A runner without an id is nobody: its ID is 0.
func (w *wireRunner) runner(sets *labelSets) fleet.Runner {
	labels, named := sets.of(w.Labels)
	r := fleet.Runner{
		ID:      w.ID,
		Name:    fleet.CleanText(w.Name, maxRunnerText),
		OS:      system(fleet.CleanText(w.OS, maxRunnerText)),
		Status:  status(w.Status),
		Busy:    w.Busy == nil || *w.Busy,
		Labels:  labels,
		Version: fleet.CleanText(w.Version, maxRunnerText),
	}
	if w.Ephemeral != nil {
		r.Ephemeral = fleet.KnownAs(*w.Ephemeral)
	}
	if w.GroupID != nil && *w.GroupID > 0 {
		r.Group = strconv.FormatInt(*w.GroupID, 10)
	}
	switch {
	case w.ID <= 0:
		r.ID, r.Unreadable = 0, cmp.Or(w.wrong, "it is null or has no id")
	case w.wrong != "":
		r.Unreadable = w.wrong
	case r.Status == "":
		r.Unreadable = "status is missing"
	case w.Labels == nil:
		r.Unreadable = "labels is missing"
	case !named:
		r.Unreadable = "a label has no name"
	case len(w.Labels) > maxRunnerLabels:
		r.Unreadable = fmt.Sprintf("%d labels are too many", len(w.Labels))
	}
	return r
}

// status is GitHub's word for a connection, as it can be recorded; empty where
// GitHub does not know.
func status(said string) fleet.Status {
	word := fleet.CleanText(said, maxRunnerText)
	if strings.EqualFold(word, "unknown") {
		return ""
	}
	return fleet.Status(word)
}

// labelSets keeps each set of labels once: a fleet has few. The zero value is
// ready, and safe for concurrent use. Nobody may change what it gives.
type labelSets struct {
	mu   sync.Mutex
	sets map[string][]string // by the names as they came, each behind its length
	key  []byte
}

// of gives the names as they can be recorded, in lower case, sorted, each once.
// Where one has no name, or there are too many, the labels are not known: it
// gives none, and false.
func (l *labelSets) of(wire []wireLabel) ([]string, bool) {
	switch {
	case len(wire) == 0:
		return nil, true
	case len(wire) > maxRunnerLabels:
		return nil, false
	}
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
		set = append(set, strings.ToLower(fleet.CleanText(wire[i].Name, maxRunnerText)))
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
// CanList succeeds as well. An answer that cannot be read in full is
// fleet.ErrMalformed: a last look needs all of it.
func (c *Client) Runner(ctx context.Context, scope fleet.Scope, id int64) (fleet.Runner, error) {
	o := runnerOperation(OpRunner, http.MethodGet, http.StatusOK, scope, id)
	r, err := c.runner(ctx, o)
	if err == nil && r.Unreadable != "" {
		return fleet.Runner{}, o.malformed(http.StatusOK, fmt.Sprintf("runner %d: %s", id, r.Unreadable))
	}
	return r, err
}

// Confirm is Runner for those who can do without: before the limits of the
// credential stop Runner they stop Confirm. It gives also what cannot be read in
// full, since that proves that the runner is there.
func (c *Client) Confirm(ctx context.Context, scope fleet.Scope, id int64) (fleet.Runner, error) {
	return c.runner(ctx, runnerOperation(OpConfirm, http.MethodGet, http.StatusOK, scope, id))
}

func (c *Client) runner(ctx context.Context, o operation) (fleet.Runner, error) {
	var raw json.RawMessage
	if _, err := c.do(ctx, o, decoded{&raw}); err != nil {
		return fleet.Runner{}, err
	}
	var w wireRunner
	if err := json.Unmarshal(raw, &w); err != nil {
		w = lenient(raw)
	}
	r := w.runner(new(labelSets))
	switch {
	case r.ID == 0:
		return fleet.Runner{}, o.malformed(http.StatusOK, "the runner: "+r.Unreadable)
	case r.ID != o.runnerID:
		return fleet.Runner{}, o.malformed(http.StatusOK, fmt.Sprintf("answer is runner %d", r.ID))
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
