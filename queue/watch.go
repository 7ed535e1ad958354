package queue

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"
)

// advisories is where JetStream says that a stream of this account was made,
// changed, restored or deleted.
const advisories = "$JS.EVENT.ADVISORY.STREAM.>"

const (
	// lookLife is how long a look counts where the server says when a stream
	// changes: longer than Guard takes to look again.
	lookLife = 2 * guardEvery
	// lookLifeDeaf is how long a look counts where the server does not.
	lookLifeDeaf = time.Second
	// foundQueue is how many captures may wait for their receiver.
	foundQueue = 64
)

// Capture is a stream that keeps what is published on a private subject. A
// token that was handed out meanwhile may lie in it.
type Capture struct {
	Stream  string
	Subject string // the private subject
	// Found is when the stream was found, by the clock of this process, and For
	// how long before that it may have captured tokens. 0: not known, as long as a
	// token lives.
	Found time.Time
	For   time.Duration
}

// streamAge is what the server's clock said of a stream. The zero times say that
// it could not be asked.
type streamAge struct {
	name         string
	now, created time.Time
}

// epoch is a time in which no stream has changed unnoticed.
type epoch struct {
	changes    int64  // of streams, as the server told of them
	reconnects uint64 // nobody tells of changes while the connection is away
}

// watch remembers whether the streams of the account were looked at since they
// last changed, and what was found. It is safe for concurrent use.
type watch struct {
	changed chan struct{} // holds one signal: a stream has changed
	found   chan Capture
	looking sync.Mutex // held while somebody looks

	mu      sync.Mutex
	changes int64 // of streams, as the server told of them
	// looked is the epoch in which the newest look that found an answer began, at
	// began; result is the answer.
	looked epoch
	began  time.Time
	result error
	// safe is when the newest look began that found no capture; zero: none did.
	safe time.Time
	deaf bool // the server does not say when a stream changes
	// firstChange is when each stream changed first since safe, by the server's
	// clock.
	firstChange map[string]time.Time
	known       map[string]bool // captures that were told of
}

func newWatch() *watch {
	return &watch{
		changed: make(chan struct{}, 1), found: make(chan Capture, foundQueue), looked: epoch{changes: -1},
		firstChange: map[string]time.Time{}, known: map[string]bool{},
	}
}

// verdict returns the result of the newest look. known is false where that look
// is not good any more. reconnects is how often the connection was lost and found.
func (w *watch) verdict(reconnects uint64) (known bool, result error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	life := lookLife
	if w.deaf {
		life = lookLifeDeaf
	}
	now := epoch{w.changes, reconnects}
	return w.looked == now && time.Since(w.began) < life, w.result
}

// newest returns the result of the newest look, however old it is.
func (w *watch) newest() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.result
}

// connected forgets what the server before did not allow.
func (w *watch) connected() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deaf = false
}

// refused says that the server does not tell of changes.
func (w *watch) refused() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deaf = true
}

func (w *watch) hears() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.deaf
}

// heard takes in what the server says of a stream. A stream that is deleted
// captures nothing, but the newest look may have found it.
func (w *watch) heard(subject string, body []byte) {
	kind, name, _ := strings.Cut(strings.TrimPrefix(subject, strings.TrimSuffix(advisories, ">")), ".")
	switch kind {
	case "CREATED", "UPDATED", "DELETED", "RESTORE_COMPLETE":
	default:
		return
	}
	var advisory struct {
		Time time.Time `json:"timestamp"`
	}
	// Without a time the exposure is counted from the look before.
	_ = json.Unmarshal(body, &advisory)

	w.mu.Lock()
	defer w.mu.Unlock()
	w.changes++
	if _, known := w.firstChange[name]; !known && !advisory.Time.IsZero() {
		w.firstChange[name] = advisory.Time
	}
	select {
	case w.changed <- struct{}{}:
	default: // somebody will look
	}
}

// look is one look at the streams. Looks wait for each other.
type look struct {
	watch *watch
	epoch epoch
	began time.Time
}

func (w *watch) begin(reconnects uint64) *look {
	w.looking.Lock()
	w.mu.Lock()
	defer w.mu.Unlock()
	return &look{watch: w, epoch: epoch{w.changes, reconnects}, began: time.Now()}
}

func (l *look) end() { l.watch.looking.Unlock() }

// exposure returns how long a stream may have captured tokens. Before the first
// change that the server told of it was as the last look without a finding saw
// it; where the server told of none, it cannot have captured before it was made.
func (l *look) exposure(age streamAge) time.Duration {
	l.watch.mu.Lock()
	defer l.watch.mu.Unlock()
	since := age.created
	if changed, told := l.watch.firstChange[age.name]; told {
		since = changed
	}
	var byServer, byLook time.Duration // 0: not known
	if !since.IsZero() && !age.now.IsZero() {
		byServer = max(age.now.Sub(since), time.Millisecond)
	}
	if !l.watch.safe.IsZero() {
		byLook = time.Since(l.watch.safe)
	}
	if byServer == 0 || byLook != 0 && byLook < byServer {
		return byLook
	}
	return byServer
}

// done keeps what a look found, and tells of captures that are new.
func (l *look) done(captures []Capture) error {
	w := l.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	w.looked, w.began = l.epoch, l.began
	if len(captures) == 0 {
		w.result = nil
		w.safe = l.began
		clear(w.firstChange)
		clear(w.known)
		return nil
	}
	first := captures[0]
	w.result = fmt.Errorf("stream %s captures %s, so tokens would be kept in it; narrow its subjects, or give muster an account of its own: %w",
		first.Stream, first.Subject, ErrUnsafe)
	for _, capture := range captures {
		if w.known[capture.Stream] {
			continue
		}
		capture.Found = time.Now()
		select {
		case w.found <- capture:
			w.known[capture.Stream] = true
		default: // told at the next look, with all the time since
		}
	}
	return w.result
}
