package token

import (
	"sync"
	"time"
)

// repeatWindow is how long a repeat of a request gets the same answer.
const repeatWindow = 2 * time.Minute

// turns lets one request of a host go at a time under each request id, and
// remembers what was handed out. Refusals are not remembered: they follow from
// the record and the configuration, so that a repeat gets the same one as long
// as it is true. The zero value is empty.
type turns struct {
	mu     sync.Mutex
	going  map[turnKey]*turn
	issued map[turnKey]answer
	// sentAt is when an answer of issued last went out, by this process's clock.
	sentAt map[turnKey]time.Time
}

type turnKey struct{ host, id string }

// turn is a request being decided.
type turn struct {
	bodySHA256 string
	done       chan struct{}
	answer     answer // once done is closed
}

// take returns the answer to repeat; or the turn to wait for; or neither, and
// then the turn is the caller's until it calls end.
func (t *turns) take(r request, now time.Time) (answer, *turn, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := turnKey{r.host, r.id}
	if given, ok := t.issued[key]; ok && given.request.bodySHA256 == r.bodySHA256 && now.Sub(given.issuedAt) < repeatWindow {
		return given, nil, true
	}
	if other, ok := t.going[key]; ok {
		return answer{}, other, false
	}
	if t.going == nil {
		t.going = make(map[turnKey]*turn)
	}
	t.going[key] = &turn{bodySHA256: r.bodySHA256, done: make(chan struct{})}
	return answer{}, nil, false
}

// end gives the answer to whoever waits for it.
func (t *turns) end(r request, a answer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := turnKey{r.host, r.id}
	mine := t.going[key]
	delete(t.going, key)
	mine.answer = a
	close(mine.done)
	if !a.issued() {
		return
	}
	if t.issued == nil {
		t.issued = make(map[turnKey]answer)
	}
	t.issued[key] = a
}

// forget drops the answers that are not repeated any more.
func (t *turns) forget(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, given := range t.issued {
		if now.Sub(given.issuedAt) >= repeatWindow {
			delete(t.issued, key)
			delete(t.sentAt, key)
		}
	}
}

// sent notes that a token goes out to a host now, for the first time or again.
func (t *turns) sent(r request) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sentAt == nil {
		t.sentAt = make(map[turnKey]time.Time)
	}
	t.sentAt[turnKey{r.host, r.id}] = time.Now()
}

// sentSince returns the ids of the requests, with their hosts, whose tokens went
// out from this process since then.
func (t *turns) sentSince(since time.Time) []turnKey {
	t.mu.Lock()
	defer t.mu.Unlock()
	var keys []turnKey
	for key, at := range t.sentAt {
		if !at.Before(since) {
			keys = append(keys, key)
		}
	}
	return keys
}
