package policies_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/policies"
)

// mistakes are files with one mistake each, by name.
func mistakes(t testing.TB) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob("testdata/mistakes/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(path)] = text
	}
	return all
}

// TestMistakesAreRefusedWithTheFix holds the message for each of the files in
// testdata/mistakes, which have one mistake each, in one text to be read as a
// whole: does each say where, what, and what to do?
func TestMistakesAreRefusedWithTheFix(t *testing.T) {
	t.Parallel()
	all := mistakes(t)
	if len(all) < 30 {
		t.Errorf("%d mistakes, want 30 or more", len(all))
	}
	const golden = "testdata/mistakes/messages.txt"
	var got strings.Builder
	paths, _ := filepath.Glob("testdata/mistakes/*.yaml") // in order; errors only at a bad pattern
	seen := map[string]string{}
	placed := regexp.MustCompile(`^[0-9a-z-]+\.yaml:[0-9]+:[0-9]+: (.+)$`)
	for _, path := range paths {
		name := filepath.Base(path)
		loaded, err := policies.Load(name, all[name])
		if err == nil || loaded != nil {
			t.Errorf("Load(%s) = %d policies, %v, want none and an error", name, len(loaded), err)
			continue
		}
		for _, line := range strings.Split(err.Error(), "\n") {
			m := placed.FindStringSubmatch(line)
			if m == nil || !strings.Contains(m[1], ": ") {
				t.Errorf("a message without place or remedy: %s", line)
				continue
			}
			if seen[m[1]] != "" {
				t.Errorf("%s and %s have the same message: %s", seen[m[1]], name, m[1])
			}
			seen[m[1]] = name
		}
		got.WriteString(err.Error() + "\n")
	}
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("messages, want (-) got (+):\n%s", diff)
	}
}

// The files differ from a policy that is well, each by its mistake alone.
func TestMistakesAreOneEach(t *testing.T) {
	t.Parallel()
	good, err := os.ReadFile("testdata/mistakes/good.txt")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := policies.Load("good.yaml", good); err != nil {
		t.Errorf("%v", err)
	}
	lines := strings.Split(strings.TrimSpace(string(good)), "\n")
	for name, text := range mistakes(t) {
		has := strings.Split(strings.TrimSpace(string(text)), "\n")
		changed := max(0, len(lines)-len(has))
		for _, line := range has {
			if !slices.Contains(lines, line) {
				changed++
			}
		}
		if changed > 1 || slices.Equal(lines, has) {
			t.Errorf("%s differs from good.txt in %d lines, want one", name, changed)
		}
	}
}
