package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/queue"
)

// stage is where the story is played.
type stage struct {
	tell    *teller
	sim     *githubsim.Sim
	cast    Cast
	record  *db.DB
	natsURL string
	hosts   hosts
	pool    pool
	quiet   string // when the flapping had stopped, by Postgres's clock
	// heard is whether the account has come to the halt: events are told when
	// they arrive, and what has been committed may still be on its way.
	heard atomic.Bool
}

// play runs the story until everything has happened that should, or the time
// is over, and then lets it come to rest; the checks say how it went. All the
// while it tells what muster's events say.
func (s *stage) play(ctx context.Context, limit, watch time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.listen(ctx) })
	g.Go(func() error { return s.provision(ctx) })
	g.Go(func() error { return s.beat(ctx) })
	g.Go(func() error {
		defer cancel()
		if err := s.act(ctx, limit); err != nil {
			return err
		}
		if watch > 0 {
			s.tell.say("The story is over; watching for another %s.", watch)
			if err := wait(ctx, watch); err != nil {
				return err
			}
		}
		return s.settle(ctx)
	})
	return g.Wait()
}

// act has runners flap, hosts ask and workflow jobs run until the story is
// over.
func (s *stage) act(ctx context.Context, limit time.Duration) error {
	acting, cancel := context.WithCancel(ctx)
	defer cancel()
	g, acting := errgroup.WithContext(acting)
	g.Go(func() error { return s.flap(acting) })
	g.Go(func() error { return s.work(acting, limit) })
	g.Go(func() error {
		defer cancel()
		if err := s.askForTokens(acting); err != nil {
			return err
		}
		if err := s.knock(acting); err != nil {
			return err
		}
		s.tell.say("something outside of muster publishes muster.v1.trigger.sync.acme, with an empty body")
		return until(acting, limit, s.over)
	})
	return g.Wait()
}

// over reports whether all that the story wants to show has happened.
func (s *stage) over(ctx context.Context) (bool, error) {
	due := len(s.cast.Dead["octo"]) + len(s.cast.Dead["acme"])
	t, err := s.record.ReadAPI(ctx, `
		SELECT
			(SELECT count(*) FROM api.actions WHERE state = 'done' AND target <> $3) >= $1
			AND (SELECT count(DISTINCT runner_id) FROM api.actions WHERE state = 'spared') >= 2
			AND EXISTS (SELECT FROM api.policies WHERE target = $2 AND state = 'halted')
			AND (SELECT count(*) FROM api.workflow_jobs WHERE target = $3 AND state = 'completed') = $4
			AND EXISTS (SELECT FROM api.actions WHERE target = $3 AND state = 'done')
			AND EXISTS (SELECT FROM api.runs WHERE source = 'nats' AND state = 'done')`, due, Halting, Pool, poolJobs)
	if err != nil {
		return false, err
	}
	return t.Rows[0][0] == "true", nil
}

// settle lets what is under way come to its end: flapping runners stay where
// they are, and the record catches up with them.
func (s *stage) settle(ctx context.Context) error {
	for target, ids := range s.cast.Flapping {
		for _, id := range ids {
			if err := s.sim.Connect(targets[target], id); err != nil {
				return fmt.Errorf("connect %s/%d: %w", target, id, err)
			}
		}
	}
	s.tell.say("the flapping stops; one more sync of everything")
	var err error
	if s.quiet, err = s.value(ctx, `SELECT clock_timestamp()::text`); err != nil {
		return err
	}
	return until(ctx, 15*time.Second, func(ctx context.Context) (bool, error) {
		t, err := s.record.ReadAPI(ctx, `
			SELECT (SELECT count(*) FROM api.runners WHERE removed_at IS NULL AND status = 'offline')
				= $1 AND NOT EXISTS (SELECT FROM api.actions WHERE state = 'intended')
				AND NOT EXISTS (SELECT FROM api.tokens WHERE outcome = 'requested')
				AND NOT EXISTS (SELECT FROM api.leases WHERE state <> 'online')
				AND NOT EXISTS (SELECT FROM api.runs WHERE state = 'running')
				AND NOT EXISTS (SELECT FROM api.ticks t LEFT JOIN api.runs r USING (trigger_id)
					WHERE t.state = 'fired' AND t.tick_at <= $2::timestamptz AND r.trigger_id IS NULL)`,
			s.offlineInTruth(), s.quiet)
		if err != nil {
			return false, err
		}
		drained, released := s.pool.left()
		return t.Rows[0][0] == "true" && s.heard.Load() && released == drained, nil
	})
}

