package githubsim

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// span is a duration in a command, such as "1m30s".
type span time.Duration

func (d *span) UnmarshalJSON(text []byte) error {
	var s string
	if json.Unmarshal(text, &s) != nil {
		return errors.New(`want a duration such as "1m30s"`)
	}
	parsed, err := time.ParseDuration(s)
	*d = span(parsed)
	return err
}

func (d span) MarshalJSON() ([]byte, error) { return quote(time.Duration(d).String()), nil }

// faultFields are the fields of a Fault in commands and in what is told of it,
// beside the scope and those that other commands have too.
type faultFields struct {
	Kind        FaultKind `json:"kind,omitempty"`
	Method      string    `json:"method,omitempty"`
	Path        string    `json:"path,omitempty"`
	Nth         int       `json:"nth,omitempty"`
	Every       int       `json:"every,omitempty"`
	Probability float64   `json:"probability,omitempty"`
	For         span      `json:"for,omitzero"`
	Status      int       `json:"status,omitempty"`
	RetryAfter  span      `json:"wait,omitzero"`
	Delay       span      `json:"delay,omitzero"`
	Age         span      `json:"age,omitzero"`
	Skew        span      `json:"skew,omitzero"`
	Body        string    `json:"body,omitempty"`
	Field       string    `json:"field,omitempty"`
	By          int       `json:"by,omitempty"`
	Rows        int       `json:"rows,omitempty"`
	Label       string    `json:"label,omitempty"`
	Event       string    `json:"event,omitempty"`
}

const faultTakes = "kind! method path scope nth every probability count for status wait delay age skew body field by rows ids names label event"

// commandFault injects and answers with the number that unfault takes.
func (s *Sim) commandFault(c command, scope fleet.Scope) (any, error) {
	var ids []int64
	if len(c.IDs)+len(c.Names) > 0 {
		var err error
		if ids, err = s.ids(c, scope); err != nil {
			return nil, err
		}
	}
	id, err := s.inject(Fault{
		Kind: c.Kind, Method: c.Method, Path: c.Path, Scope: scope,
		Nth: c.Nth, Every: c.Every, Probability: c.Probability, Count: c.Count, For: time.Duration(c.For),
		Status: c.Status, RetryAfter: time.Duration(c.RetryAfter), Delay: time.Duration(c.Delay),
		Age: time.Duration(c.Age), Skew: time.Duration(c.Skew),
		Body: c.Body, Field: c.Field, By: c.By, Rows: c.Rows, IDs: ids, Label: c.Label, Event: c.Event,
	})
	if err != nil {
		return nil, err
	}
	return map[string]any{"fault": id}, nil
}

// commandUnfault ends one fault, or all where none is named.
func (s *Sim) commandUnfault(c command, _ fleet.Scope) (any, error) {
	if !s.mend(c.Fault) && c.Fault != 0 {
		return nil, fmt.Errorf("fault %d: %w", c.Fault, fleet.ErrNotFound)
	}
	return nil, nil
}

// MarshalJSON has the names that the command fault takes.
func (a ActiveFault) MarshalJSON() ([]byte, error) {
	f := a.Fault
	return json.Marshal(struct {
		ID int64 `json:"fault"`
		faultFields
		Scope  string  `json:"scope,omitempty"`
		Count  int     `json:"count,omitempty"`
		IDs    []int64 `json:"ids,omitempty"`
		Seen   int     `json:"seen"`
		Struck int     `json:"struck"`
	}{
		a.ID,
		faultFields{
			f.Kind, f.Method, f.Path, f.Nth, f.Every, f.Probability, span(f.For), f.Status, span(f.RetryAfter),
			span(f.Delay), span(f.Age), span(f.Skew), f.Body, f.Field, f.By, f.Rows, f.Label, f.Event,
		},
		scopeText(f.Scope), f.Count, f.IDs, a.Seen, a.Struck,
	})
}
