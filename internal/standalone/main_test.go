package standalone

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"testing"
)

// helperDir makes this test binary a muster that starts a server there, says
// its URL and waits to be killed.
const helperDir = "MUSTER_STANDALONE_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperDir); dir != "" {
		os.Exit(helper(dir))
	}
	os.Exit(m.Run())
}

func helper(dir string) int {
	pg, err := StartPostgres(context.Background(), PostgresConfig{DataDir: dir, Log: quiet()})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(pg.URL())
	_, _ = io.Copy(io.Discard, os.Stdin) // the end of it comes with the end of the test
	return 0
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