func (s *stage) offlineInTruth() int {
	n := 0
	for _, scope := range everywhere() {
		for _, r := range s.sim.Snapshot(scope) {
			if !r.Online {
				n++
			}
		}
	}
	return n
}

// flap has some runners come and go, never offline for long.
func (s *stage) flap(ctx context.Context) error {
	for up := false; ; up = !up {
		for target, ids := range s.cast.Flapping {
			for _, id := range ids {
				change := s.sim.Kill
				if up {
					change = s.sim.Connect
				}
				if err := change(targets[target], id); err != nil {
					return fmt.Errorf("flap %s/%d: %w", target, id, err)
				}
			}
		}
		if wait(ctx, 3*time.Second) != nil {
			return nil
		}
	}
}

// listening has room for all that a sync or a pass over the fleet may tell at
// once. What is still too much for it is dropped: an account may lack a line.
var listening = queue.Service{
	Subject: "muster.v1.event.>", Group: "demo", Workers: 64, Overflow: func(queue.Request) {},
}

// listen tells what muster's events say, a few lines at a time.
func (s *stage) listen(ctx context.Context) error {
	conn, err := queue.Connect(ctx, queue.Config{URL: s.natsURL, Name: "demo-listener", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return fmt.Errorf("listen to events: %w", err)
	}
	defer conn.Close()
	var mu sync.Mutex
	var all []happening
	flush := func() {
		mu.Lock()
		lines := summary(all)
		all = nil
		mu.Unlock()
		for _, line := range lines {
			s.tell.say("%s", line)
		}
	}
	defer flush()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return conn.Serve(ctx, listening, func(_ context.Context, r queue.Request) {
			if h, ok := readHappening(r.Body); ok {
				mu.Lock()
				all = append(all, h)
				mu.Unlock()
				if h.typ == "policy.halted" {
					s.heard.Store(true)
				}
			}
		})
	})
	g.Go(func() error {
		for wait(ctx, time.Second) == nil {
			flush()
		}
		return nil
	})
	return g.Wait()
}

// knock publishes a trigger as any program can.
func (s *stage) knock(ctx context.Context) error {
	if err := s.publish(ctx, "PUB muster.v1.trigger.sync.acme 0\r\n\r\n"); err != nil {
		return fmt.Errorf("publish a trigger from outside: %w", err)
	}
	return nil
}

// publish sends messages in the words of NATS, which are lines of text on a
// socket, and waits until the server has read them.
func (s *stage) publish(ctx context.Context, messages string) error {
	u, err := url.Parse(s.natsURL)
	if err != nil {
		return err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // the PONG has told that all arrived
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	password, _ := u.User.Password()
	login := fmt.Sprintf(`{"verbose":false,"user":%q,"pass":%q}`, u.User.Username(), password)
	if _, err := fmt.Fprintf(conn, "CONNECT %s\r\n%sPING\r\n", login, messages); err != nil {
		return err
	}
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		switch line := lines.Text(); {
		case strings.HasPrefix(line, "PONG"):
			return nil
		case strings.HasPrefix(line, "-ERR"):
			return fmt.Errorf("the server says %s", line)
		}
	}
	return errors.New("the server said nothing")
}
