package web_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/muster-fleet/muster/internal/web"
)

func server(ready func(context.Context) []web.Fault) *web.Server {
	return &web.Server{
		Log:   slog.New(slog.DiscardHandler),
		Ready: ready,
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "muster_up 1\n")
		}),
	}
}

func faults(fs ...web.Fault) func(context.Context) []web.Fault {
	return func(context.Context) []web.Fault { return fs }
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	broken := web.Fault{Text: "target acme: GitHub refuses\nits credential", Detail: true}
	away := web.Fault{Text: "reach Postgres: refused"}
	tests := []struct {
		name   string
		method string
		path   string
		ready  []web.Fault
		status int
		body   string
	}{
		{"alive", "GET", "/healthz", nil, 200, "ok\n"},
		{"alive though not ready", "GET", "/healthz", []web.Fault{away}, 200, "ok\n"},
		{"ready", "GET", "/readyz", nil, 200, "ready\n"},
		{"a detail does not fail", "GET", "/readyz", []web.Fault{broken}, 200,
			"ready\ndetail: target acme: GitHub refuses its credential\n"},
		{"faults stand first", "GET", "/readyz", []web.Fault{broken, away}, 503,
			"fault: reach Postgres: refused\ndetail: target acme: GitHub refuses its credential\n"},
		{"metrics", "GET", "/metrics", nil, 200, "muster_up 1\n"},
		{"no other path", "GET", "/healthz/x", nil, 404, "404 page not found\n"},
		{"no other method", "POST", "/readyz", nil, 405, "Method Not Allowed\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := httptest.NewRecorder()
			server(faults(tt.ready...)).Handler().ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, nil))
			if w.Code != tt.status || w.Body.String() != tt.body {
				t.Errorf("%s %s = %d %q, want %d %q", tt.method, tt.path, w.Code, w.Body, tt.status, tt.body)
			}
		})
	}
}

func TestReadinessIsAskedUnderALimit(t *testing.T) {
	t.Parallel()
	limited := false
	s := server(func(ctx context.Context) []web.Fault {
		_, limited = ctx.Deadline()
		return nil
	})
	s.Handler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/readyz", nil))
	if !limited {
		t.Error("Ready was asked without a deadline")
	}
}

// Stopping lets the answer under way go out, and frees the address.
func TestStopFinishesAnswersUnderWay(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	asked, answer := make(chan struct{}), make(chan struct{})
	s := server(func(context.Context) []web.Fault {
		close(asked)
		<-answer
		return nil
	})
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, listener) }()
	got := make(chan string, 1)
	go func() {
		res, err := http.Get("http://" + listener.Addr().String() + "/readyz")
		if err != nil {
			got <- err.Error()
			return
		}
		body, err := io.ReadAll(res.Body)
		if err := errors.Join(err, res.Body.Close()); err != nil {
			got <- err.Error()
			return
		}
		got <- string(body)
	}()
	<-asked
	stop()
	close(answer)
	if body := <-got; body != "ready\n" {
		t.Errorf("the answer under way was %q, want %q", body, "ready\n")
	}
	if err := <-ended; err != nil {
		t.Errorf("Serve = %v, want nil", err)
	}
	again, err := net.Listen("tcp", listener.Addr().String())
	if err != nil {
		t.Fatalf("the address is still taken: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}
