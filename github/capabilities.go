package github

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/muster-fleet/muster/fleet"
)

// Sight is what answers showed of the server by the way. The zero Sight is of
// no answer.
type Sight struct {
	// Answered says that GitHub itself answered, and not something before it.
	Answered bool
	Version  string // of the GitHub Enterprise Server; empty: github.com
	// Whether runners have these fields; not known where no runner was read.
	Groups, Ephemeral, RunnerVersion fleet.Known
	// DeleteBusy is the status that this client has seen the DELETE of a busy
	// runner get; 0: none.
	DeleteBusy int
}

// Learn adds what was seen to what is known. What another version was found to
// be able to do is forgotten with it. It is pure.
func Learn(have fleet.Capabilities, s Sight) fleet.Capabilities {
	if !s.Answered {
		return have
	}
	if s.Version != have.ServerVersion {
		have = fleet.Capabilities{ServerVersion: s.Version}
	}
	if have.JIT == fleet.NotKnown {
		have.JIT = since(s.Version, jitSince)
	}
	switch {
	case s.DeleteBusy != 0:
		have.DeleteBusy = s.DeleteBusy
	case have.DeleteBusy == 0:
		have.DeleteBusy = busyStatus(s.Version)
	}
	for _, f := range []struct {
		have *fleet.Known
		seen fleet.Known
	}{{&have.RunnerGroups, s.Groups}, {&have.Ephemeral, s.Ephemeral}, {&have.Version, s.RunnerVersion}} {
		if f.seen != fleet.NotKnown {
			*f.have = f.seen
		}
	}
	return have
}

// release is a version of GitHub Enterprise Server without its patch.
type release struct{ major, minor int }

// From when on there is what cannot be seen without acting, by the published
// API descriptions.
var (
	jitSince         = release{3, 10}
	workflowJobSince = release{3, 3}
	// GitHub's own answer became 422 by March 2022; 3.4 is the first server
	// that was released afterwards.
	unprocessableSince = release{3, 4}
)

// since compares a version with a release. github.com, which names none, has
// everything.
func since(version string, first release) fleet.Known {
	if version == "" {
		return fleet.Yes
	}
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, errA := strconv.Atoi(major)
	b, errB := strconv.Atoi(minor)
	if errA != nil || errB != nil {
		return fleet.NotKnown
	}
	return fleet.KnownAs(a > first.major || a == first.major && b >= first.minor)
}

func busyStatus(version string) int {
	switch since(version, unprocessableSince) {
	case fleet.Yes:
		return http.StatusUnprocessableEntity
	case fleet.No:
		return http.StatusInternalServerError
	}
	return 0
}

// SendsWorkflowJobs reports whether the server tells of workflow jobs by
// webhook. Not known where nobody has looked at it.
func SendsWorkflowJobs(c fleet.Capabilities) fleet.Known {
	if c.ProbedAt.IsZero() {
		return fleet.NotKnown
	}
	return since(c.ServerVersion, workflowJobSince)
}

// nobody is no runner's name: nobody has reason to make one up that long.
const nobody = "muster-asks-whether-names-are-heeded-0d1f6c2b"

// HeedsName asks whether the server lists by name, with one request for a name
// that there is not. The scope has to have runners: else any server answers
// alike.
func (c *Client) HeedsName(ctx context.Context, scope fleet.Scope) (bool, error) {
	p, err := c.page(ctx, ask{op: OpProbe, scope: scope, number: 1, size: 1, name: nobody})
	return err == nil && p.Total == 0, err
}

// hear reads the headers of an answer. GitHub numbers every request; where the
// number is missing, something keeps headers back, and a version that is missing
// too means nothing.
func (s *Sight) hear(h http.Header) {
	s.Version = clean(h.Get("X-GitHub-Enterprise-Version"))
	s.Answered = s.Version != "" || h.Get("X-GitHub-Request-Id") != ""
}

// fields adds which fields the runners of a page have. A null is a field: the
// server knows of it.
func (s *Sight) fields(body []byte) {
	var w struct {
		Runners []struct {
			Group     json.RawMessage `json:"runner_group_id"`
			Ephemeral json.RawMessage `json:"ephemeral"`
			Version   json.RawMessage `json:"version"`
		} `json:"runners"`
	}
	if err := json.Unmarshal(body, &w); err != nil || len(w.Runners) == 0 {
		return
	}
	s.Groups, s.Ephemeral, s.RunnerVersion = fleet.No, fleet.No, fleet.No
	for _, r := range w.Runners {
		for _, f := range []struct {
			value json.RawMessage
			known *fleet.Known
		}{{r.Group, &s.Groups}, {r.Ephemeral, &s.Ephemeral}, {r.Version, &s.RunnerVersion}} {
			if f.value != nil {
				*f.known = fleet.Yes
			}
		}
	}
}

// noteDelete remembers what the DELETE of a busy runner was answered. A 500
// means all kinds of things, so there the text has to say it.
func (c *Client) noteDelete(o operation, got reply) {
	if o.method != http.MethodDelete {
		return
	}
	switch got.status {
	case http.StatusUnprocessableEntity:
	case http.StatusInternalServerError:
		if !strings.Contains(got.explanation().Message, "running a job") {
			return
		}
	default:
		return
	}
	var s Sight
	s.hear(got.header)
	c.busy.Store(&busyAnswer{status: got.status, version: s.Version})
}

// busyAnswer is the newest answer to the DELETE of a busy runner.
type busyAnswer struct {
	status  int
	version string // of the server then
}

// seen is the sight of an answer, with what this client knows besides.
func (c *Client) seen(s Sight) Sight {
	if b := c.busy.Load(); b != nil && s.Answered && b.version == s.Version {
		s.DeleteBusy = b.status
	}
	return s
}
