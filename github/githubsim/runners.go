package githubsim

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// RunnerSpec is a runner to be made.
type RunnerSpec struct {
	Name      string
	OS        string   // linux, windows or macos; empty: linux
	Labels    []string // beside self-hosted, the operating system and X64
	Ephemeral bool     // gone after its first workflow job
	Online    bool     // connected and shown so at once
	Busy      bool     // has a workflow job, also where it is not online
}

// State is the truth about a runner.
type State struct {
	ID        int64        `json:"id"`
	Name      string       `json:"name"`
	OS        string       `json:"os"`
	Labels    []string     `json:"labels"`
	Ephemeral bool         `json:"ephemeral"`
	Online    bool         `json:"online"`        // is connected
	Shown     fleet.Status `json:"shown"`         // what GitHub says of it
	Busy      bool         `json:"busy"`          // has a workflow job
	Job       int64        `json:"job,omitempty"` // its number
	// RegisteredWith is the fingerprint of the token it registered with, empty
	// for runners made by Create.
	RegisteredWith string    `json:"registered_with,omitempty"`
	CreatedAt      time.Time `json:"created_at"`
	ConnectedAt    time.Time `json:"connected_at,omitzero"` // last; zero: never
}

// autoRemoval is when servers before 3.7 forget a runner that did not connect.
const autoRemoval = 30 * 24 * time.Hour

// requeue is when a workflow job that nobody picked up goes back to the queue.
const requeue = time.Minute

type scopeState struct {
	scope     fleet.Scope
	id        int64 // in the id forms of paths
	order     []*runner
	byID      map[int64]*runner
	names     map[string]*runner
	walks     int // listings begun
	lies      []lie
	nextSweep time.Time
}

type label struct {
	ID   int64  `json:"id"`
	Name string `json:"name"`
	Type string `json:"type"`
}

type runner struct {
	id             int64
	name, os       string
	labels         []label
	ephemeral      bool
	registeredWith string
	createdAt      time.Time
	connectedAt    time.Time

	online bool // the truth
	// What GitHub shows becomes the truth at flipAt.
	shown  bool
	flipAt time.Time

	job       int64
	busyUntil time.Time // when GitHub gives the job up; zero: it does not

	head, tail []byte // its JSON before the status and after busy
}

// settle lets everything happen that the passing of time brings.
func (r *runner) settle(now time.Time) {
	if r.shown != r.online && !now.Before(r.flipAt) {
		r.shown = r.online
	}
	if r.job != 0 && !r.busyUntil.IsZero() && !now.Before(r.busyUntil) {
		r.job, r.busyUntil = 0, time.Time{}
	}
}

func (r *runner) status() fleet.Status {
	if r.shown {
		return fleet.StatusOnline
	}
	return fleet.StatusOffline
}

func (r *runner) appendJSON(b []byte, status fleet.Status) []byte {
	b = append(b, r.head...)
	b = append(b, status...)
	b = append(b, `","busy":`...)
	b = strconv.AppendBool(b, r.job != 0)
	return append(b, r.tail...)
}

func (r *runner) state() State {
	names := make([]string, len(r.labels))
	for i, l := range r.labels {
		names[i] = l.Name
	}
	return State{
		ID: r.id, Name: r.name, OS: r.os, Labels: names, Ephemeral: r.ephemeral,
		Online: r.online, Shown: r.status(), Busy: r.job != 0, Job: r.job,
		RegisteredWith: r.registeredWith, CreatedAt: r.createdAt, ConnectedAt: r.connectedAt,
	}
}

// key finds scopes, whose names GitHub compares without case.
func key(scope fleet.Scope) string { return strings.ToLower(scope.String()) }

// in finds a scope. The caller holds the lock.
func (s *Sim) in(scope fleet.Scope) (*scopeState, error) {
	st := s.scopes[key(scope)]
	if st == nil {
		return nil, fmt.Errorf("github simulator: scope %s: %w", scope, fleet.ErrNotFound)
	}
	return st, nil
}

