package web_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
)

// receives is what a webhook meets: a signature is good if it is signed.
type receives func(context.Context, fleet.Delivery) error

const signed = "sha256=abc"

func (f receives) Check(_ context.Context, signature string) fleet.SignatureCheck {
	return &check{signature: signature}
}

func (f receives) Take(ctx context.Context, d fleet.Delivery, _ []string) error { return f(ctx, d) }

func (f receives) Refuse(context.Context, fleet.Delivery, []string, string) {}

// check counts what it is shown.
type check struct {
	signature string
	length    int
}

func (c *check) Write(part []byte) (int, error) {
	c.length += len(part)
	return len(part), nil
}

func (c *check) Signers() ([]string, error) {
	if c.signature != signed {
		return nil, fleet.ErrUnauthorized
	}
	return []string{"acme"}, nil
}

func hook(contentType, body string) *http.Request {
	r := httptest.NewRequest("POST", "/webhooks/github", strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("X-GitHub-Event", "workflow_job")
	r.Header.Set("X-GitHub-Delivery", "0199b1c2")
	r.Header.Set("X-Hub-Signature-256", signed)
	r.Header.Set("X-Hub-Signature", "sha1=abc")
	return r
}

func TestWebhooksAreHandedOnAsTheyCame(t *testing.T) {
	t.Parallel()
	var got fleet.Delivery
	s := server(faults())
	s.Webhooks = receives(func(_ context.Context, d fleet.Delivery) error { got = d; return nil })
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, hook("application/json; charset=utf-8", " {}\n"))
	if w.Code != 202 || w.Body.String() != "accepted\n" {
		t.Errorf("answer %d %q, want 202", w.Code, w.Body)
	}
	want := fleet.Delivery{ID: "0199b1c2", Event: "workflow_job", Signature: "sha256=abc", Body: []byte(" {}\n")}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("handed on (-want +got):\n%s", diff)
	}
}

// endless is a body without end, whose length nobody tells.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// broken is a body that does not arrive.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("gone") }

func TestWebhookAnswers(t *testing.T) {
	t.Parallel()
	long := hook("application/json", "")
	long.ContentLength = 25<<20 + 1
	unending, lost := hook("application/json", ""), hook("application/json", "")
	unending.Body, unending.ContentLength = io.NopCloser(endless{}), -1
	lost.Body, lost.ContentLength = io.NopCloser(broken{}), 5
	get := hook("application/json", "{}")
	get.Method = "GET"
	never := errors.New("it was handed on")
	tests := []struct {
		name    string
		request *http.Request
		err     error // of the receiver
		status  int
		body    string
	}{
		{"nobody's", hook("application/json", "{}"), fmt.Errorf("geheim: %w", fleet.ErrUnauthorized), 401, "signature not accepted\n"},
		{"unreadable", hook("application/json", "{}"), fmt.Errorf("geheim: %w", fleet.ErrMalformed), 400, "not an event as GitHub sends them\n"},
		{"Postgres away", hook("application/json", "{}"), fmt.Errorf("geheim: %w", fleet.ErrUnavailable), 503, "not recorded: deliver it again later\n"},
		{"whatever else", hook("application/json", "{}"), errors.New("geheim"), 503, "not recorded: deliver it again later\n"},
		{"a form", hook("application/x-www-form-urlencoded", "payload={}"), never, 415, "set the webhook's content type to application/json\n"},
		{"no type", hook("", "{}"), never, 415, "set the webhook's content type to application/json\n"},
		{"too long", long, never, 413, "too large: GitHub sends 25 MiB at most\n"},
		{"without end", unending, never, 413, "too large: GitHub sends 25 MiB at most\n"},
		{"broken off", lost, never, 400, "the body did not arrive\n"},
		{"another method", get, never, 405, "Method Not Allowed\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := server(faults())
			s.Webhooks = receives(func(context.Context, fleet.Delivery) error {
				if errors.Is(tt.err, never) {
					t.Error("handed on")
				}
				return tt.err
			})
			w := httptest.NewRecorder()
			s.Handler().ServeHTTP(w, tt.request)
			if w.Code != tt.status || w.Body.String() != tt.body {
				t.Errorf("answer %d %q, want %d %q", w.Code, w.Body, tt.status, tt.body)
			}
		})
	}
}

func TestTheLongestWebhookIsTaken(t *testing.T) {
	t.Parallel()
	s := server(faults())
	length := 0
	s.Webhooks = receives(func(_ context.Context, d fleet.Delivery) error { length = len(d.Body); return nil })
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, hook("application/json", strings.Repeat("x", 25<<20)))
	if w.Code != 202 || length != 25<<20 {
		t.Errorf("answer %d, %d bytes handed on", w.Code, length)
	}
}

func TestALogOfWebhooksHoldsNeitherBodyNorSignature(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	s := server(faults())
	s.Log = slog.New(slog.NewTextHandler(&log, nil))
	s.Webhooks = receives(func(context.Context, fleet.Delivery) error { return fleet.ErrUnauthorized })
	r := hook("application/json", `{"canary":1}`)
	r.Header.Set("X-GitHub-Delivery", strings.Repeat("x", 5000))
	s.Handler().ServeHTTP(httptest.NewRecorder(), r)
	if text := log.String(); !strings.Contains(text, "webhook not taken in") || strings.Contains(text, "canary") ||
		strings.Contains(text, "abc") || len(text) > 500 {
		t.Errorf("log %q", text)
	}
}

func TestTooManyWebhooksAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := server(faults())
		open := make(chan struct{})
		s.Webhooks = receives(func(context.Context, fleet.Delivery) error { <-open; return nil })
		handler := s.Handler()
		send := func() int {
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, hook("application/json", "{}"))
			return w.Code
		}
		const atOnce = 32
		answers := make(chan int, atOnce)
		for range atOnce {
			go func() { answers <- send() }()
		}
		synctest.Wait()
		if got := send(); got != 503 {
			t.Errorf("one more = %d, want 503", got)
		}
		close(open)
		for range atOnce {
			if got := <-answers; got != 202 {
				t.Errorf("one that had its turn = %d, want 202", got)
			}
		}
		if got := send(); got != 202 {
			t.Errorf("one later = %d, want 202", got)
		}
	})
}
