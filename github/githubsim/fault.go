package githubsim

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// FaultKind is a way in which GitHub fails.
type FaultKind string

// Faults of time. The request is answered as it would be, only late.
const (
	// FaultLatency waits Delay before the request is looked at. What the client
	// gave up on meanwhile is done all the same.
	FaultLatency FaultKind = "latency"
	// FaultSlowBody sends the body in pieces that take Delay in all.
	FaultSlowBody FaultKind = "slow-body"
	// FaultSkew sets the Date header off by Skew.
	FaultSkew FaultKind = "skew"
)

// Faults in place of an answer: nothing is done.
const (
	// FaultStatus answers with Status, in the words that GitHub has for it, and
	// with Retry-After where RetryAfter is set.
	FaultStatus FaultKind = "status"
	// FaultRedirect sends the client to where it was, with Status or else 301:
	// a loop, or, for a DELETE alone, what clients turn into a GET.
	FaultRedirect FaultKind = "redirect"
	// FaultReset resets the connection before anything is done.
	FaultReset FaultKind = "reset"
)

// Faults on the way back: what was asked has been done.
const (
	// FaultLost resets the connection in place of the answer, or answers with
	// Status, such as 502, where that is set.
	FaultLost FaultKind = "lost"
	// FaultResetBody resets the connection halfway through the body.
	FaultResetBody FaultKind = "reset-body"
	// FaultShortBody closes the connection halfway through the body that
	// Content-Length promised.
	FaultShortBody FaultKind = "short-body"
	// FaultTruncated sends half of the body and says that it is all.
	FaultTruncated FaultKind = "truncated"
	// FaultBody sends Body in place of the body: nothing, null, {}, or a page
	// where it begins with <.
	FaultBody FaultKind = "body"
)

// Faults in what is said of runners, in lists and of one. Those of fields
// concern Field, which may also be total_count or runners, in Rows rows.
const (
	FaultFieldMissing FaultKind = "field-missing"
	FaultFieldNull    FaultKind = "field-null"
	FaultFieldWrong   FaultKind = "field-wrong" // of another JSON type
	// FaultUnlabelled shows runners that are offline with an empty list of
	// labels, as GitHub does with lost machines. It concerns no Field.
	FaultUnlabelled FaultKind = "unlabelled"
)

// Faults in the rows of single pages of lists: their totals do not match.
const (
	FaultRowsTwice FaultKind = "rows-twice" // Rows runners, or one, stand in another's place as well
	FaultRowsLost  FaultKind = "rows-lost"  // Rows runners, or one, are left out
	FaultRowsNull  FaultKind = "rows-null"  // Rows rows, or one, are null
	FaultTotal     FaultKind = "total"      // total_count is off by By, or by one
)

// Faults of whole walks, as Hide and ShowOffline have them: the pages agree
// with each other. They concern the runners IDs, or those with Label, or Rows
// of them chosen at random, or all.
const (
	FaultHidden  FaultKind = "hidden"
	FaultOffline FaultKind = "offline"
)

// Faults between two pages of one walk, told by asking for a page after the
// first. A runner that stood before it is removed for good.
const (
	FaultShift FaultKind = "shift"
	// FaultSwap registers another at the same time, so that the walk proves
	// itself complete while it misses one.
	FaultSwap FaultKind = "swap"
)

// Faults of caches, for GET.
const (
	// FaultStale answers with the newest answer to the same request that is at
	// least Age old; until there is one, with the first since Inject.
	FaultStale FaultKind = "stale"
	// FaultStale304 says 304 to whatever If-None-Match has.
	FaultStale304 FaultKind = "stale-304"
)

// FaultZombie keeps runners that were killed with a workflow job busy for as
// long as it lasts: those in Scope, IDs and with Label. It strikes no request.
const FaultZombie FaultKind = "zombie"

// FaultMistaken has GitHub take runners for dead that are not: those in IDs, or
// with Label, or all. In lists and by id they are offline and have no workflow
// job, and a DELETE is not refused because they are at work. With Field status
// or busy it is mistaken in that alone; Method and Path say who hears it.
const FaultMistaken FaultKind = "mistaken"

// Fault is one way to fail, and when. What is left empty does not restrict.
// More than one may strike the same request, in the order of Inject.
type Fault struct {
	Kind FaultKind

	// Which requests.
	Method string
	Path   string // a template as in Event, or the end of one from a slash on: /actions/runners
	Scope  fleet.Scope

	// Which of them, and for how long.
	Nth         int           // the first to strike; zero: the first
	Every       int           // from then on each so manieth; zero: each
	Probability float64       // by the Sim's seed, the request and how often it came; zero: certain
	Count       int           // at most so often; zero: any number
	For         time.Duration // by the Sim's clock; zero: until it is removed

	// How; each kind says what it takes.
	Status     int
	RetryAfter time.Duration // whole seconds; called wait in commands
	Delay      time.Duration // by Config.Sleep
	Age        time.Duration // by the Sim's clock
	Skew       time.Duration
	Body       string
	Field      string
	By         int
	Rows       int
	IDs        []int64
	Label      string
	Event      string // of webhooks, such as workflow_job or workflow_job.queued
}

// injected is a Fault at work. The Sim's lock guards it.
type injected struct {
	Fault
	id      int64
	since   time.Time
	seen    int               // requests that it could have struck
	struck  int               // that it did
	repeats map[string]uint64 // how often which request came, for Probability and Rows
	past    map[string][]remembered
}

// ActiveFault is a Fault at work.
type ActiveFault struct {
	ID     int64 // from 1, in the order of Inject
	Fault  Fault
	Seen   int // requests, or runners, that it could have struck
	Struck int // that it did
}

