package web_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/internal/web"
)

// pipes is a listener whose connections are in memory, so that no time passes in a
// test unless everybody waits.
type pipes struct {
	accept chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.accept:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// wire is a server that serves over pipes, and what became of the deliveries that
// it was sent.
type wire struct {
	t      *testing.T
	pipes  *pipes
	stop   func()
	mu     sync.Mutex
	taken  []string // ids
	refuse []string // ids and targets
	block  chan struct{}
}

func (w *wire) Check(_ context.Context, signature string) fleet.SignatureCheck {
	return &check{signature: signature}
}

func (w *wire) Take(_ context.Context, d fleet.Delivery, _ []string) error {
	if w.block != nil {
		<-w.block
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.taken = append(w.taken, d.ID)
	return nil
}

func (w *wire) Refuse(_ context.Context, d fleet.Delivery, targets []string, _ string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refuse = append(w.refuse, strings.TrimSpace(d.ID+" "+strings.Join(targets, ",")))
}

func serve(t *testing.T) *wire {
	t.Helper()
	w := &wire{t: t, pipes: &pipes{accept: make(chan net.Conn), closed: make(chan struct{})}}
	s := server(func(context.Context) []web.Fault { return nil })
	s.Webhooks = w
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, w.pipes) }()
	w.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	return w
}

// sending is a connection on which a request was begun.
type sending struct {
	net.Conn
	answers *bufio.Reader
}

// begin sends the head of a delivery. A length below 0 says that its body comes in
// chunks.
func (w *wire) begin(id, signature string, length int) sending {
	w.t.Helper()
	here, there := net.Pipe()
	w.pipes.accept <- there
	body := fmt.Sprintf("Content-Length: %d", length)
	if length < 0 {
		body = "Transfer-Encoding: chunked"
	}
	_, err := fmt.Fprintf(here, "POST /webhooks/github HTTP/1.1\r\nHost: muster\r\nContent-Type: application/json\r\n"+
		"X-GitHub-Event: workflow_job\r\nX-GitHub-Delivery: %s\r\nX-Hub-Signature-256: %s\r\n%s\r\n\r\n", id, signature, body)
	if err != nil {
		w.t.Error(err)
	}
	return sending{here, bufio.NewReader(here)}
}

// status waits for the answer.
func (s sending) status(t *testing.T) int {
	t.Helper()
	answer, err := http.ReadResponse(s.answers, nil)
	if err != nil {
		t.Error(err)
		return 0
	}
	_, _ = io.Copy(io.Discard, answer.Body)
	_ = answer.Body.Close()
	return answer.StatusCode
}

// send delivers a signed body at once, and gives the status of the answer.
func (w *wire) send(id string, body []byte) int {
	w.t.Helper()
	s := w.begin(id, signed, len(body))
	defer func() { _ = s.Close() }()
	go func() { _, _ = s.Write(body) }() // the answer may come before all of it is taken; Close ends it
	return s.status(w.t)
}

// A header and one byte of a body each kept a place from GitHub: the one signed
// delivery got 503 (issue 10). No time passes here, so that nobody waits for a
// limit either.
func TestSlowBodiesKeepNoSignedDeliveryOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := serve(t)
		began := time.Now()
		var slow []sending
		for n := range 64 {
			s := w.begin(fmt.Sprint("slow-", n), "sha256=0", 1000)
			if _, err := s.Write([]byte("{")); err != nil {
				t.Fatal(err)
			}
			slow = append(slow, s)
		}
		synctest.Wait()
		for n := range 20 {
			if got := w.send(fmt.Sprint("signed-", n), []byte(`{"action":"in_progress"}`)); got != 202 {
				t.Errorf("signed delivery %d = %d, want 202", n, got)
			}
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("signed deliveries waited for %s", took)
		}
		// A body that does not go on is not waited for.
		for _, s := range slow {
			if got := s.status(t); got != 408 {
				t.Errorf("a slow body = %d, want 408", got)
			}
			_ = s.Close()
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("slow bodies were waited for %s", took)
		}
		if len(w.refuse) != 0 {
			t.Errorf("bodies of nobody's count as refused: %q", w.refuse)
		}
		w.stop()
	})
}

