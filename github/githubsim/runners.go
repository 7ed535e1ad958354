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
	Group     int64    // its runner group, which is made where it is not there; zero: 1, the default one
	Version   string   // of its program; empty: the one on offer
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

// requeue is when a workflow job that nobody picked up goes back to the queue.
const requeue = time.Minute

type scopeState struct {
	scope     fleet.Scope
	name      string // of the scope
	id        int64  // in the id forms of paths
	by        Order
	order     []*runner
	byID      map[int64]*runner
	names     map[string]*runner
	groups    map[int64]*group // of runners, by id
	public    bool             // of a repository
	walks     int              // listings begun
	lies      []lie
	nextSweep time.Time

	pages map[int]map[int]*page // by size and number
	due   dueHeap
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
	group          int64
	version        string
	ephemeral      bool
	registeredWith string
	createdAt      time.Time
	connectedAt    time.Time

	online bool // the truth
	// What GitHub shows becomes the truth at flipAt.
	shown  bool
	flipAt time.Time

	job       int64
	work      *workflowJob // nil: none
	busyUntil time.Time    // when GitHub gives the job up; zero: it does not
	zombie    bool         // a fault keeps it

	head, tail []byte // its JSON before the status and after busy
}

// settle lets everything happen that the passing of time brings.
func (r *runner) settle(now time.Time) {
	if r.shown != r.online && !now.Before(r.flipAt) {
		r.shown = r.online
	}
	if r.job != 0 && !r.busyUntil.IsZero() && !now.Before(r.busyUntil) {
		at := r.busyUntil
		j := r.work
		r.job, r.work, r.busyUntil = 0, nil, time.Time{}
		j.giveUp(at)
	}
}

func (r *runner) status() fleet.Status {
	if r.shown {
		return fleet.StatusOnline
	}
	return fleet.StatusOffline
}

func (r *runner) appendJSON(b []byte, status fleet.Status, busy bool) []byte {
	b = append(b, r.head...)
	b = append(b, status...)
	b = append(b, `","busy":`...)
	b = strconv.AppendBool(b, busy)
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
	defer func() { st.sort(len(ids)) }()
	for i := range n {
		r, err := s.create(st, spec(i), "")
		if err != nil {
			return ids, err
		}
		ids = append(ids, r.id)
	}
	return ids, nil
}

// systemLabels are how labels spell the operating systems, in every version.
var systemLabels = upperSystems

func (s *Sim) create(st *scopeState, spec RunnerSpec, registeredWith string) (*runner, error) {
	if spec.OS == "" {
		spec.OS = "linux"
	}
	system, known := systemLabels[spec.OS]
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
	labels := []label{}
	for _, name := range []string{"self-hosted", system, "X64"} {
		labels = append(labels, label{s.labelID(name), name, "read-only"})
	}
	return s.add(st, spec, s.addLabels(labels, spec.Labels), registeredWith), nil
}

// add registers a runner of which everything is right. It still has to be put
// where it belongs, by sort.
func (s *Sim) add(st *scopeState, spec RunnerSpec, labels []label, registeredWith string) *runner {
	now := s.config.Now()
	s.lastID++
	r := &runner{
		id: s.lastID, name: spec.Name, os: spec.OS, ephemeral: spec.Ephemeral,
		group: max(spec.Group, defaultGroup), version: cmp.Or(spec.Version, s.profile.application),
		registeredWith: registeredWith, createdAt: now,
		online: spec.Online, shown: spec.Online, labels: labels,
	}
	st.groupOf(r.group)
	if spec.Online {
		r.connectedAt = now
	}
	if spec.Busy {
		repository, _ := s.ownRepository(st, r)
		j := s.newJob(st, JobSpec{Repository: repository, Labels: spec.Labels}) // from before; nobody is told
		j.State, j.StartedAt = JobInProgress, now
		j.belong(st, r)
	}
	s.render(r)
	st.order = append(st.order, r)
	st.byID[r.id], st.names[r.name] = r, r
	change := ChangeCreated
	if registeredWith != "" {
		change = ChangeRegistered
	}
	s.note(st, r, change, registeredWith)
	return r
}

func (s *Sim) labelID(name string) int64 {
	if !s.profile.labelIDs {
		return 0
	}
	folded := strings.ToLower(name)
	if s.labelIDs[folded] == 0 {
		s.labelIDs[folded] = int64(len(s.labelIDs) + 1)
	}
	return s.labelIDs[folded]
}

// compare is the order of the lists.
func (st *scopeState) compare(a, b *runner) int {
	if st.by == OrderName {
		return cmp.Compare(a.name, b.name)
	}
	return cmp.Compare(a.id, b.id)
}

// sort puts the runners that create has appended where they belong.
func (st *scopeState) sort(created int) {
	switch last := len(st.order) - 1; {
	case created == 0:
		return
	case created == 1:
		r := st.order[last]
		st.order = st.order[:last]
		i, _ := st.place(r)
		st.order = slices.Insert(st.order, i, r)
	case st.by == OrderName: // ids rise, so that those are in order already
		slices.SortFunc(st.order, st.compare)
	}
	st.shift()
}

// place is where a runner is in the order of the lists, or would be.
func (st *scopeState) place(r *runner) (int, bool) {
	return slices.BinarySearchFunc(st.order, r, st.compare)
}

const maxTails = 10_000 // where there are more, they are not shared anyway

// render prepares what a runner's JSON says beside its status.
func (s *Sim) render(r *runner) {
	r.head = fmt.Appendf(nil, `{"id":%d,"name":%s,"os":%s,"status":"`, r.id, quote(r.name), quote(cmp.Or(s.profile.systems[r.os], r.os)))
	tail := []byte(nil)
	if s.profile.ephemeral {
		tail = fmt.Appendf(tail, `,"ephemeral":%t`, r.ephemeral)
	}
	if s.profile.groups {
		tail = fmt.Appendf(tail, `,"runner_group_id":%d`, r.group)
	}
	tail = fmt.Appendf(tail, `,"labels":%s`, quote(r.labels))
	if s.profile.runnerVersion {
		version := []byte("null")
		if !r.connectedAt.IsZero() {
			version = quote(r.version)
		}
		tail = fmt.Appendf(tail, `,"version":%s`, version)
	}
	tail = append(tail, '}')
	shared, ok := s.tails[string(tail)]
	if !ok {
		shared = tailAndLabels{tail, r.labels}
		if len(s.tails) < maxTails {
			s.tails[string(tail)] = shared
		}
	}
	r.tail, r.labels = shared.tail, shared.labels
}

// tailAndLabels is what most runners of a fleet have in common.
type tailAndLabels struct {
	tail   []byte
	labels []label
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
	if i, found := st.place(r); found {
		st.order = slices.Delete(st.order, i, i+1)
	}
	st.shift()
	delete(st.byID, r.id)
	delete(st.names, r.name)
	s.note(st, r, ChangeRemoved, cause)
	if j := r.work; j != nil {
		r.job, r.work = 0, nil
		j.giveUp(s.config.Now())
	}
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
		after, cause := s.profile.forget, fmt.Sprintf("not connected for %d days", s.profile.forget/day)
		if r.ephemeral && s.profile.forgetEphemeral < after {
			after, cause = s.profile.forgetEphemeral, "ephemeral, and not connected for a day"
		}
		if !r.online && now.Sub(last) > after {
			s.drop(st, r, cause)
		}
	}
}
