package main

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/muster-fleet/muster/internal/web"
)

func TestAProbeIsMadeAtMostOnceInItsTime(t *testing.T) {
	t.Parallel()
	now, probes := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), 0
	var faults []web.Fault
	p := &prober{every: 10 * time.Second, now: func() time.Time { return now }, probe: func(ctx context.Context) []web.Fault {
		probes++
		if _, bounded := ctx.Deadline(); !bounded || ctx.Err() != nil {
			t.Errorf("probe %d has no time of its own: %v", probes, ctx.Err())
		}
		return faults
	}}
	gone, cancel := context.WithCancel(t.Context())
	cancel() // whoever asks first hangs up
	steps := []struct {
		after  time.Duration
		broken bool
		faults int // that are told
		probes int
	}{
		{0, false, 0, 1},
		{9999 * time.Millisecond, true, 0, 1},
		{time.Millisecond, true, 1, 2},
		{5 * time.Second, false, 1, 2},
		{5 * time.Second, false, 0, 3},
	}
	for i, step := range steps {
		now = now.Add(step.after)
		faults = nil
		if step.broken {
			faults = []web.Fault{{Text: "broken"}}
		}
		if got := p.found(gone); len(got) != step.faults || probes != step.probes {
			t.Errorf("step %d: %d faults after %d probes, want %d after %d", i, len(got), probes, step.faults, step.probes)
		}
	}
}

// readiness asks a running serve whether it is ready.
func (s system) readiness(t *testing.T) (int, string) {
	t.Helper()
	answer, err := http.Get("http://" + s.http + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }() // it was read
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

// sql runs statements as the owner of the database.
func (s system) sql(t *testing.T, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.env["MUSTER_DATABASE_URL"])
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }() // everything is committed
	for _, sql := range statements {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// fillTriggers gives the stream of triggers a small limit and fills it.
func (s system) fillTriggers(t *testing.T) {
	t.Helper()
	nc, err := nats.Connect(s.env["MUSTER_NATS_URL"])
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "MUSTER_TRIGGER")
	if err != nil {
		t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	cfg.MaxBytes = 64 << 10
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if _, err := js.Publish(t.Context(), "muster.v1.trigger.sync.nobody", make([]byte, 15<<10)); err != nil {
			return
		}
	}
	t.Fatal("the stream takes everything")
}

// Each fault makes muster not ready, and is a line of doctor that names the part.
func TestHealthNamesThePartThatCannotWork(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		spoil func(*testing.T, system)
		check string // of doctor
		says  string // /readyz and doctor
	}{
		{"Postgres only reads", func(t *testing.T, s system) {
			s.sql(t, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); END $$`,
				`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
		}, "postgres", "write a row to Postgres: unavailable: ERROR: cannot execute INSERT in a read-only transaction"},
		{"a newer schema", func(t *testing.T, s system) {
			s.sql(t, `UPDATE public.muster_schema_version SET version = version + 1`)
		}, "schema", "the schema is newer than this program"},
		{"a full stream", func(t *testing.T, s system) { s.fillTriggers(t) }, "nats", "stream MUSTER_TRIGGER is full"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := running(t)
			tt.spoil(t, s)
			eventually(t, "/readyz says "+tt.says, func() (string, bool) {
				code, body := s.readiness(t)
				return body, code == http.StatusServiceUnavailable && strings.Contains(body, tt.says)
			})
			said := checks(t, muster(t, s.env, "doctor", "-o", "json"))
			if levels(said)[tt.check] != levelFail || !strings.Contains(found(said)[tt.check], tt.says) {
				t.Errorf("doctor on %s = %s %q, want that it fails and says %q", tt.check, levels(said)[tt.check], found(said)[tt.check], tt.says)
			}
		})
	}
}

func TestAServiceThatCanWorkIsReady(t *testing.T) {
	t.Parallel()
	s := running(t)
	for range 2 { // the second answer is the first one's
		if code, body := s.readiness(t); code != http.StatusOK {
			t.Errorf("/readyz = %d %q, want 200", code, body)
		}
	}
}
