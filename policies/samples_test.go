package policies_test

import (
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

func TestDocsListEverySample(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/policies.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := fs.Glob(policies.Samples(), "*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if !strings.Contains(string(text), "](../policies/samples/"+name+") |") {
			t.Errorf("docs/policies.md does not list %s", name)
		}
	}
}

func TestEverySampleLoadsAndIsNamedLikeItsFile(t *testing.T) {
	t.Parallel()
	files, err := fs.Glob(policies.Samples(), "*.yaml")
	if err != nil || len(files) < 2 {
		t.Fatalf("Samples() has %v, %v, want several", files, err)
	}
	for _, name := range files {
		text, err := fs.ReadFile(policies.Samples(), name)
		if err != nil {
			t.Fatal(err)
		}
		loaded, err := policies.Load(name, text)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		if len(loaded) != 1 || loaded[0].Name != strings.TrimSuffix(name, ".yaml") {
			t.Errorf("%s holds %d policies, want one of its name", name, len(loaded))
		}
		if !strings.Contains(string(text), "\n  tests:\n") || !strings.HasPrefix(string(text), "# ") {
			t.Errorf("%s: a sample begins with what it is for and has tests", name)
		}
		if reports := strings.HasPrefix(name, "report-"); reports != (loaded[0].Action == fleet.ActionReport) {
			t.Errorf("%s: its action is %s", name, loaded[0].Action)
		}
	}
}