// 40 bodies of 25 MiB that come slowly took 1.2 GiB, and 1.5 in chunks (issue 10).
// Each sends all but its end here, and the memory is measured while all of them
// wait. None of them is signed.
func TestBodiesOfNobodysHoldLittleMemory(t *testing.T) {
	for name, length := range map[string]int{"with a length": 25 << 20, "in chunks": -1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := serve(t)
				before := heap()
				var slow []sending
				part := make([]byte, 1<<20)
				for n := range 40 {
					s := w.begin(fmt.Sprint("slow-", n), "sha256=0", length)
					for range 24 {
						if length < 0 {
							_, _ = fmt.Fprintf(s, "%x\r\n", len(part))
						}
						if _, err := s.Write(part); err != nil {
							t.Fatal(err)
						}
						if length < 0 {
							_, _ = io.WriteString(s, "\r\n")
						}
					}
					slow = append(slow, s)
				}
				synctest.Wait()
				held := heap() - before
				t.Logf("40 bodies of 24 MiB hold %.1f MiB", float64(held)/(1<<20))
				if held > 48<<20 {
					t.Errorf("40 bodies of 24 MiB hold %d MiB", held>>20)
				}
				// GitHub's deliveries are taken meanwhile, small ones and large ones.
				for _, size := range []int{1 << 10, 60 << 10} {
					if got := w.send("signed", part[:size]); got != 202 {
						t.Errorf("a signed delivery of %d bytes = %d, want 202", size, got)
					}
				}
				for _, s := range slow {
					_ = s.Close()
				}
				synctest.Wait()
				if len(w.refuse) != 0 {
					t.Errorf("bodies of nobody's count as refused: %q", w.refuse)
				}
				w.stop()
			})
		})
	}
}

// heap is how many bytes are in use, of which nothing is garbage.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A signed body that had to be given up is answered 503 and counts as refused; the
// others are taken.
func TestTheLargestBodyGivesWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := serve(t)
		large := w.begin("large", signed, 16<<20)
		if _, err := large.Write(make([]byte, 16<<20-1)); err != nil {
			t.Fatal(err)
		}
		if got := w.send("small", make([]byte, 12<<20)); got != 202 {
			t.Errorf("the smaller of two large bodies = %d, want 202", got)
		}
		go func() { _, _ = large.Write([]byte{0}) }()
		if got := large.status(t); got != 503 {
			t.Errorf("the larger of two large bodies = %d, want 503", got)
		}
		_ = large.Close()
		if got := w.send("again", make([]byte, 16<<20)); got != 202 {
			t.Errorf("delivered again = %d, want 202", got)
		}
		if got := fmt.Sprint(w.taken, w.refuse); got != "[small again] [large acme]" {
			t.Errorf("taken and refused: %s", got)
		}
		w.stop()
	})
}

// Of 257 bodies that arrive at once the oldest gives way. It may have been
// GitHub's, so it counts for every target.
func TestTheOldestOfTooManyBodiesGivesWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := serve(t)
		var slow []sending
		for n := range 257 {
			slow = append(slow, w.begin(fmt.Sprint("slow-", n), "sha256=0", 1000))
			synctest.Wait()
		}
		if got := slow[0].status(t); got != 503 {
			t.Errorf("the oldest = %d, want 503", got)
		}
		if got := fmt.Sprint(w.refuse); got != "[slow-0]" {
			t.Errorf("refused: %s", got)
		}
		for _, s := range slow {
			_ = s.Close()
		}
		synctest.Wait()
		w.stop()
	})
}

// A body that goes on fast enough may take as long as github.com waits, and no
// longer.
func TestABodyHasATotalLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := serve(t)
		began := time.Now()
		s := w.begin("steady", signed, 25<<20)
		cut := make(chan struct{})
		go func() {
			defer close(cut)
			for {
				if _, err := s.Write(make([]byte, 32<<10)); err != nil {
					return
				}
				<-time.After(time.Second)
			}
		}()
		if got := s.status(t); got != 408 {
			t.Errorf("answer %d, want 408", got)
		}
		if took := time.Since(began); took != 8*time.Second {
			t.Errorf("cut off after %s, want 8s", took)
		}
		_ = s.Close()
		<-cut
		w.stop()
	})
}

// A signed delivery that finds no place within two seconds counts as refused.
func TestASignedDeliveryWithoutAPlaceCountsAsRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := serve(t)
		w.block = make(chan struct{})
		answers := make(chan int, 32)
		for n := range 32 {
			go func() { answers <- w.send(fmt.Sprint(n), []byte("{}")) }()
		}
		synctest.Wait()
		if got := w.send("one more", []byte("{}")); got != 503 {
			t.Errorf("one more = %d, want 503", got)
		}
		close(w.block)
		for range 32 {
			if got := <-answers; got != 202 {
				t.Errorf("one that had its place = %d, want 202", got)
			}
		}
		if got := fmt.Sprint(w.refuse); got != "[one more acme]" {
			t.Errorf("refused: %s", got)
		}
		w.stop()
	})
}
