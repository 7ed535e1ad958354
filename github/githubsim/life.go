package githubsim

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// change does something to one runner under the lock.
func (s *Sim) change(scope fleet.Scope, id int64, do func(st *scopeState, r *runner, now time.Time) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := s.in(scope)
	if err != nil {
		return err
	}
	r := st.byID[id]
	if r == nil {
		return fmt.Errorf("github simulator: runner %d of %s: registration deleted: %w", id, scope, fleet.ErrNotFound)
	}
	now := s.config.Now()
	r.settle(now)
	err = do(st, r, now)
	st.touch(r)
	st.watch(r)
	return err
}

// Connect starts the runner's program: it is online, and shown so after
// Lags.Connect.
func (s *Sim) Connect(scope fleet.Scope, id int64) error {
	return s.change(scope, id, func(st *scopeState, r *runner, now time.Time) error {
		r.online, r.connectedAt, r.flipAt = true, now, now.Add(s.config.Lag.Connect)
		r.busyUntil = time.Time{} // it may go on with its workflow job
		if r.os == unknownOS {
			r.os = "linux"
		}
		s.render(r)
		r.settle(now)
		s.note(st, r, ChangeConnected, "")
		if r.work != nil {
			r.work.start(now)
		}
		return nil
	})
}

// Kill ends the runner's program without a word: it is shown offline after
// Lags.Offline, and its workflow job is given up after Lags.BusyClear.
func (s *Sim) Kill(scope fleet.Scope, id int64) error {
	return s.change(scope, id, func(st *scopeState, r *runner, now time.Time) error {
		if r.online {
			r.connectedAt = now
		}
		r.online, r.flipAt = false, now.Add(s.config.Lag.Offline)
		r.zombie = r.job != 0 && s.zombie(st, r)
		if r.job != 0 && !r.zombie && s.config.Lag.BusyClear >= 0 {
			r.busyUntil = now.Add(s.config.Lag.BusyClear)
		}
		r.settle(now)
		s.note(st, r, ChangeKilled, "")
		return nil
	})
}

// Assign gives the runner a workflow job, the oldest queued one that fits it or
// else one of its own making: it is busy, and shown so, at once. A
// runner that is only shown online loses it again after a minute; one that is
// shown offline keeps it, since GitHub is known to show working runners so.
func (s *Sim) Assign(scope fleet.Scope, id int64) error {
	return s.change(scope, id, func(st *scopeState, r *runner, now time.Time) error {
		if r.job != 0 {
			return fmt.Errorf("github simulator: assign a workflow job to runner %d of %s: it has one: %w", id, scope, fleet.ErrBusy)
		}
		s.settleAll()
		j := s.nextJob(st, r)
		if j == nil {
			return fmt.Errorf("github simulator: assign a workflow job to runner %d of %s: its group takes none: %w", id, scope, fleet.ErrConflict)
		}
		s.assign(st, r, j, now)
		return nil
	})
}

// Finish ends the runner's workflow job with success. An ephemeral runner goes with it.
func (s *Sim) Finish(scope fleet.Scope, id int64) error {
	return s.change(scope, id, func(st *scopeState, r *runner, now time.Time) error {
		if r.job == 0 {
			return fmt.Errorf("github simulator: finish the workflow job of runner %d of %s: it has none: %w", id, scope, fleet.ErrConflict)
		}
		s.finish(st, r, "success", now)
		return nil
	})
}

// Remove takes the registration away, as GitHub itself or somebody else does.
func (s *Sim) Remove(scope fleet.Scope, id int64) error {
	return s.change(scope, id, func(st *scopeState, r *runner, _ time.Time) error {
		s.drop(st, r, "removed elsewhere")
		return nil
	})
}

// Snapshot is the truth about all runners of a scope, by ascending id. It is
// nil for an unknown scope.
func (s *Sim) Snapshot(scope fleet.Scope) []State {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := s.in(scope)
	if err != nil {
		return nil
	}
	now := s.config.Now()
	states := make([]State, 0, len(st.order))
	st.settleDue(now)
	for _, r := range st.order {
		states = append(states, r.state())
	}
	slices.SortFunc(states, func(a, b State) int { return cmp.Compare(a.ID, b.ID) })
	return states
}
