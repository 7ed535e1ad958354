package githubsim

import (
	"slices"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// The changes of state that an Event may tell of.
const (
	ChangeCreated    = "created"
	ChangeRegistered = "registered"
	ChangeConnected  = "connected"
	ChangeKilled     = "killed"
	ChangeAssigned   = "assigned"
	ChangeFinished   = "finished"
	ChangeRemoved    = "removed"
	ChangeRenamed    = "renamed"
)

// Event is one request or one change of state. Method is set for requests,
// Change for changes of state; the removal that a DELETE causes stands before
// the request itself.
type Event struct {
	Seq int64     `json:"seq"` // from 1, without gaps
	At  time.Time `json:"at"`

	Method string `json:"method,omitempty"`
	// Path is the template: /orgs/{org}/actions/runners/{runner_id}. For paths
	// that are none of the API's it is the path itself.
	Path       string `json:"path,omitempty"`
	Query      string `json:"query,omitempty"`
	Credential string `json:"credential,omitempty"` // fingerprint, as fleet.Secret has it
	Status     int    `json:"status,omitempty"`
	Acted      bool   `json:"acted,omitempty"` // it deleted or minted something
	Token      string `json:"token,omitempty"` // fingerprint of what was minted

	Change string `json:"change,omitempty"`
	Cause  string `json:"cause,omitempty"` // why removed; the token's fingerprint where registered

	Scope      string `json:"scope,omitempty"` // as fleet.ParseScope reads it
	RunnerID   int64  `json:"runner_id,omitempty"`
	RunnerName string `json:"runner_name,omitempty"`
	// The truth about that runner at that moment: for a DELETE just before it
	// is answered.
	Online bool `json:"online,omitempty"`
	Busy   bool `json:"busy,omitempty"`
}

// Is reports whether the event is a request of this method to this template.
func (e Event) Is(method, path string) bool { return e.Method == method && e.Path == path }

// maxEvents bounds the memory of a Sim that runs for days: some 300 MB. Beyond
// it the older half is forgotten, which the first Seq shows.
const maxEvents = 1_000_000

type eventLog struct {
	events []Event
	last   int64
}

// record appends. The caller holds the lock.
func (s *Sim) record(e Event) {
	if len(s.log.events) >= maxEvents {
		s.log.events = slices.Clone(s.log.events[len(s.log.events)/2:])
	}
	s.log.last++
	e.Seq, e.At = s.log.last, s.config.Now()
	s.log.events = append(s.log.events, e)
}

// note records a change of state.
func (s *Sim) note(st *scopeState, r *runner, change, cause string) {
	s.record(Event{
		Change: change, Cause: cause, Scope: st.scope.String(),
		RunnerID: r.id, RunnerName: r.name, Online: r.online, Busy: r.job != 0,
	})
}

// Log is everything that happened so far, in order.
func (s *Sim) Log() []Event { return s.LogSince(0) }

// LogSince is everything after the event with that Seq.
func (s *Sim) LogSince(seq int64) []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, found := slices.BinarySearchFunc(s.log.events, seq, func(e Event, seq int64) int { return int(e.Seq - seq) })
	if found {
		i++
	}
	return slices.Clone(s.log.events[i:])
}

func fingerprint(secret string) string { return fleet.NewSecret(secret).Fingerprint() }
