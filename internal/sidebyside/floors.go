package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
)

// inFlight is how many pages a client of muster's has in flight.
const inFlight = 16

// newHTTPClient is set as the one of muster's client is.
func newHTTPClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConnsPerHost: inFlight, IdleConnTimeout: 90 * time.Second,
	}}
}

// fetch asks for the pages of a listing, and throws away what it is sent.
type fetch struct {
	to          string // api_url
	hc          *http.Client
	conditional bool
	etags       []string // what prepare got, by page
}

// prepare gets the validators, over connections of its own.
func (f *fetch) prepare(ctx context.Context, runners int) error {
	if !f.conditional {
		return nil
	}
	first := &fetch{to: f.to, hc: newHTTPClient()}
	defer first.close()
	var err error
	f.etags, _, err = first.walk(ctx, runners, nil)
	return err
}

func (f *fetch) act(ctx context.Context, runners int) (figures, error) {
	conditions := f.etags
	if runners == 1 {
		conditions = nil // they are of the other fleet
	}
	etags, notModified, err := f.walk(ctx, runners, conditions)
	return figures{Runners: runners, Calls: len(etags), NotModified: notModified}, err
}

// walk fetches all pages and returns their validators, and how many GitHub
// says have not changed.
func (f *fetch) walk(ctx context.Context, runners int, conditions []string) ([]string, int, error) {
	etags := make([]string, (runners+perPage-1)/perPage)
	var notModified atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(inFlight)
	for i := range etags {
		g.Go(func() error {
			condition := ""
			if conditions != nil {
				condition = conditions[i]
			}
			etag, same, err := f.page(ctx, runners, i+1, condition)
			if same {
				notModified.Add(1)
			}
			etags[i] = etag
			return err
		})
	}
	err := g.Wait()
	return etags, int(notModified.Load()), err
}

// page returns the validator of a page, and whether GitHub says that it has
// not changed.
func (f *fetch) page(ctx context.Context, runners, number int, condition string) (string, bool, error) {
	url := fmt.Sprintf("%s/orgs/%s/actions/runners?per_page=%d&page=%d", f.to, org(runners).Owner, perPage, number)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", false, err
	}
	// As muster asks: the validators depend on it.
	req.Header.Set("Accept", "application/vnd.github.v3+json")
	req.Header.Set("Authorization", "token "+credential)
	req.Header.Set("User-Agent", "sidebyside")
	if condition != "" {
		req.Header.Set("If-None-Match", condition)
	}
	resp, err := f.hc.Do(req)
	if err != nil {
		return "", false, err
	}
	defer func() { _ = resp.Body.Close() }() // all that counts has been read
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return "", false, err
	}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNotModified {
		return "", false, fmt.Errorf("page %d: status %d", number, resp.StatusCode)
	}
	return resp.Header.Get("ETag"), resp.StatusCode == http.StatusNotModified, nil
}

func (f *fetch) close() { f.hc.CloseIdleConnections() }

// decode lists a fleet through muster's client.
type decode struct{ gh *github.Client }

func (*decode) prepare(context.Context, int) error { return nil }

func (d *decode) act(ctx context.Context, runners int) (figures, error) {
	l, err := d.gh.Runners(ctx, org(runners), fleet.KeptListing{})
	if err == nil {
		err = l.Incomplete
	}
	return figures{Runners: len(l.Runners), Calls: l.Calls, NotModified: l.NotModified}, err
}

func (*decode) close() {}

// copying sends rows that are ready to be sent into an empty table with the
// columns and the primary key of muster.runner.
type copying struct {
	conn *pgx.Conn
	rows []byte
}

func newCopy(ctx context.Context, j job) (*copying, error) {
	rows, err := os.ReadFile(j.Rows)
	if err != nil {
		return nil, err
	}
	conn, err := pgx.Connect(ctx, j.Database)
	return &copying{conn, rows}, err
}

func (c *copying) prepare(ctx context.Context, _ int) error {
	_, err := c.conn.Exec(ctx, `
		DROP TABLE IF EXISTS public.raw;
		CREATE TABLE public.raw (LIKE muster.runner, PRIMARY KEY (target, runner_id))`)
	return err
}

func (c *copying) act(ctx context.Context, runners int) (figures, error) {
	if runners == 1 {
		return figures{}, c.conn.Ping(ctx)
	}
	tag, err := c.conn.PgConn().CopyFrom(ctx, bytes.NewReader(c.rows), `COPY public.raw FROM STDIN (FORMAT binary)`)
	return figures{Runners: int(tag.RowsAffected()), Statements: 1}, err
}

func (c *copying) close() { _ = c.conn.Close(context.Background()) } // the server ends the session in any case