// Inject makes GitHub fail. The function returned ends that, and so does the
// passing of For; both are noted in the log.
func (s *Sim) Inject(f Fault) (func(), error) {
	id, err := s.inject(f)
	if err != nil {
		return nil, err
	}
	return func() { s.mend(id) }, nil
}

func (s *Sim) inject(f Fault) (int64, error) {
	if err := f.valid(); err != nil {
		return 0, fmt.Errorf("github simulator: inject fault %s: %w", f.Kind, err)
	}
	f.Method, f.IDs = strings.ToUpper(f.Method), slices.Clone(f.IDs)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastFault++
	in := &injected{
		Fault: f, id: s.lastFault, since: s.config.Now(),
		repeats: make(map[string]uint64), past: make(map[string][]remembered),
	}
	s.faults = append(s.faults, in)
	s.record(Event{Change: ChangeFault, Cause: string(f.Kind), Scope: scopeText(f.Scope)})
	if f.Kind == FaultZombie {
		s.raise(in)
	}
	return in.id, nil
}

// mend ends a fault, or all where id is zero, and reports whether there was any.
func (s *Sim) mend(id int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end(func(f *injected) bool { return id == 0 || f.id == id })
}

func (s *Sim) end(which func(*injected) bool) bool {
	left := make([]*injected, 0, len(s.faults))
	var ended []*injected
	for _, f := range s.faults {
		if which(f) {
			ended = append(ended, f)
		} else {
			left = append(left, f)
		}
	}
	s.faults = left
	for _, f := range ended {
		s.record(Event{Change: ChangeMended, Cause: string(f.Kind), Scope: scopeText(f.Scope)})
		if f.Kind == FaultZombie {
			s.layToRest(f)
		}
	}
	return len(ended) > 0
}

// Faults is what is at work, in the order of Inject.
func (s *Sim) Faults() []ActiveFault {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	all := make([]ActiveFault, len(s.faults))
	for i, f := range s.faults {
		all[i] = ActiveFault{ID: f.id, Fault: f.Fault, Seen: f.seen, Struck: f.struck}
	}
	return all
}

// expire ends what has lasted long enough.
func (s *Sim) expire() {
	if len(s.faults) == 0 {
		return
	}
	now := s.config.Now()
	over := func(f *injected) bool { return f.For > 0 && now.Sub(f.since) >= f.For }
	if slices.ContainsFunc(s.faults, over) {
		s.end(over)
	}
}

var rowKinds = []FaultKind{FaultFieldMissing, FaultFieldNull, FaultFieldWrong, FaultUnlabelled, FaultRowsTwice, FaultRowsLost, FaultRowsNull, FaultTotal}

var faultKinds = append([]FaultKind{
	FaultLatency, FaultSlowBody, FaultSkew, FaultStatus, FaultRedirect, FaultReset,
	FaultLost, FaultResetBody, FaultShortBody, FaultTruncated, FaultBody,
	FaultHidden, FaultOffline, FaultShift, FaultSwap, FaultStale, FaultStale304, FaultZombie, FaultMistaken, FaultTLS,
}, slices.Concat(rowKinds, hookKinds)...)

func (f Fault) valid() error {
	switch {
	case !slices.Contains(faultKinds, f.Kind):
		return fmt.Errorf("kind %q: want one of %s", f.Kind, joinKinds(faultKinds))
	case f.Nth < 0, f.Every < 0, f.Count < 0, f.Rows < 0, f.For < 0, f.Delay < 0, f.Age < 0, f.RetryAfter < 0:
		return fmt.Errorf("nth, every, count, rows, for, delay, age and wait: none may be negative")
	case f.Probability < 0 || f.Probability > 1:
		return fmt.Errorf("probability %v: want 0 to 1", f.Probability)
	case f.Path != "" && !strings.HasPrefix(f.Path, "/"):
		return fmt.Errorf("path %q: want a template, or the end of one from a slash on", f.Path)
	case f.RetryAfter%time.Second != 0:
		return fmt.Errorf("wait %v: want whole seconds", f.RetryAfter)
	}
	switch f.Kind {
	case FaultStatus:
		if f.Status < 400 || f.Status > 599 {
			return fmt.Errorf("status %d: want 400 to 599", f.Status)
		}
	case FaultLost:
		if f.Status != 0 && (f.Status < 400 || f.Status > 599) {
			return fmt.Errorf("status %d: want none, or 400 to 599", f.Status)
		}
	case FaultRedirect:
		if f.Status != 0 && !slices.Contains([]int{http.StatusMovedPermanently, http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect}, f.Status) {
			return fmt.Errorf("status %d: want 301, 302, 307 or 308", f.Status)
		}
	case FaultLatency, FaultSlowBody, FaultHookLate:
		if f.Delay == 0 {
			return fmt.Errorf("delay is required")
		}
	case FaultStale:
		if f.Age == 0 {
			return fmt.Errorf("age is required")
		}
	case FaultSkew:
		if f.Skew == 0 {
			return fmt.Errorf("skew is required")
		}
	case FaultMistaken:
		if !slices.Contains([]string{"", "status", "busy"}, f.Field) {
			return fmt.Errorf("field %q: want none, status or busy", f.Field)
		}
	case FaultFieldMissing, FaultFieldNull, FaultFieldWrong:
		if f.Field == "" {
			return fmt.Errorf("field is required")
		}
	}
	return nil
}

func joinKinds(kinds []FaultKind) string {
	words := make([]string, len(kinds))
	for i, k := range kinds {
		words[i] = string(k)
	}
	return strings.Join(words, ", ")
}

func scopeText(scope fleet.Scope) string {
	if scope == (fleet.Scope{}) {
		return ""
	}
	return scope.String()
}
