// Package web is muster's HTTP listener: liveness, readiness, metrics, and
// GitHub's webhooks.
package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/fleet"
)

const (
	// readyLimit is how long the question for readiness may take, so that
	// probes do not pile up while Postgres hangs.
	readyLimit = 3 * time.Second
	// stopLimit is how long answers under way may take once the server stops.
	stopLimit = 5 * time.Second
	// maxHeader is in bytes; GitHub sends one or two thousand.
	maxHeader = 16 << 10
)

// Fault is one thing that is not as it should be.
type Fault struct {
	// Text is one line: what is wrong with what, and why.
	Text string
	// Detail marks what operators should know and what does not keep muster
	// from its work, such as one broken target.
	Detail bool
}

// Server answers /healthz, /readyz, /metrics and /webhooks/github. Its fields
// are required and not changed once it runs.
type Server struct {
	Log      *slog.Logger
	Ready    func(context.Context) []Fault // called per request, from many goroutines
	Metrics  http.Handler
	Webhooks receiver // likewise
}

// Serve answers until ctx ends, then lets answers under way finish and returns
// nil. It closes the listener.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	server := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	group, stopped := errgroup.WithContext(ctx)
	group.Go(func() error {
		err := server.Serve(listener)
		if !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve http on %s: %w", listener.Addr(), err)
		}
		return nil
	})
	group.Go(func() error {
		<-stopped.Done()
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
		defer cancel()
		if server.Shutdown(limit) != nil {
			_ = server.Close() // cuts off whoever is still reading an answer
		}
		return nil
	})
	s.Log.InfoContext(ctx, "web listener ready", "address", listener.Addr().String())
	return group.Wait()
}

// Handler routes the requests. Unknown paths are answered 404, other methods
// than a path has 405.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		plain(w, http.StatusOK, "ok")
	})
	mux.HandleFunc("GET /readyz", s.ready)
	mux.Handle("GET /metrics", s.Metrics)
	mux.HandleFunc("POST /webhooks/github", s.webhook())
	return mux
}

// ready lists what is wrong, one line each, faults before details.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyLimit)
	defer cancel()
	var faults, details []string
	for _, f := range s.Ready(ctx) {
		line := strings.Join(strings.Fields(f.Text), " ")
		if f.Detail {
			details = append(details, "detail: "+line)
		} else {
			faults = append(faults, "fault: "+line)
		}
	}
	if len(faults) > 0 {
		plain(w, http.StatusServiceUnavailable, append(faults, details...)...)
		return
	}
	plain(w, http.StatusOK, append([]string{"ready"}, details...)...)
}

func plain(w http.ResponseWriter, status int, lines ...string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	for i, line := range lines {
		lines[i] = fleet.Shown(line)
	}
	_, _ = io.WriteString(w, strings.Join(lines, "\n")+"\n") // the asker may have gone
}
