package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

// live is the configuration in force, which SIGHUP replaces: all of it or none
// of it. Its fields are set before the first use; it is safe for concurrent
// use.
type live struct {
	log  *slog.Logger
	load func() (*config, error)
	// accept is asked before a configuration comes into force, and says why
	// not. It prepares what the new one needs.
	accept func(context.Context, *config) error
	// told hears of each attempt, with why it was refused or nil. Nil: nobody
	// does.
	told func(context.Context, error)

	current atomic.Pointer[config]
	changed chan struct{} // receives after a change; holds one
}

// newLive starts from a configuration that was accepted before.
func newLive(log *slog.Logger, first *config, load func() (*config, error), accept func(context.Context, *config) error) *live {
	l := &live{log: log, load: load, accept: accept, changed: make(chan struct{}, 1)}
	l.current.Store(first)
	return l
}

// get is the configuration in force. Callers do not change it.
func (l *live) get() *config { return l.current.Load() }

// run reloads at each signal until ctx ends, and returns nil then.
func (l *live) run(ctx context.Context, hangup <-chan os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangup:
			err := l.reload(ctx)
			if l.told != nil {
				l.told(ctx, err)
			}
			if err != nil {
				l.log.ErrorContext(ctx, "configuration not taken over", "reason", err.Error())
				continue
			}
			l.log.InfoContext(ctx, "configuration taken over")
		}
	}
}

// reload puts the configuration as it is in the file now in force. After an
// error the old one goes on.
func (l *live) reload(ctx context.Context) error {
	next, err := l.load()
	if err != nil {
		return err
	}
	if err := restartNeeded(l.get(), next); err != nil {
		return err
	}
	if err := l.accept(ctx, next); err != nil {
		return err
	}
	for _, w := range next.warnings {
		l.log.WarnContext(ctx, "configuration", "reason", w)
	}
	l.current.Store(next)
	select {
	case l.changed <- struct{}{}:
	default: // a change that nobody has looked at yet
	}
	return nil
}

// restartNeeded names what cannot change under a running muster.
func restartNeeded(old, next *config) error {
	for _, key := range []struct {
		name     string
		old, new any
	}{
		{"database_url", old.databaseURL.Reveal(), next.databaseURL.Reveal()},
		{"migrate_url", old.migrateURL.Reveal(), next.migrateURL.Reveal()},
		{"nats.url", old.nats.url.Reveal(), next.nats.url.Reveal()},
		{"nats.creds_file", old.nats.credsFile, next.nats.credsFile},
		{"nats.replicas", old.nats.replicas, next.nats.replicas},
		{"nats.allow_shared_inbox", old.nats.allowSharedInbox, next.nats.allowSharedInbox},
		{"data_dir", old.dataDir, next.dataDir},
		{"embedded", old.embedded, next.embedded},
		{"listen", old.listen, next.listen},
	} {
		if !reflect.DeepEqual(key.old, key.new) {
			return fmt.Errorf("%s has changed, which takes a restart of muster serve", key.name)
		}
	}
	return nil
}

// reloaded tells whoever may want to know what became of a changed
// configuration, policies included: until one is taken over, the one before
// goes on, and nobody may think otherwise. The trail is told as far as Postgres
// is there: nothing was acted on.
func (s *service) reloaded(ctx context.Context, record *db.DB, err error) {
	s.metrics.reloaded(err == nil)
	event := fleet.AuditEvent{Code: fleet.AuditConfigLoaded, Actor: fleet.System}
	if err == nil {
		s.refused.Store(nil)
		event.Details = map[string]any{"policies": inForce(s.wiring.Load().config.policies)}
	} else {
		why := brief(err)
		s.refused.Store(&why)
		event.Code, event.Reason = fleet.AuditConfigRefused, why
	}
	err = record.InTx(ctx, func(tx *db.Tx) error { return tx.Audit(ctx, event) })
	if err != nil {
		s.log.WarnContext(ctx, "record what became of the configuration", "err", err)
	}
}

// brief is an error of many lines in one: the first few, and how many more.
func brief(err error) string {
	const most = 5
	all := strings.Split(err.Error(), "\n")
	if more := len(all) - most; more > 0 {
		all = append(all[:most], fmt.Sprintf("and %d more in the log", more))
	}
	return fleet.CleanText(strings.Join(all, "; "), 4<<10)
}

// inForce names policies with what they say, as NAME HASH.
func inForce(all []*policies.Policy) string {
	var names []string
	for _, p := range all {
		names = append(names, p.Name+" "+p.SHA256)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
