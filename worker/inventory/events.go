package inventory

import (
	"strconv"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/queue"
)

// transition is the data of a runner event, with the keys of
// api.runner_history.
type transition struct {
	Target   string         `json:"target"`
	RunnerID int64          `json:"runner_id"`
	Name     string         `json:"name"`
	At       time.Time      `json:"at"`
	Change   fleet.Change   `json:"change"`
	Before   map[string]any `json:"before"`
	After    map[string]any `json:"after"`
	SyncID   string         `json:"sync_id"`
	// As api.runners has them, of one that is gone.
	RemovedAt    *time.Time         `json:"removed_at,omitempty"`
	RemovalCause fleet.RemovalCause `json:"removal_cause,omitempty"`
}

// syncDone is the data of a sync event, with the keys of api.syncs.
type syncDone struct {
	SyncID      string            `json:"sync_id"`
	Target      string            `json:"target"`
	TriggerID   string            `json:"trigger_id"`
	StartedAt   time.Time         `json:"started_at"`
	FinishedAt  time.Time         `json:"finished_at"`
	Outcome     fleet.SyncOutcome `json:"outcome"`
	Pages       int               `json:"pages"`
	APICalls    int               `json:"api_calls"`
	NotModified int               `json:"not_modified"`
	Runners     int               `json:"runners"`
	Added       int               `json:"added"`
	Changed     int               `json:"changed"`
	Removed     int               `json:"removed"`
	Unreadable  int               `json:"unreadable"`
	Suspect     *fleet.Suspect    `json:"suspect"`
	Error       *string           `json:"error"`
}

// events tells subscribers what a sync saw. A runner that was renamed has no
// event of its own: its id is what it is known by.
func events(s fleet.Sync, history []db.HistoryRow) ([]fleet.OutboxMessage, error) {
	messages := make([]fleet.OutboxMessage, 0, len(history)+1)
	for _, h := range history {
		if h.Change == fleet.ChangeRenamed {
			continue
		}
		t := transition{
			Target: s.Target, RunnerID: h.RunnerID, Name: h.Name, At: h.At, Change: h.Change,
			Before: h.Before, After: h.After, SyncID: s.ID, RemovalCause: h.Cause,
		}
		if h.Change == fleet.ChangeRemoved {
			t.RemovedAt = &h.At
		}
		m, err := queue.Event("runner."+string(h.Change), s.Target, strconv.FormatInt(h.RunnerID, 10), h.At, t)
		if err != nil {
			return nil, err
		}
		messages = append(messages, m)
	}
	done := syncDone{
		SyncID: s.ID, Target: s.Target, TriggerID: s.TriggerID, StartedAt: s.StartedAt, FinishedAt: s.FinishedAt,
		Outcome: s.Outcome, Pages: s.Pages, APICalls: s.APICalls, NotModified: s.NotModified, Runners: s.Runners,
		Added: s.Added, Changed: s.Changed, Removed: s.Removed, Unreadable: s.Unreadable,
	}
	if s.Suspect != fleet.SuspectNot {
		done.Suspect = &s.Suspect
	}
	if s.Error != "" {
		done.Error = &s.Error
	}
	m, err := queue.Event("sync."+string(s.Outcome), s.Target, s.Target, s.FinishedAt, done)
	if err != nil {
		return nil, err
	}
	return append(messages, m), nil
}
