package worker

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// stop waits for the end of the intake, lets what runs finish for Grace, and
// cancels it then. Both stages are logged with what is still running. It returns
// at once when the engine has stopped.
func (e *Engine) stop(intake context.Context, stopped <-chan struct{}, cancel context.CancelCauseFunc) {
	select {
	case <-intake.Done():
	case <-stopped:
		return
	}
	ctx := context.WithoutCancel(intake)
	running := e.going.names()
	e.Log.InfoContext(ctx, "stopping: no new triggers are taken, what runs may finish", "running", running, "for", e.Grace)

	grace := time.NewTimer(e.Grace)
	defer grace.Stop()
	select {
	case <-grace.C:
		e.Log.WarnContext(ctx, "stopping: what still runs is interrupted, and comes again", "running", e.going.names())
		cancel(errStopped)
	case <-stopped:
		e.Log.InfoContext(ctx, "stopping: all that ran has finished")
	}
}

// going are the triggers whose jobs run in this process. The zero value is
// ready, and safe for concurrent use.
type going struct {
	mu  sync.Mutex
	all map[string]string // JOB NAME by id
}

func (g *going) begin(t fleet.Trigger) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.all == nil {
		g.all = map[string]string{}
	}
	g.all[t.ID] = string(t.Job) + " " + t.Name
}

func (g *going) end(t fleet.Trigger) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.all, t.ID)
}

// names are the jobs that run with their names, sorted.
func (g *going) names() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	names := make([]string, 0, len(g.all))
	for _, name := range g.all {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
