package demo

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/muster-fleet/muster/queue"
)

// beating is how often hosts say what their runners do: every half minute or
// so, where a day is not a second.
const beating = time.Second

// report is what a host says of its runner, which has its name.
type report struct{ host, target, state string }

// beat has all hosts speak until ctx ends.
func (s *stage) beat(ctx context.Context) error {
	for {
		var all strings.Builder
		for _, r := range append(s.hosts.reports(), s.pool.reports()...) {
			body := fmt.Sprintf(`{"v":1,"runners":[{"target":%q,"name":%q,"state":%q}]}`, r.target, r.host, r.state)
			fmt.Fprintf(&all, "PUB %s %d\r\n%s\r\n", queue.HeartbeatSubject(r.host), len(body), body)
		}
		if err := s.publish(ctx, all.String()); err != nil && ctx.Err() == nil {
			return fmt.Errorf("send heartbeats: %w", err)
		}
		if wait(ctx, beating) != nil {
			return nil
		}
	}
}

// reports are those of the hosts that asked by themselves. Nobody gives them
// work.
func (h *hosts) reports() []report {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]report, len(h.up))
	for i, host := range h.up {
		all[i] = report{host.name, host.target, "idle"}
	}
	return all
}

// reports are those of the hosts of the pool. One that was released is switched
// off.
func (p *pool) reports() []report {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []report
	for _, h := range p.hosts {
		switch {
		case h.released:
		case h.drained:
			all = append(all, report{h.name, Pool, "stopped"})
		case h.job != 0:
			all = append(all, report{h.name, Pool, "busy"})
		default:
			all = append(all, report{h.name, Pool, "idle"})
		}
	}
	return all
}
