package worker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/queue"
)

// parse reads the trigger that the message is. What cannot be a trigger comes
// back with an error and as much of it as could be read; Job and Name are
// empty or good to be recorded.
func (e *Engine) parse(m queue.Message) (fleet.Trigger, error) {
	t := fleet.Trigger{ID: m.TriggerID, Source: m.Source}
	job, name, ok := fleet.SplitSubject(m.Subject)
	if !ok {
		return t, fmt.Errorf("subject %q: want %sJOB.NAME", fleet.CleanText(m.Subject, maxSubject), fleet.TriggerPrefix)
	}
	if e.Handlers[job] == nil {
		return t, fmt.Errorf("subject %q: unknown job %q; want one of %s", fleet.CleanText(m.Subject, maxSubject), fleet.CleanText(string(job), maxSubject), e.jobs())
	}
	t.Job = job
	if !fleet.ValidName(name) {
		return t, fmt.Errorf("subject %q: %q cannot be a name", fleet.CleanText(m.Subject, maxSubject), fleet.CleanText(name, maxSubject))
	}
	t.Name = name
	if err := e.configured(t); err != nil {
		return t, err
	}
	reason, err := parseBody(m.Body)
	t.Reason = reason
	return t, err
}

func (e *Engine) configured(t fleet.Trigger) error {
	switch {
	case t.Name == fleet.All:
		return nil
	case !t.Job.Named():
		return fmt.Errorf("job %s has no names: want %s", t.Job, fleet.Trigger{Job: t.Job, Name: fleet.All}.Subject())
	case !slices.Contains(e.Names(t.Job), t.Name):
		return fmt.Errorf("job %s knows no %q: it is not in the configuration", t.Job, t.Name)
	}
	return nil
}

func (e *Engine) jobs() string {
	var names []string
	for job := range e.Handlers {
		names = append(names, string(job))
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// parseBody returns the reason that the body gives; an empty body gives none.
func parseBody(body []byte) (string, error) {
	if len(body) > queue.MaxBody {
		return "", fmt.Errorf("body has %d bytes: want at most %d", len(body), queue.MaxBody)
	}
	if !utf8.Valid(body) {
		return "", errors.New("body is not UTF-8")
	}
	if body = bytes.TrimSpace(body); len(body) == 0 {
		return "", nil
	}
	// A map, as a struct would also take "Reason" for "reason".
	var fields map[string]any
	if err := json.Unmarshal(body, &fields); err != nil {
		return "", fmt.Errorf(`body: %w; want nothing, {} or {"reason":"…"}`, err)
	}
	if fields == nil { // null
		return "", errors.New(`body is null: want nothing, {} or {"reason":"…"}`)
	}
	for key := range fields {
		if key != "reason" {
			return "", fmt.Errorf("body: unknown field %q: a trigger has only reason", key)
		}
	}
	value, given := fields["reason"]
	if !given {
		return "", nil
	}
	reason, ok := value.(string)
	if !ok {
		return "", errors.New("body: reason is not a string")
	}
	if strings.ContainsRune(reason, 0) {
		return "", errors.New("body: reason holds a NUL, which cannot be recorded")
	}
	return reason, nil
}

const (
	maxSubject = 256  // bytes of a subject that are recorded
	maxError   = 4096 // bytes of an error that are recorded
)

// letter is the message as it is kept when it failed for good. The id is the
// trigger's, so that the same message is kept once.
func letter(m queue.Message, err error) fleet.DeadLetter {
	return fleet.DeadLetter{
		ID: m.TriggerID, Subject: fleet.CleanText(m.Subject, maxSubject), Body: fleet.CleanText(string(m.Body), queue.MaxBody), Error: fleet.CleanText(err.Error(), maxError),
	}
}
