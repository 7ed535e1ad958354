package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// tests is a built test program of one package.
type tests struct {
	program string
	source  *source
	dir     string // for what runs leave
	env     []string
	jobs    int
	slack   time.Duration // what every run may take beyond what is expected

	names     []string
	took      map[string]time.Duration
	reachedBy map[int][]string // the tests that reach a mutant, the quickest first
}

// fate is what became of a mutant.
type fate struct {
	*mutant
	noticed bool
	reached bool // some test reaches it
}

// The limits of one run of tests. A mutant that makes them so much slower, or
// take so much memory, is noticed.
const (
	usualSlack  = 20 * time.Second
	slower      = 10
	memoryLimit = 8 << 20 // kilobytes of address space
)

// batch is how long the tests of the first run for a mutant take; the quickest
// notice most of them.
const batch = 500 * time.Millisecond

// survey runs each test by itself, without any mutant, to learn how long it
// takes and which mutants it reaches.
func (t *tests) survey(ctx context.Context) error {
	listing := exec.CommandContext(ctx, t.program, "-test.list", ".")
	listing.Dir = t.source.dir
	out, err := listing.Output()
	if err != nil {
		return fmt.Errorf("list the tests of %s: %w", t.source.folder, err)
	}
	for _, name := range strings.Fields(string(out)) {
		if !strings.HasPrefix(name, "Benchmark") {
			t.names = append(t.names, name)
		}
	}
	if len(t.names) == 0 {
		return fmt.Errorf("%s has no tests", t.source.folder)
	}
	took, reached := make([]time.Duration, len(t.names)), make([][]int, len(t.names))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(t.jobs)
	for i, name := range t.names {
		group.Go(func() error {
			var err error
			took[i], reached[i], err = t.one(ctx, name)
			return err
		})
	}
	err = group.Wait()
	if err != nil {
		return err
	}
	t.took, t.reachedBy = map[string]time.Duration{}, map[int][]string{}
	for i, name := range t.names {
		t.took[name] = took[i]
		for _, id := range reached[i] {
			t.reachedBy[id] = append(t.reachedBy[id], name)
		}
	}
	for _, names := range t.reachedBy {
		slices.SortFunc(names, func(a, b string) int { return cmp.Compare(t.took[a], t.took[b]) })
	}
	return nil
}

// one runs one test without any mutant.
func (t *tests) one(ctx context.Context, name string) (time.Duration, []int, error) {
	log := filepath.Join(t.dir, "reached-"+name)
	began := time.Now()
	out, failed, err := t.run(ctx, []string{name}, 10*time.Minute, reachedVar+"="+log)
	took := time.Since(began)
	if err != nil {
		return 0, nil, err
	}
	if failed {
		return 0, nil, fmt.Errorf("%s of %s fails without any mutant:\n%s", name, t.source.folder, out)
	}
	text, err := os.ReadFile(log)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, nil, err
	}
	var ids []int
	for _, word := range strings.Fields(string(text)) {
		id, err := strconv.Atoi(word)
		if err != nil {
			return 0, nil, fmt.Errorf("read what %s reached: %w", name, err)
		}
		ids = append(ids, id)
	}
	return took, ids, nil
}

// try switches a mutant on and runs the tests that reach it, until one fails.
func (t *tests) try(ctx context.Context, m *mutant) (fate, error) {
	rest := t.reachedBy[m.id]
	f := fate{mutant: m, reached: len(rest) > 0}
	for share := batch; len(rest) > 0; share *= 4 {
		var expected time.Duration
		n := 0
		for n < len(rest) && (n == 0 || expected+t.took[rest[n]] <= share) {
			expected += t.took[rest[n]]
			n++
		}
		_, failed, err := t.run(ctx, rest[:n], t.slack+slower*expected, onVar+"="+strconv.Itoa(m.id))
		if err != nil {
			return f, err
		}
		if failed {
			f.noticed = true
			return f, nil
		}
		rest = rest[n:]
	}
	return f, nil
}

// run runs some tests, and reports whether they fail or take longer than limit.
// The error is that they could not be run.
func (t *tests) run(ctx context.Context, names []string, limit time.Duration, env string) (out []byte, failed bool, err error) {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = regexp.QuoteMeta(name)
	}
	args := []string{t.program, "-test.run", "^(" + strings.Join(quoted, "|") + ")$", "-test.failfast", "-test.timeout", limit.String()}
	if t.source.rapid {
		// The same random values each time; and what a mutant breaks is no
		// example to keep.
		args = append(args, "-rapid.seed=1", "-rapid.nofailfile", "-rapid.shrinktime=1ms")
	}
	limited, cancel := context.WithTimeout(ctx, limit+usualSlack)
	defer cancel()
	shell := fmt.Sprintf(`ulimit -v %d && exec "$0" "$@"`, memoryLimit)
	cmd := exec.CommandContext(limited, "sh", append([]string{"-c", shell}, args...)...)
	cmd.Dir = t.source.dir
	cmd.Env = append(os.Environ(), append(t.env, env)...)
	// A server that a test started goes with the test.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = usualSlack
	out, err = cmd.CombinedOutput()
	if ctx.Err() != nil {
		return out, false, ctx.Err()
	}
	if err == nil {
		return out, false, nil
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) || errors.Is(err, exec.ErrWaitDelay) || limited.Err() != nil {
		return out, true, nil
	}
	return out, false, fmt.Errorf("run tests of %s: %w", t.source.folder, err)
}
