package githubsim

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// wire is what befalls an answer on its way. The zero wire is none.
type wire struct {
	slow   time.Duration // that the body takes
	half   bool          // of the body is sent
	reset  bool          // then; at once where half is not set
	header [][2]string   // set beside what the answer has
}

func (wi *wire) set(name, value string) {
	wi.header = append(slices.Clip(wi.header), [2]string{name, value})
}

func (wi wire) befalls() bool { return wi.slow > 0 || wi.half || wi.reset || len(wi.header) > 0 }

// maxDelay bounds what a fault may wait on the real clock.
const maxDelay = 30 * time.Second

// sleep waits for real, where Config.Sleep does not say otherwise.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(min(d, maxDelay))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// delay waits for as long as the faults want. That the client has gone ends the
// waiting; what it asked for is done all the same.
func (s *Sim) delay(ctx context.Context, struck []strike) {
	for _, f := range struck {
		if f.Kind == FaultLatency {
			_ = s.config.Sleep(ctx, f.Delay)
		}
	}
}

// held is an answer that has not been sent.
type held struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (h *held) Header() http.Header         { return h.header }
func (h *held) WriteHeader(status int)      { h.status = status }
func (h *held) Write(b []byte) (int, error) { return h.body.Write(b) }

// send is how an answer goes out that something befalls.
func (wi wire) send(ctx context.Context, w http.ResponseWriter, h *held, wait func(context.Context, time.Duration) error) {
	if wi.reset && !wi.half {
		resetConnection(w)
		return
	}
	for name, values := range h.header {
		w.Header()[name] = values
	}
	for _, h := range wi.header {
		w.Header().Set(h[0], h[1])
	}
	body := h.body.Bytes()
	w.Header().Del("Transfer-Encoding") // the length is known here
	if len(body) > 0 {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(h.status)
	if wi.half {
		body = body[:len(body)/2]
	}
	flush := http.NewResponseController(w)
	const pieces = 8
	if wi.slow > 0 {
		for range pieces - 1 {
			n := len(body) / pieces
			_, _ = w.Write(body[:n])
			_ = flush.Flush()
			body = body[n:]
			if wait(ctx, wi.slow/pieces) != nil {
				return // the client has gone
			}
		}
	}
	_, _ = w.Write(body)
	if !wi.half {
		return
	}
	_ = flush.Flush()
	if wi.reset {
		resetConnection(w)
	}
	panic(http.ErrAbortHandler) // closes the connection
}

// resetConnection makes the client see a connection reset by its peer, where
// the transport has such a thing, and else a connection that is closed.
func resetConnection(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}
