package demand

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/queue"
)

const (
	// group is the queue group: of all replicas, one gets a heartbeat.
	group = "muster"
	// readers is how many heartbeats are read at once; reading takes
	// microseconds.
	readers = 4
	// waiting is how many heartbeats may wait to be written, and most how many
	// are written at once.
	waiting = 4096
	most    = 1000
	// writeLimit is how long one writing may take. Whatever it does not bring
	// about, the hosts' next heartbeats will.
	writeLimit = 5 * time.Second
)

// BeatOutcome is what became of a heartbeat.
type BeatOutcome string

const (
	BeatStored  BeatOutcome = "stored" // or made needless by a newer one of its host
	BeatRefused BeatOutcome = "refused"
	BeatDropped BeatOutcome = "dropped" // more came than could be written
	BeatFailed  BeatOutcome = "failed"  // could not be recorded
)

// server is the side of queue.Conn that answers requests. A heartbeat is one
// that wants no answer.
type server interface {
	Serve(ctx context.Context, s queue.Service, handle func(context.Context, queue.Request)) error
}

// Listener takes in the heartbeats of hosts. All fields but Observe are
// required.
type Listener struct {
	Log  *slog.Logger
	DB   *db.DB
	Conn server
	// Now is the clock that all replicas share: Postgres's.
	Now func(context.Context) (time.Time, error)
	// Observe hears of heartbeats, n at a time. It is called from several
	// goroutines at once. Nil: nobody listens.
	Observe func(outcome BeatOutcome, n int)
}

// heard is a heartbeat with the moment of its arrival, on this machine's clock.
type heard struct {
	fleet.Heartbeat
	at time.Time
}

// Serve listens until ctx ends and what has arrived is written. An error means
// that it could not listen, or that the connection was closed.
func (l *Listener) Serve(ctx context.Context) error {
	beats := make(chan heard, waiting)
	var writer sync.WaitGroup
	defer writer.Wait()
	defer close(beats)
	writer.Go(func() { l.writeAll(context.WithoutCancel(ctx), beats) })
	take := func(ctx context.Context, r queue.Request) { l.take(ctx, r, beats) }
	service := queue.Service{
		Subject: queue.HeartbeatSubject("*"), Group: group, Workers: readers,
		// Reading is quick. What cannot wait here waits where NATS keeps it.
		Overflow: func(r queue.Request) { take(ctx, r) },
	}
	return l.Conn.Serve(ctx, service, take)
}

// take reads a heartbeat and has it wait for its turn to be written.
func (l *Listener) take(ctx context.Context, r queue.Request, beats chan<- heard) {
	at, host := time.Now(), hostOf(r.Subject)
	b, err := readHeartbeat(host, r.Body)
	if err != nil {
		l.observe(BeatRefused, 1)
		l.Log.WarnContext(ctx, "heartbeat refused", "host", fleet.CleanText(host, maxSubject), "err", err)
		return
	}
	select {
	case beats <- heard{b, at}:
	default:
		l.observe(BeatDropped, 1)
	}
}

// writeAll writes what comes, one transaction after another, until the channel
// is closed. While one is under way the next heartbeats gather: the more there
// are, the fewer transactions each of them takes.
func (l *Listener) writeAll(ctx context.Context, beats <-chan heard) {
	failing := false
	for first := range beats {
		batch := gather(first, beats)
		err := l.write(ctx, batch)
		switch {
		case err == nil:
			l.observe(BeatStored, len(batch))
		case !failing:
			l.Log.WarnContext(ctx, "heartbeats not recorded", "counts", len(batch), "err", err)
		}
		if failing = err != nil; failing {
			l.observe(BeatFailed, len(batch))
		}
	}
}

// gather takes what waits behind the first, without waiting for more.
func gather(first heard, beats <-chan heard) []heard {
	batch := []heard{first}
	for len(batch) < most {
		select {
		case b, open := <-beats:
			if !open {
				return batch
			}
			batch = append(batch, b)
		default:
			return batch
		}
	}
	return batch
}

// write stores the newest heartbeat of each host.
func (l *Listener) write(ctx context.Context, batch []heard) error {
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	now, err := l.Now(ctx)
	if err != nil {
		return err
	}
	at := map[string]int{} // in beats
	var beats []fleet.Heartbeat
	for _, b := range batch {
		// A heartbeat that waited for Postgres is as old as it is.
		b.At = now.Add(-time.Since(b.at))
		n, twice := at[b.Host]
		switch {
		case !twice:
			at[b.Host] = len(beats)
			beats = append(beats, b.Heartbeat)
		case b.At.After(beats[n].At):
			beats[n] = b.Heartbeat
		}
	}
	return l.DB.InTx(ctx, func(tx *db.Tx) error { return tx.SaveHeartbeats(ctx, beats) })
}

// hostOf takes the host out of the subject of a heartbeat.
func hostOf(subject string) string {
	before, after, _ := strings.Cut(queue.HeartbeatSubject("*"), "*")
	return strings.TrimSuffix(strings.TrimPrefix(subject, before), after)
}

func (l *Listener) observe(outcome BeatOutcome, n int) {
	if l.Observe != nil {
		l.Observe(outcome, n)
	}
}
