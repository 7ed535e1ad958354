package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/muster-fleet/muster/internal/standalone"
)

// servers are those that test programs share: starting Postgres anew for each
// of a thousand would take most of the time. The zero value has none yet.
type servers struct {
	postgres *standalone.Postgres
	dir      string
}

const postgresVar = "MUSTER_TEST_POSTGRES"

// env tells tests where Postgres is, which it starts where nobody named one.
func (s *servers) env(ctx context.Context) ([]string, error) {
	if os.Getenv(postgresVar) != "" {
		return nil, nil
	}
	if s.postgres == nil {
		dir, err := os.MkdirTemp("", "mutate-postgres-")
		if err != nil {
			return nil, err
		}
		s.dir = dir
		s.postgres, err = standalone.StartPostgres(ctx, standalone.PostgresConfig{DataDir: dir, Fast: true, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return nil, fmt.Errorf("start Postgres for the tests: %w", err)
		}
	}
	return []string{postgresVar + "=" + s.postgres.URL()}, nil
}

func (s *servers) stop() {
	if s.postgres != nil {
		_ = s.postgres.Stop(context.Background()) // its directory goes anyway
		_ = os.RemoveAll(s.postgres.Dir())        // for root it may lie elsewhere
	}
	if s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
}
