package github_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// contractFile reads a file of the API's published descriptions. Without
// MUSTER_CONTRACT_DIR they may be missing, and the test is skipped.
func contractFile(t *testing.T, name string) []byte {
	t.Helper()
	dir, set := os.LookupEnv("MUSTER_CONTRACT_DIR")
	if !set {
		dir = filepath.Join("..", "..", "shared", "contract")
	}
	data, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) && !set {
		t.Skipf("no API descriptions in %s: set MUSTER_CONTRACT_DIR to the folder that has %s", dir, name)
	}
	if err != nil {
		t.Fatalf("API descriptions (MUSTER_CONTRACT_DIR=%q): %v", dir, err)
	}
	return data
}

func TestTheExamplesOfTheSeedAPIDecode(t *testing.T) {
	t.Parallel()
	var examples []struct {
		Op     string
		Status int
		Body   json.RawMessage
	}
	if err := json.Unmarshal(contractFile(t, "seed-examples.json"), &examples); err != nil {
		t.Fatal(err)
	}
	const id = 23
	slugs := strings.NewReplacer("{enterprise}", "octo", "{org}", "acme", "{owner}", "acme", "{repo}", "widgets", "{runner_id}", fmt.Sprint(id))
	known := make(map[string]http.HandlerFunc)
	for _, ex := range examples {
		h := says(ex.Status, string(ex.Body))
		if ex.Status == http.StatusNoContent {
			h = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }
		}
		known[slugs.Replace(ex.Op)] = h
	}
	asked := make(map[string]bool)
	gh := answers(t, func(w http.ResponseWriter, r *http.Request) {
		op := r.Method + " " + strings.TrimPrefix(r.URL.Path, "/api/v3")
		h := known[op]
		if h == nil {
			t.Errorf("no example for %s", op)
			h = http.NotFound
		}
		asked[op] = true
		h(w, r)
	})
	for _, scope := range scopes {
		l, err := gh.Runners(t.Context(), scope, fleet.KeptListing{})
		if err != nil || !l.Complete || len(l.Runners) != 2 || !l.Runners[0].Busy || l.Runners[1].Status != fleet.StatusOffline {
			t.Errorf("runners of %s: %+v, %v", scope, l, err)
		}
		if r, err := gh.Runner(t.Context(), scope, id); err != nil || r.Name != "MBP" || strings.Join(r.Labels, " ") != "macos no-gpu self-hosted x64" {
			t.Errorf("runner of %s: %+v, %v", scope, r, err)
		}
		if err := gh.RemoveRunner(t.Context(), scope, id, nil); err != nil {
			t.Errorf("remove from %s: %v", scope, err)
		}
		if d, err := gh.Downloads(t.Context(), scope); err != nil || len(d) != 5 || d[3].OS != "win" {
			t.Errorf("downloads of %s: %+v, %v", scope, d, err)
		}
		tok, err := gh.RegistrationToken(t.Context(), scope)
		if want := time.Date(2020, 1, 22, 20, 13, 35, 123e6, time.UTC); err != nil || tok.Secret.Reveal() != "LLBF3JGZDX3P5PMEXLND6TS6FCWO6" || !tok.ExpiresAt.Equal(want) {
			t.Errorf("registration token of %s: expires %s, %v", scope, tok.ExpiresAt, err)
		}
		tok, err = gh.RemovalToken(t.Context(), scope)
		if want := time.Date(2020, 1, 29, 20, 13, 35, 123e6, time.UTC); err != nil || tok.Secret.Reveal() != "AABF3JGZDX3P5PMEXLND6TS6FCWO6" || !tok.ExpiresAt.Equal(want) {
			t.Errorf("removal token of %s: expires %s, %v", scope, tok.ExpiresAt, err)
		}
	}
	if len(asked) != 18 || len(known) != 18 {
		t.Errorf("%d of %d examples were asked for, want 18 of 18", len(asked), len(known))
	}
}
