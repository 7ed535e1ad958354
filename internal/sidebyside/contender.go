package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/worker/inventory"
)

// kind is what a contender does.
type kind string

const (
	kindSync       kind = "sync"       // what muster does
	kindDecode     kind = "decode"     // list through muster's client, and keep nothing
	kindDiscard    kind = "discard"    // fetch all pages and throw the bytes away
	kindRevalidate kind = "revalidate" // ask for all pages on the condition that they have changed
	kindCopy       kind = "copy"       // COPY rows into a table
)

// job is what a contender is first told. Unless it is to begin at once its
// answer is {}, after which it waits for another {} to begin; when it is done
// its answer is figures.
type job struct {
	Kind     kind
	Runners  int
	APIURL   string
	Database string
	Rows     string // file with the rows to COPY, in Postgres's binary format
	Parallel int    // pages in flight; 0: as many as muster has
	// Cold has it begin at once, with nothing connected. Otherwise it does the
	// same for a fleet of one first, as a service has that has been running.
	Cold bool
}

// figures are what a contender took and what it saw.
type figures struct {
	Wall, CPU   time.Duration
	PeakBytes   int64 // resident, since the process began; 0: unknown
	Statements  int64
	Runners     int
	Calls       int
	NotModified int
	Protocols   string
	Rows        int64 // written
	WALBytes    int64
	Err         string
}

// work is one contender: act does it for a fleet of that size, and may be
// called for a fleet of one before. After prepare nothing is left to be read
// but what is measured.
type work interface {
	prepare(ctx context.Context, runners int) error
	act(ctx context.Context, runners int) (figures, error)
	close()
}

func playContender(ctx context.Context, in io.Reader, out io.Writer) error {
	heard, say := json.NewDecoder(in), json.NewEncoder(out)
	var j job
	if err := heard.Decode(&j); err != nil {
		return fmt.Errorf("read what to do: %w", err)
	}
	f, err := contend(ctx, j, func() error {
		if err := say.Encode(struct{}{}); err != nil {
			return err
		}
		return heard.Decode(&struct{}{})
	})
	if err != nil {
		f.Err = err.Error()
	}
	return say.Encode(f)
}

// contend does the job, after ready has returned where it is not to begin cold.
func contend(ctx context.Context, j job, ready func() error) (figures, error) {
	w, err := j.work(ctx)
	if err != nil {
		return figures{}, err
	}
	defer w.close()
	if err := w.prepare(ctx, j.Runners); err != nil {
		return figures{}, err
	}
	if !j.Cold {
		if _, err := w.act(ctx, 1); err != nil {
			return figures{}, fmt.Errorf("warm up: %w", err)
		}
		if err := ready(); err != nil {
			return figures{}, err
		}
	}
	began, spent := time.Now(), processorTime()
	f, err := w.act(ctx, j.Runners)
	f.Wall, f.CPU, f.PeakBytes = time.Since(began), processorTime()-spent, peakMemory()
	return f, err
}

func (j job) work(ctx context.Context) (work, error) {
	switch j.Kind {
	case kindSync:
		return newSync(ctx, j)
	case kindDecode:
		gh, err := j.client()
		return &decode{gh}, err
	case kindDiscard:
		return &fetch{to: j.APIURL, hc: newHTTPClient()}, nil
	case kindRevalidate:
		return &fetch{to: j.APIURL, hc: newHTTPClient(), conditional: true}, nil
	case kindCopy:
		return newCopy(ctx, j)
	}
	return nil, fmt.Errorf("%q is nothing that a contender does", j.Kind)
}

func (j job) client() (*github.Client, error) {
	return github.New(github.Config{
		APIURL: j.APIURL, UserAgent: "muster/sidebyside", Concurrency: j.Parallel, Unpaced: true,
		Token: func(context.Context) (fleet.Secret, error) { return fleet.NewSecret(credential), nil },
	})
}

// syncs is muster: the sync job as the service wires it, with the defaults of
// production.
type syncs struct {
	db         *db.DB
	syncer     *inventory.Syncer
	statements counter
	last       fleet.Sync
}

func newSync(ctx context.Context, j job) (*syncs, error) {
	gh, err := j.client()
	if err != nil {
		return nil, err
	}
	s := &syncs{}
	if s.db, err = db.OpenTraced(ctx, j.Database, &s.statements); err != nil {
		return nil, err
	}
	targets := map[string]inventory.Target{}
	for _, runners := range []int{1, j.Runners} {
		targets[org(runners).Owner] = inventory.Target{
			Target: fleet.Target{
				Name: org(runners).Owner, Scope: org(runners), APIURL: j.APIURL, MaxObservationGap: time.Hour,
			},
			GitHub: gh,
		}
	}
	s.syncer = &inventory.Syncer{
		Log: slog.New(slog.DiscardHandler), DB: s.db, Now: s.db.Now,
		Targets: func() map[string]inventory.Target { return targets },
		Observe: func(done fleet.Sync) { s.last = done },
	}
	return s, nil
}

func (s *syncs) prepare(context.Context, int) error { return nil }

func (s *syncs) act(ctx context.Context, runners int) (figures, error) {
	before := s.statements.n.Load()
	_, err := s.syncer.Handle(ctx, fleet.Trigger{
		ID: uuid.NewString(), Job: fleet.JobSync, Name: org(runners).Owner, Source: fleet.SourceCLI,
	})
	f := figures{
		Statements: s.statements.n.Load() - before,
		Runners:    s.last.Runners, Calls: s.last.APICalls, NotModified: s.last.NotModified,
	}
	if err == nil && s.last.Outcome != fleet.SyncComplete {
		err = fmt.Errorf("sync of %d runners is %s: %s", runners, s.last.Outcome, s.last.Error)
	}
	return f, err
}

func (s *syncs) close() { s.db.Close() }

// counter counts the statements that are sent to Postgres.
type counter struct{ n atomic.Int64 }

func (c *counter) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	c.n.Add(1)
	return ctx
}
func (*counter) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (c *counter) TraceCopyFromStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceCopyFromStartData) context.Context {
	c.n.Add(1)
	return ctx
}
func (*counter) TraceCopyFromEnd(context.Context, *pgx.Conn, pgx.TraceCopyFromEndData) {}
