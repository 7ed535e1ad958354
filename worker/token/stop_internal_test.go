package token

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-fleet/muster/queue"
)

// flooded is a NATS that sends its requests when nobody has time, and then stops.
type flooded struct {
	captures chan queue.Capture
	requests []queue.Request
}

func (f flooded) Serve(_ context.Context, s queue.Service, _ func(context.Context, queue.Request)) error {
	for _, r := range f.requests {
		s.Overflow(r)
	}
	return nil
}

func (f flooded) Safe(context.Context) error { return nil }

func (f flooded) Captures() <-chan queue.Capture { return f.captures }

// Postgres hangs. A stop says of everything that waits that it was not written,
// and lasts lateLimit and not longer.
func TestAStopWaitsForWhatIsLateAndNotForLong(t *testing.T) {
	t.Parallel()
	const many = 20
	for name, tt := range map[string]struct {
		captures, requests int
		line               string
	}{
		"captures": {many, 0, "exposed tokens not written down"},
		"events":   {0, many, "audit event not written"},
	} {
		synctest.Test(t, func(t *testing.T) {
			nats := flooded{captures: make(chan queue.Capture, many)}
			for n := range tt.captures {
				nats.captures <- queue.Capture{Stream: fmt.Sprintf("S%d", n)}
			}
			for n := range tt.requests {
				request := queue.Request{Subject: queue.TokenSubject(fmt.Sprintf("build-%d", n)), Reply: "elsewhere"}
				nats.requests = append(nats.requests, request)
			}
			var log bytes.Buffer
			i := &Issuer{Log: slog.New(slog.NewTextHandler(&log, nil)), Conn: nats, Now: func(ctx context.Context) (time.Time, error) {
				<-ctx.Done()
				return time.Time{}, ctx.Err()
			}}

			began := time.Now()
			err := i.Serve(t.Context())
			took := time.Since(began)
			if err != nil || took != lateLimit {
				t.Errorf("%s: Serve took %s, %v, want %s", name, took, err, lateLimit)
			}
			if n := strings.Count(log.String(), tt.line); n != many {
				t.Errorf("%s: the log has %q %d times, want %d", name, tt.line, n, many)
			}
		})
	}
}

// What Postgres does not take is tried again every second until a stop, and said
// once.
func TestExposedTokensAreWrittenAsSoonAsThatIsPossible(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		stop := make(chan struct{})
		tries := 0
		i := &Issuer{Log: slog.New(slog.NewTextHandler(&log, nil)), Now: func(context.Context) (time.Time, error) {
			tries++
			if tries == 3 {
				close(stop)
			}
			return time.Time{}, errors.New("no clock")
		}}
		began := time.Now()
		i.tellUntilWritten(t.Context(), queue.Capture{Stream: "CURIOUS"}, stop)
		if took := time.Since(began); tries != 3 || took != 2*exposedAgain {
			t.Errorf("tried %d times in %s, want 3 times in %s", tries, took, 2*exposedAgain)
		}
		if n := strings.Count(log.String(), "exposed tokens not written down, trying again"); n != 1 {
			t.Errorf("said %d times, want once:\n%s", n, &log)
		}
	})
}

// Two of the same requests are decided once, also where a refusal comes of it.
func TestARequestWaitsForTheSameOneBefore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := &Issuer{Now: func(context.Context) (time.Time, error) { return noon, nil }}
		first := request{host: "build-01", id: "x", bodySHA256: "b"}
		i.turns.take(first, noon)
		got := make(chan answer, 1)
		go func() { got <- i.decide(t.Context(), first) }()
		synctest.Wait() // until it waits for its turn
		i.turns.end(first, first.refused(githubError, "unavailable"))
		if a := <-got; a.refusal != githubError || !a.repeated {
			t.Errorf("answer is %+v, want the refusal again", a)
		}
	})
}
