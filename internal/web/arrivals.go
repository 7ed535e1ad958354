package web

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

// Anybody may send a body, and its signature is known only once all of it has
// arrived. These limits hold for bodies that arrive; none of them takes a place
// from a delivery that is signed (issue 10).
const (
	// bodyLimit is how long a body may take: github.com waits 10 s for the answer.
	bodyLimit = 8 * time.Second
	// bodyPatience is for how long a body may arrive slower than bodyRate, which
	// is in bytes a second.
	bodyPatience = 2 * time.Second
	bodyRate     = 16 << 10
	// bodiesAtOnce is how many bodies may arrive at once: the oldest gives way.
	bodiesAtOnce = 256
	// chunkSize is in bytes: most events of workflow jobs fit into one chunk.
	chunkSize = 32 << 10
	// chunksKept is how many full chunks are kept of all bodies that arrive. The
	// longest body fits, so that memory for unsigned bodies is bounded by this and
	// by one chunk for each: 26 MiB and 8 MiB.
	chunksKept = maxWebhook/chunkSize + 32
	// chunksSpare is how many unused chunks stay for later.
	chunksSpare = 16
)

// Why a body was not read to its end.
var (
	errTooLong  = errors.New("the body is longer than 25 MiB")
	errTooSlow  = errors.New("the body arrived too slowly")
	errCrowded  = errors.New("the body gave way to newer ones")
	errNotWhole = errors.New("the body did not arrive")
)

// arrivals are the bodies that arrive at the moment. The zero value is ready,
// and safe for concurrent use.
type arrivals struct {
	mu    sync.Mutex
	all   []*arrival // the oldest first
	kept  int        // full chunks
	spare [][]byte
}

// arrival is one body that arrives. Its fields belong to arrivals.
type arrival struct {
	began  time.Time
	stop   func() // lets its reads fail at once
	cut    bool   // it gave way to newer ones
	chunks [][]byte
	lost   bool // its chunks were given up, or nobody wanted them
}

// received is what has arrived of one body.
type received struct {
	from *arrivals
	*arrival
	last []byte // what the chunk holds that is not full
}

// read reads a body and writes all of it to check. It keeps the body where that
// is wanted and there is room. Where there is none, the body that holds most is
// given up; it is read on, since its signature may hold.
//
// The caller must call release once it is done with what is returned, also with
// an error. Errors are those above.
func (a *arrivals) read(w http.ResponseWriter, r *http.Request, keep bool, check io.Writer) (received, error) {
	control := http.NewResponseController(w)
	began := time.Now()
	// Only a recorder of tests has no deadlines.
	deadline := func(at time.Time) { _ = control.SetReadDeadline(at) }
	in := a.begin(began, !keep, func() { deadline(time.Unix(1, 0)) })
	chunk := a.chunk()
	filled, total := 0, 0
	a.prolong(in, 0, deadline)
	for {
		n, err := r.Body.Read(chunk[filled:])
		_, _ = check.Write(chunk[filled : filled+n]) // a hash takes everything
		filled += n
		total += n
		if err == nil && total <= maxWebhook {
			if filled == len(chunk) {
				chunk = a.keep(in, chunk)
				filled = 0
			}
			a.prolong(in, total, deadline)
			continue
		}
		cut := a.end(in)
		// The server reads on while the answer is made, and would take a deadline
		// that passes for a sender that has gone.
		deadline(time.Time{})
		got := received{from: a, arrival: in, last: chunk[:filled]}
		switch {
		case total > maxWebhook:
			return got, errTooLong
		case errors.Is(err, io.EOF):
			return got, nil
		case cut:
			return got, errCrowded
		case errors.Is(err, os.ErrDeadlineExceeded):
			return got, errTooSlow
		}
		return got, errNotWhole
	}
}

// prolong gives a body as much time as what has arrived of it deserves.
func (a *arrivals) prolong(in *arrival, total int, deadline func(time.Time)) {
	allowed := bodyPatience + time.Duration(total)*time.Second/bodyRate
	a.mu.Lock()
	defer a.mu.Unlock()
	if !in.cut {
		deadline(in.began.Add(min(allowed, bodyLimit)))
	}
}

// begin adds a body. Where too many arrive, the oldest is cut off.
func (a *arrivals) begin(began time.Time, lost bool, stop func()) *arrival {
	in := &arrival{began: began, stop: stop, lost: lost}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.all) >= bodiesAtOnce {
		oldest := a.all[0]
		a.all = a.all[1:]
		oldest.cut = true
		oldest.stop()
	}
	a.all = append(a.all, in)
	return in
}

// end takes a body out of those that arrive. It reports whether it was cut off.
func (a *arrivals) end(in *arrival) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, other := range a.all {
		if other == in {
			a.all = append(a.all[:i:i], a.all[i+1:]...)
			break
		}
	}
	return in.cut
}

// keep keeps a full chunk and returns one to go on with.
func (a *arrivals) keep(in *arrival, full []byte) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	for !in.lost && a.kept >= chunksKept {
		a.giveUp(a.largest(in))
	}
	if in.lost {
		return full
	}
	in.chunks = append(in.chunks, full)
	a.kept++
	return a.take()
}

// largest is the body that holds most; of several the oldest. Those that have
// arrived and are signed are not among them.
func (a *arrivals) largest(in *arrival) *arrival {
	most := in
	for _, other := range a.all {
		if len(other.chunks) > len(most.chunks) {
			most = other
		}
	}
	return most
}

func (a *arrivals) giveUp(in *arrival) {
	a.spare = append(a.spare, in.chunks...)
	a.kept -= len(in.chunks)
	in.chunks = nil
	in.lost = true
}

func (a *arrivals) chunk() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.take()
}

func (a *arrivals) take() []byte {
	if n := len(a.spare); n > 0 {
		chunk := a.spare[n-1]
		a.spare[n-1] = nil
		a.spare = a.spare[:n-1]
		return chunk
	}
	return make([]byte, chunkSize)
}

// whole is the body in one piece; false: it was given up.
func (r received) whole() ([]byte, bool) {
	if r.lost {
		return nil, false
	}
	body := bytes.Join(r.chunks, nil)
	return append(body, r.last...), true
}

// release gives back what the body holds. It may be called once.
func (r received) release() {
	a := r.from
	a.mu.Lock()
	defer a.mu.Unlock()
	a.spare = append(a.spare, r.last[:cap(r.last)])
	a.kept -= len(r.chunks)
	a.spare = append(a.spare, r.chunks...)
	r.chunks = nil
	if a.kept == 0 && len(a.all) == 0 && len(a.spare) > chunksSpare {
		clear(a.spare[chunksSpare:])
		a.spare = a.spare[:chunksSpare]
	}
}

// young reports whether a body that was cut off may have been GitHub's, which
// sends without pauses.
func (r received) young() bool { return time.Since(r.began) < bodyPatience }

// place waits for one of the places of signed deliveries. Without an error the
// caller must give it back.
func place(ctx context.Context, places chan struct{}) (func(), error) {
	patience := time.NewTimer(webhookPatience)
	defer patience.Stop()
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	case <-patience.C:
		return nil, errors.New("too many signed deliveries at once")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
