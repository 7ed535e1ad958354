package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/queue"
)

// The pool of the story: a target of its own that has no runner yet, so that
// all that is there has been asked for.
const (
	Pool     = "forge" // and its target
	poolMin  = 1
	poolMax  = 4
	poolJobs = 8 // two for each host
)

var forge = fleet.Scope{Kind: fleet.ScopeRepo, Owner: "acme", Repo: "forge"}

// hookSecret is what the simulator signs its events with.
const hookSecret = "demo-hook-secret-9e41d2"

// pool is what the hosts of the pool do, and the workflow jobs that are queued
// for them.
type pool struct {
	mu    sync.Mutex
	hosts []*poolHost
	queue []int64 // workflow jobs that wait
}

// poolHost is one host that was asked for.
type poolHost struct {
	request  string // that it came of
	name     string
	runner   int64
	job      int64 // that it is at; 0: none
	drained  bool  // it takes no workflow job any more
	released bool
}

// wanted is a message that asks for a host.
type wanted struct {
	RequestID string    `json:"request_id"`
	Target    string    `json:"target"`
	Labels    []string  `json:"labels"`
	Deadline  time.Time `json:"deadline"`
}

// provision makes a host for each message, as docs/examples/provision.sh and
// local-host.sh do, until ctx ends.
func (s *stage) provision(ctx context.Context) error {
	conn, err := queue.Connect(ctx, queue.Config{
		URL: s.natsURL, Name: "provision-" + Pool, InboxPrefix: "_INBOX_provision." + Pool, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("provision pool %s: %w", Pool, err)
	}
	defer conn.Close()
	requests := queue.Consumer{Stream: "MUSTER_PROVISION", Durable: Pool, Subjects: []string{queue.ProvisionSubject(Pool)}}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return conn.Consume(ctx, requests, func(_ context.Context, m queue.Message) queue.Verdict {
			return s.bring(ctx, m.Body, func(h *poolHost) { g.Go(func() error { return s.live(ctx, h) }) })
		})
	})
	return g.Wait()
}

// bring makes the host that a message asks for, and says what becomes of the
// message: it is done with once the host is under way, or not wanted any more.
func (s *stage) bring(ctx context.Context, body []byte, begin func(*poolHost)) queue.Verdict {
	var w wanted
	if err := json.Unmarshal(body, &w); err != nil {
		return queue.Term(err.Error())
	}
	if s.pool.of(w.RequestID) || w.Deadline.Before(time.Now()) {
		return queue.Ack()
	}
	first, _, _ := strings.Cut(w.RequestID, "-")
	h := &poolHost{request: w.RequestID, name: Pool + "-" + first}
	got, err := s.ask(ctx, h.name, tokenRequest{Target: w.Target, Kind: "registration", RequestID: uuid.NewString(), DemandID: w.RequestID})
	switch {
	case err == nil && got.Code == 409:
		return queue.Ack()
	case err != nil || got.Token == "":
		return queue.Retry(time.Second)
	}
	scope, runner, err := s.sim.RegisterRunner(got.Token, githubsim.RunnerSpec{Name: h.name, Labels: w.Labels})
	if err == nil {
		err = s.sim.Connect(scope, runner)
	}
	if err != nil {
		return queue.Retry(time.Second)
	}
	h.runner = runner
	s.pool.mu.Lock()
	s.pool.hosts = append(s.pool.hosts, h)
	s.pool.mu.Unlock()
	begin(h)
	return queue.Ack()
}

// of reports whether there is a host of that request.
func (p *pool) of(request string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.hosts {
		if h.request == request {
			return true
		}
	}
	return false
}

