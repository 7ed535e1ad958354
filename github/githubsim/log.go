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
	ChangeMoved      = "moved" // its workflow job has another runner now
	ChangeRemoved    = "removed"
	ChangeRenamed    = "renamed"
	ChangeJob        = "job"       // a workflow job is now what Cause says
	ChangeDelivered  = "delivered" // to a webhook; Cause has the event, Status the answer
	ChangeHandshake  = "handshake" // of a connection, which a fault ended
	ChangeFault      = "fault"     // injected; Cause has its kind
	ChangeMended     = "mended"    // a fault has ended
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
	// Installation is the one whose token the credential is, or was issued.
	Installation int64 `json:"installation,omitempty"`
	// Status is what the client was sent; zero where the connection broke.
	Status int `json:"status,omitempty"`
	// Fault is the kinds of the faults and lies in the answer, with commas
	// between them.
	Fault string `json:"fault,omitempty"`
	Acted bool   `json:"acted,omitempty"` // it deleted or minted something
	Token string `json:"token,omitempty"` // fingerprint of what was minted
	// Listing is what a page of a list showed, for Config.LogListings; nil where
	// the client got nothing that can be read. With a 304, it is what a client
	// has that took the page with that ETag, unless the fault is stale-304.
	Listing *Listing `json:"listing,omitempty"`

	// Points are what the request costs with secondary limits: 1 to read, 5 to
	// change something. Zero: it came without a good credential.
	Points int `json:"points,omitempty"`
	// The primary limit, and what the answer said was left of it.
	RateLimit     int `json:"rate_limit,omitempty"` // zero: there is none
	RateRemaining int `json:"rate_remaining,omitempty"`
	// Penalty: the request arrived while its credential had been told to wait,
	// in an answer that had been sent ToldFor earlier by the Sim's clock. It may
	// have crossed that answer on the way, where its client keeps more than one
	// request in flight; then ToldFor is zero, where the clock stands still
	// meanwhile, or very short.
	Penalty bool          `json:"penalty,omitempty"`
	ToldFor time.Duration `json:"told_for,omitempty"`

	Change string `json:"change,omitempty"`
	Cause  string `json:"cause,omitempty"` // why removed; the token's fingerprint where registered

	Scope      string `json:"scope,omitempty"` // as fleet.ParseScope reads it
	RunnerID   int64  `json:"runner_id,omitempty"`
	RunnerName string `json:"runner_name,omitempty"`
	Job        int64  `json:"job,omitempty"`      // the workflow job that it is about
	Delivery   string `json:"delivery,omitempty"` // its GUID
	// The truth about that runner at that moment: for a DELETE just before it
	// is answered.
	Online bool `json:"online,omitempty"`
	Busy   bool `json:"busy,omitempty"`
}

// Listing is what one page of a list showed.
type Listing struct {
	Total int     `json:"total"`
	IDs   []int64 `json:"ids"` // of its rows, in their order, with duplicates
}

// Is reports whether the event is a request of this method to this template.
func (e Event) Is(method, path string) bool { return e.Method == method && e.Path == path }

// maxEvents bounds the memory of a Sim that runs for days: some 300 MB. Beyond
// it the older half is forgotten, which the first Seq shows.
const maxEvents = 1_000_000

// eventLog is in pieces, so that it never has to be copied to grow.
type eventLog struct {
	pieces [][]Event // all full but the last
	last   int64
}

const pieceSize = 4096

// record appends. The caller holds the lock.
func (s *Sim) record(e Event) {
	l := &s.log
	if n := len(l.pieces); n == 0 || len(l.pieces[n-1]) == pieceSize {
		if n*pieceSize >= maxEvents {
			l.pieces = slices.Clone(l.pieces[n/2:])
		}
		l.pieces = append(l.pieces, make([]Event, 0, pieceSize))
	}
	l.last++
	e.Seq, e.At = l.last, s.config.Now()
	newest := &l.pieces[len(l.pieces)-1]
	*newest = append(*newest, e)
}

// note records a change of state.
func (s *Sim) note(st *scopeState, r *runner, change, cause string) {
	s.record(Event{
		Change: change, Cause: cause, Scope: st.name,
		RunnerID: r.id, RunnerName: r.name, Job: r.job, Online: r.online, Busy: r.job != 0,
	})
}

// Log is everything that happened so far, in order.
func (s *Sim) Log() []Event { return s.LogSince(0) }

// LogSince is everything after the event with that Seq.
func (s *Sim) LogSince(seq int64) []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	events := make([]Event, 0, min(max(s.log.last-seq, 0), maxEvents))
	for _, piece := range s.log.pieces {
		if piece[len(piece)-1].Seq > seq {
			events = append(events, piece[max(seq+1-piece[0].Seq, 0):]...)
		}
	}
	return events
}

func fingerprint(secret string) string { return fleet.NewSecret(secret).Fingerprint() }