// Create registers a runner and returns its id.
func (s *Sim) Create(scope fleet.Scope, spec RunnerSpec) (int64, error) {
	ids, err := s.CreateMany(scope, 1, func(int) RunnerSpec { return spec })
	if err != nil {
		return 0, err
	}
	return ids[0], nil
}

// CreateMany registers n runners, spec(0) to spec(n-1), and returns their ids.
// One that cannot be made ends it; those before it stay.
func (s *Sim) CreateMany(scope fleet.Scope, n int, spec func(i int) RunnerSpec) ([]int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := s.in(scope)
	if err != nil {
		return nil, err
	}
	ids := make([]int64, 0, n)
	for i := range n {
		r, err := s.create(st, spec(i), "")
		if err != nil {
			return ids, err
		}
		ids = append(ids, r.id)
	}
	return ids, nil
}

// systems are the spellings of 3.1: the field, and the label.
var systems = map[string]string{"linux": "Linux", "windows": "Windows", "macos": "macOS"}

func (s *Sim) create(st *scopeState, spec RunnerSpec, registeredWith string) (*runner, error) {
	if spec.OS == "" {
		spec.OS = "linux"
	}
	system, known := systems[spec.OS]
	switch {
	case spec.Name == "":
		return nil, fmt.Errorf("github simulator: create a runner in %s: it has no name", st.scope)
	case !known:
		return nil, fmt.Errorf("github simulator: create runner %s in %s: os %q: want linux, windows or macos", spec.Name, st.scope, spec.OS)
	case st.names[spec.Name] != nil:
		return nil, fmt.Errorf("github simulator: create runner %s in %s: the name is taken: %w", spec.Name, st.scope, fleet.ErrConflict)
	case slices.Contains(spec.Labels, ""):
		return nil, fmt.Errorf("github simulator: create runner %s in %s: a label is empty", spec.Name, st.scope)
	}
	now := s.config.Now()
	s.lastID++
	r := &runner{
		id: s.lastID, name: spec.Name, os: spec.OS, ephemeral: spec.Ephemeral,
		registeredWith: registeredWith, createdAt: now,
		online: spec.Online, shown: spec.Online,
	}
	if spec.Online {
		r.connectedAt = now
	}
	if spec.Busy {
		s.lastJob++
		r.job = s.lastJob
	}
	for _, name := range []string{"self-hosted", system, "X64"} {
		r.labels = append(r.labels, label{s.labelID(name), name, "read-only"})
	}
	for _, name := range spec.Labels {
		if !slices.ContainsFunc(r.labels, func(l label) bool { return strings.EqualFold(l.Name, name) }) {
			r.labels = append(r.labels, label{s.labelID(name), name, "custom"})
		}
	}
	r.head = fmt.Appendf(nil, `{"id":%d,"name":%s,"os":%s,"status":"`, r.id, quote(r.name), quote(r.os))
	r.tail = fmt.Appendf(nil, `,"labels":%s}`, quote(r.labels))
	st.order = append(st.order, r) // ids rise, so this stays sorted
	st.byID[r.id], st.names[r.name] = r, r
	change := ChangeCreated
	if registeredWith != "" {
		change = ChangeRegistered
	}
	s.note(st, r, change, registeredWith)
	return r, nil
}

func (s *Sim) labelID(name string) int64 {
	folded := strings.ToLower(name)
	if s.labelIDs[folded] == 0 {
		s.labelIDs[folded] = int64(len(s.labelIDs) + 1)
	}
	return s.labelIDs[folded]
}