// live has a host answer when it is drained and hear that it is released, until
// ctx ends.
func (s *stage) live(ctx context.Context, h *poolHost) error {
	conn, err := queue.Connect(ctx, queue.Config{
		URL: s.natsURL, Name: h.name, InboxPrefix: "_INBOX_host." + h.name, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("host %s connects: %w", h.name, err)
	}
	defer conn.Close()
	g, ctx := errgroup.WithContext(ctx)
	hear := func(subject string, handle func(queue.Request)) {
		g.Go(func() error {
			service := queue.Service{Subject: subject, Group: h.name, Overflow: func(queue.Request) {}} // whoever asks asks again
			return conn.Serve(ctx, service, func(_ context.Context, r queue.Request) { handle(r) })
		})
	}
	hear(queue.DrainSubject(h.name), func(r queue.Request) {
		_ = r.Respond(fmt.Appendf(nil, `{"v":1,"busy":%t}`, s.pool.drain(h)), nil) // unanswered, it is spared
	})
	hear(queue.ReleaseSubject(h.name), func(queue.Request) {
		if s.pool.release(h) {
			s.tell.say("%s was drained and is released", h.name)
		}
	})
	return g.Wait()
}

// drain keeps a host from taking another workflow job, and returns whether it
// is at one: then nothing has changed.
func (p *pool) drain(h *poolHost) (busy bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h.drained = h.drained || h.job == 0
	return !h.drained
}

// release reports whether it is news.
func (p *pool) release(h *poolHost) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	news := !h.released
	h.released = true
	return news
}

// work queues workflow jobs for the pool once muster knows what there is, and
// has its hosts do them. A job takes as long as muster takes to hear of all
// that run, and those of the first round as long as the pool takes to grow.
func (s *stage) work(ctx context.Context, limit time.Duration) error {
	ready := func(ctx context.Context) (bool, error) {
		found, err := s.value(ctx, `SELECT count(*) FROM api.pools WHERE pool = $1 AND online >= min AND confidence = 'known'`, Pool)
		return found == "1", err
	}
	err := until(ctx, limit, ready)
	if err == nil {
		err = s.queueJobs()
	}
	if err == nil {
		s.tell.say("%d workflow jobs are queued for the pool %s, which has one host and may have %d", poolJobs, Pool, poolMax)
		err = until(ctx, limit, s.oneRound)
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (s *stage) queueJobs() error {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	var run int64
	for range poolJobs {
		id, err := s.sim.QueueJob(forge, githubsim.JobSpec{Labels: []string{"self-hosted", Pool}, RunID: run})
		if err != nil {
			return err
		}
		s.pool.queue = append(s.pool.queue, id)
		if run == 0 {
			jobs := s.sim.Jobs()
			run = jobs[len(jobs)-1].RunID
		}
	}
	return nil
}

// oneRound has each host that waits take a workflow job, and ends those jobs
// that muster has heard of, all together. It reports whether all are over.
func (s *stage) oneRound(ctx context.Context) (over bool, err error) {
	atWork, over, err := s.takeJobs()
	if over || err != nil {
		return over, err
	}
	heard, err := s.value(ctx, `
		SELECT (SELECT count(*) FROM api.leases WHERE pool = $1 AND state = 'online') || ' ' ||
			(SELECT count(*) FROM api.workflow_jobs WHERE target = $1 AND state = 'in_progress')`, Pool)
	if err != nil || heard != fmt.Sprintf("%d %d", poolMax, atWork) {
		return false, err
	}
	return false, s.finishJobs()
}

func (s *stage) takeJobs() (atWork int, over bool, err error) {
	p := &s.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.hosts {
		if h.job == 0 && !h.drained && len(p.queue) > 0 {
			if err := s.sim.RunJob(forge, h.runner, p.queue[0]); err != nil {
				return 0, false, fmt.Errorf("host %s takes a workflow job: %w", h.name, err)
			}
			h.job, p.queue = p.queue[0], p.queue[1:]
		}
		if h.job != 0 {
			atWork++
		}
	}
	return atWork, atWork == 0 && len(p.queue) == 0, nil
}

func (s *stage) finishJobs() error {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	for _, h := range s.pool.hosts {
		if h.job == 0 {
			continue
		}
		if err := s.sim.FinishJob(h.job, "success"); err != nil {
			return fmt.Errorf("host %s finishes a workflow job: %w", h.name, err)
		}
		h.job = 0
	}
	return nil
}

// left is how many hosts said that they may go, and how many of them were
// released.
func (p *pool) left() (drained, released int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.hosts {
		if h.drained {
			drained++
		}
		if h.released {
			released++
		}
	}
	return drained, released
}

// mayGo reports whether the host of a runner said so.
func (p *pool) mayGo(runner int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.hosts {
		if h.runner == runner {
			return h.drained
		}
	}
	return false
}
