package queue

import "sync"

// fairQueue holds requests for the workers of a Service. Each key, such as a
// host, has a line of its own, and the lines are served in turn (round robin). So
// a key that asks without end fills its own line and nobody else's. It is safe for
// concurrent use.
type fairQueue struct {
	perKey    int // requests of one key that are worked on at once
	perKeyAll int // requests of one key that may wait or be worked on
	all       int // requests that may wait or be worked on

	mu      sync.Mutex
	ready   sync.Cond
	lines   map[string]*line
	turns   []string // keys whose first request may be taken, in turn
	waiting int
	running int
	closed  bool
}

type line struct {
	waiting []Request
	running int
	inTurn  bool
}

// newFairQueue makes a queue for so many workers, each key of which occupies
// perKey at most. Beyond that perKeyLine requests of a key may wait, and room of
// all keys.
func newFairQueue(workers, perKey, perKeyLine, room int) *fairQueue {
	q := &fairQueue{perKey: perKey, perKeyAll: perKey + perKeyLine, all: workers + room, lines: map[string]*line{}}
	q.ready.L = &q.mu
	return q
}

// push puts a request into the line of its key. Where there is no room it returns
// the request that has to go, which is the newest of the longest line: this one,
// or another key's.
func (q *fairQueue) push(key string, r Request) (turnedAway Request, full bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	own := q.lines[key]
	if own == nil {
		own = &line{}
	}
	if len(own.waiting)+own.running >= q.perKeyAll {
		return r, true
	}
	if q.waiting+q.running >= q.all {
		longest := q.longest()
		if len(longest.waiting) <= len(own.waiting)+1 {
			return r, true
		}
		last := len(longest.waiting) - 1
		turnedAway, full = longest.waiting[last], true
		longest.waiting = longest.waiting[:last]
		q.waiting--
	}
	q.lines[key] = own
	own.waiting = append(own.waiting, r)
	q.waiting++
	q.takeTurn(key, own)
	return turnedAway, full
}

func (q *fairQueue) longest() *line {
	longest := &line{}
	for _, l := range q.lines {
		if len(l.waiting) > len(longest.waiting) {
			longest = l
		}
	}
	return longest
}

// takeTurn lets the first request of a line be taken where it may be.
func (q *fairQueue) takeTurn(key string, l *line) {
	if l.inTurn || len(l.waiting) == 0 || l.running >= q.perKey {
		return
	}
	l.inTurn = true
	q.turns = append(q.turns, key)
	q.ready.Signal()
}

// pop waits for a request whose turn it is. The caller calls done with its key
// when it has handled it. Without ok the queue is closed and empty.
func (q *fairQueue) pop() (key string, r Request, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.turns) == 0 {
		if q.closed && q.waiting == 0 {
			return "", Request{}, false
		}
		q.ready.Wait()
	}

	key = q.turns[0]
	q.turns = q.turns[1:]
	l := q.lines[key]
	l.inTurn = false
	r = l.waiting[0] // a line in turn is never empty
	l.waiting = l.waiting[1:]
	l.running++
	q.running++
	q.waiting--
	q.takeTurn(key, l)
	return key, r, true
}

// done says that a request of the key was handled.
func (q *fairQueue) done(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.lines[key]
	l.running--
	q.running--
	if l.running == 0 && len(l.waiting) == 0 && !l.inTurn {
		delete(q.lines, key)
	}
	q.takeTurn(key, l)
	if q.closed && q.waiting == 0 {
		q.ready.Broadcast()
	}
}

// close lets pop end once nothing waits.
func (q *fairQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.ready.Broadcast()
}
