package fleet_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/fleet"
)

func TestDocsNameEveryAuditCode(t *testing.T) {
	text, err := os.ReadFile("../docs/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range fleet.AuditKinds {
		row := fmt.Sprintf("| `%s` | %s | %s | %s |", k.Code, k.Action, k.Outcome, k.Meaning)
		if !strings.Contains(string(text), row+"\n") {
			t.Errorf("docs/audit.md lacks the line\n%s", row)
		}
	}
	for _, code := range regexp.MustCompile("(?m)^\\| `([A-Z]{2}[0-9]{3}[IWE])`").FindAllStringSubmatch(string(text), -1) {
		if _, ok := fleet.AuditCode(code[1]).Kind(); !ok {
			t.Errorf("docs/audit.md names %s, which is not in the registry", code[1])
		}
	}
}
