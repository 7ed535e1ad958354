package githubsim_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/github/githubsim"
)

// walker fetches the pages of a list, 16 at a time, and throws them away.
type walker struct {
	hc     *http.Client
	url    string // with the number of the page for %d
	pages  int
	zip    bool
	etags  []string // by page, once known
	status int      // that each answer has to have
}

func newWalker(url string, pages int) *walker {
	return &walker{
		hc:  &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16, DisableCompression: true}},
		url: url, pages: pages, etags: make([]string, pages), status: http.StatusOK,
	}
}

// walk takes so long, and so much of the processors, the server's part included.
func (w *walker) walk(tb testing.TB) took {
	tb.Helper()
	began, used := time.Now(), processors(tb)
	g, ctx := errgroup.WithContext(tb.Context())
	g.SetLimit(16)
	for i := range w.pages {
		g.Go(func() error { return w.fetch(ctx, i) })
	}
	if err := g.Wait(); err != nil {
		tb.Fatal(err)
	}
	return took{time.Since(began), processors(tb) - used}
}

type took struct{ wall, cpu time.Duration }

func (t took) plus(u took) took { return took{t.wall + u.wall, t.cpu + u.cpu} }

// processors is the time that this process has had on them.
func processors(tb testing.TB) time.Duration {
	tb.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func (w *walker) fetch(ctx context.Context, i int) error {
	resp, err := w.get(ctx, i)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != w.status {
		return fmt.Errorf("page %d: status %d, want %d", i+1, resp.StatusCode, w.status)
	}
	w.etags[i] = resp.Header.Get("ETag")
	return nil
}

func (w *walker) get(ctx context.Context, i int) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf(w.url, i+1), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "token "+credential)
	req.Header.Set("Accept", "application/vnd.github.v3+json")
	req.Header.Set("User-Agent", "muster/test")
	if w.zip {
		req.Header.Set("Accept-Encoding", "gzip")
	}
	if w.status == http.StatusNotModified {
		req.Header.Set("If-None-Match", w.etags[i])
	}
	return w.hc.Do(req)
}

// constant serves the same headers and as many bytes to everybody: as fast as a
// server in Go is.
func constant(b *testing.B, status int, like http.Header, size int) string {
	body := strings.Repeat("x", size)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for name, values := range like {
			w.Header()[name] = values
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	b.Cleanup(srv.Close)
	return srv.URL + "/?page=%d"
}

// BenchmarkPages walks 100,000 runners over 1,000 pages and says how many times
// as long as a handler takes that does nothing but write the same headers and
// that many bytes.
func BenchmarkPages(b *testing.B) {
	const runners, perPage = 100_000, 100
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s := githubsim.New(githubsim.Config{Seed: 1})
	if err := s.AddScope(org); err != nil {
		b.Fatal(err)
	}
	if _, err := s.CreateMany(org, runners, func(i int) githubsim.RunnerSpec {
		return githubsim.RunnerSpec{Name: fmt.Sprintf("build-%06d", i), Labels: []string{"gpu", "x"}, Online: i%10 != 0}
	}); err != nil {
		b.Fatal(err)
	}
	srv := httptest.NewServer(s.Handler())
	b.Cleanup(srv.Close)
	url := srv.URL + list + "?per_page=100&page=%d"
	newWalker(url, runners/perPage).walk(b) // makes the validators
	if err := s.Prepare(org, perPage); err != nil {
		b.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	memory := float64(after.HeapAlloc-before.HeapAlloc) / (1 << 20)

	for _, tt := range []struct {
		name   string
		zip    bool
		status int
	}{{"full", false, 200}, {"compressed", true, 200}, {"not modified", false, 304}} {
		b.Run(tt.name, func(b *testing.B) {
			of := newWalker(url, runners/perPage)
			of.zip = tt.zip
			of.walk(b) // for the validators
			of.status = tt.status
			header, size := of.sample(b)
			floor := newWalker(constant(b, tt.status, header, size), runners/perPage)
			floor.zip, floor.status = tt.zip, tt.status
			floor.walk(b)
			var sim, least took
			for b.Loop() {
				sim = sim.plus(of.walk(b))
				least = least.plus(floor.walk(b))
			}
			b.ReportMetric(float64(sim.wall)/float64(least.wall), "x-constant")
			b.ReportMetric(float64(sim.cpu)/float64(least.cpu), "x-constant-cpu")
			b.ReportMetric(float64(sim.wall.Microseconds())/float64(b.N)/float64(of.pages), "µs/page")
			b.ReportMetric(memory, "MB")
		})
	}
}

// sample is the header of a page, and its size as sent.
func (w *walker) sample(b *testing.B) (http.Header, int) {
	b.Helper()
	resp, err := w.get(b.Context(), w.pages/2)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil {
		b.Fatal(err)
	}
	if len(resp.TransferEncoding) > 0 { // which the client takes out
		resp.Header["Transfer-Encoding"] = resp.TransferEncoding
	}
	return resp.Header, int(n)
}
