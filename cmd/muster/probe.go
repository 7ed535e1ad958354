package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/internal/web"
	"github.com/muster-fleet/muster/queue"
)

const (
	// probeEvery is how often readiness writes a row and publishes a message at
	// most, however often it is asked.
	probeEvery = 10 * time.Second
	// probeLimit bounds one probe. It is shorter than a health check may take.
	probeLimit = 4 * time.Second
)

// prober runs probe at most once in every, and tells everybody else what the
// newest run found. It is safe for concurrent use.
type prober struct {
	every time.Duration
	now   func() time.Time
	probe func(context.Context) []web.Fault

	mu     sync.Mutex
	at     time.Time
	faults []web.Fault
}

// found returns the faults of the newest probe, which is at most every old.
func (p *prober) found(ctx context.Context) []web.Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	if !p.at.IsZero() && now.Sub(p.at) < p.every {
		return p.faults
	}

	// The caller may hang up: others are told the same answer.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeLimit)
	defer cancel()
	p.faults = p.probe(ctx)
	p.at = now
	return p.faults
}

// probeAll proves that a row can be written and a message published. Each fault
// names the part that failed.
func probeAll(ctx context.Context, record *db.DB, conn *queue.Conn) []web.Fault {
	var faults []web.Fault
	if err := probeRecord(ctx, record); err != nil {
		faults = append(faults, web.Fault{Text: fmt.Sprintf("postgres: %v", err)})
	}
	for _, err := range conn.Probe(ctx) {
		faults = append(faults, web.Fault{Text: err.Error()})
	}
	return faults
}

// probeRecord proves that the schema is this program's and that a row can be
// written.
func probeRecord(ctx context.Context, record *db.DB) error {
	status, err := record.Status(ctx)
	if err != nil {
		return err
	}
	if err := status.Newer(); err != nil {
		return err
	}
	return record.ProbeWrite(ctx)
}
