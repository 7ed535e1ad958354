package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"sync/atomic"
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
			if err := l.reload(ctx); err != nil {
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