// quote encodes strings and labels, which always can be.
func quote(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

func (s *Sim) drop(st *scopeState, r *runner, cause string) {
	i, found := slices.BinarySearchFunc(st.order, r.id, func(r *runner, id int64) int { return cmp.Compare(r.id, id) })
	if found {
		st.order = slices.Delete(st.order, i, i+1)
	}
	delete(st.byID, r.id)
	delete(st.names, r.name)
	s.note(st, r, ChangeRemoved, cause)
}

// sweep removes what GitHub itself removes for want of a connection.
func (s *Sim) sweep(st *scopeState, now time.Time) {
	if now.Before(st.nextSweep) {
		return
	}
	st.nextSweep = now.Add(time.Hour)
	for _, r := range slices.Clone(st.order) {
		last := r.createdAt
		if r.connectedAt.After(last) {
			last = r.connectedAt
		}
		if !r.online && now.Sub(last) > autoRemoval {
			s.drop(st, r, "not connected for 30 days")
		}
	}
}

// change does something to one runner under the lock.
func (s *Sim) change(scope fleet.Scope, id int64, do func(st *scopeState, r *runner, now time.Time) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := s.in(scope)
	if err != nil {
		return err
	}
	r := st.byID[id]
	if r == nil {
		return fmt.Errorf("github simulator: runner %d of %s: registration deleted: %w", id, scope, fleet.ErrNotFound)
	}
	now := s.config.Now()
	r.settle(now)
	return do(st, r, now)
}

// Connect starts the runner's program: it is online, and shown so after
// Lags.Connect.
func (s *Sim) Connect(scope fleet.Scope, id int64) error {
	return s.change(scope, id, func(st *scopeState, r *runner, now time.Time) error {
		r.online, r.connectedAt, r.flipAt = true, now, now.Add(s.config.Lag.Connect)
		r.busyUntil = time.Time{} // it may go on with its workflow job
		r.settle(now)
		s.note(st, r, ChangeConnected, "")
		return nil
	})
}

// Kill ends the runner's program without a word: it is shown offline after
// Lags.Offline, and its workflow job is given up after Lags.BusyClear.
func (s *Sim) Kill(scope fleet.Scope, id int64) error {
	return s.change(scope, id, func(st *scopeState, r *runner, now time.Time) error {
		if r.online {
			r.connectedAt = now
		}
		r.online, r.flipAt = false, now.Add(s.config.Lag.Offline)
		if r.job != 0 && s.config.Lag.BusyClear >= 0 {
			r.busyUntil = now.Add(s.config.Lag.BusyClear)
		}
		r.settle(now)
		s.note(st, r, ChangeKilled, "")
		return nil
	})
}

// Assign gives the runner a workflow job: it is busy, and shown so, at once. A
// runner that is only shown online loses it again after a minute; one that is
// shown offline keeps it, since GitHub is known to show working runners so.
func (s *Sim) Assign(scope fleet.Scope, id int64) error {
	return s.change(scope, id, func(st *scopeState, r *runner, now time.Time) error {
		if r.job != 0 {
			return fmt.Errorf("github simulator: assign a workflow job to runner %d of %s: it has one: %w", id, scope, fleet.ErrBusy)
		}
		s.lastJob++
		r.job = s.lastJob
		if r.shown && !r.online {
			r.busyUntil = now.Add(requeue)
		}
		s.note(st, r, ChangeAssigned, "")
		return nil
	})
}

// Finish ends the runner's workflow job. An ephemeral runner goes with it.
func (s *Sim) Finish(scope fleet.Scope, id int64) error {
	return s.change(scope, id, func(st *scopeState, r *runner, _ time.Time) error {
		if r.job == 0 {
			return fmt.Errorf("github simulator: finish the workflow job of runner %d of %s: it has none: %w", id, scope, fleet.ErrConflict)
		}
		r.job, r.busyUntil = 0, time.Time{}
		s.note(st, r, ChangeFinished, "")
		if r.ephemeral {
			s.drop(st, r, "ephemeral")
		}
		return nil
	})
}

// Remove takes the registration away, as GitHub itself or somebody else does.
func (s *Sim) Remove(scope fleet.Scope, id int64) error {
	return s.change(scope, id, func(st *scopeState, r *runner, _ time.Time) error {
		s.drop(st, r, "removed elsewhere")
		return nil
	})
}

// Snapshot is the truth about all runners of a scope, by ascending id. It is
// nil for an unknown scope.
func (s *Sim) Snapshot(scope fleet.Scope) []State {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := s.in(scope)
	if err != nil {
		return nil
	}
	now := s.config.Now()
	states := make([]State, 0, len(st.order))
	for _, r := range st.order {
		r.settle(now)
		states = append(states, r.state())
	}
	return states
}
