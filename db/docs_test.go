package db_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/db/dbtest"
)

// Every query in docs/audit.md is one that Postgres takes.
func TestQueriesOfTheDocsRun(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```sql\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(blocks) < 8 {
		t.Fatalf("docs/audit.md has %d queries, want 8 or more", len(blocks))
	}
	store := dbtest.New(t)
	for _, b := range blocks {
		query := strings.ReplaceAll(strings.TrimSuffix(strings.TrimSpace(b[1]), ";"), "'…'", "'0199b1c2'")
		if _, err := store.ReadAPI(t.Context(), query); err != nil {
			t.Errorf("%v in\n%s", err, query)
		}
	}
}
