package policies_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/policies"
)

// page is the document that users read of policies.
func page(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../docs/policies.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Codes of reasons are what people search for.
func TestDocsExplainEveryReason(t *testing.T) {
	t.Parallel()
	text := page(t)
	f, err := parser.ParseFile(token.NewFileSet(), "reasons.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	ast.Inspect(f, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, "Reason") {
			return true
		}
		code, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		if n++; !regexp.MustCompile("(?m)^\\|[^|]*`" + code + "`[^|]*\\|").MatchString(text) {
			t.Errorf("docs/policies.md does not explain the reason %s", code)
		}
		return true
	})
	if n < 20 {
		t.Errorf("reasons.go has %d reasons, want 20 or more", n)
	}
}

// The example at the head of the page is one that loads.
func TestDocsHaveAnExampleThatLoads(t *testing.T) {
	t.Parallel()
	m := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindStringSubmatch(page(t))
	if m == nil {
		t.Fatal("docs/policies.md has no example")
	}
	if _, err := policies.Load("docs/policies.md", []byte(m[1])); err != nil {
		t.Errorf("%v", err)
	}
}

// What the loader says there is, the page explains.
func TestDocsExplainEveryField(t *testing.T) {
	t.Parallel()
	text := page(t)
	for _, variable := range []string{"runner", "host", "target"} {
		_, err := policies.Load("p.yaml", []byte(reporting(variable+".zzzzzz == 1")))
		m := regexp.MustCompile("a " + variable + " has ([a-z_, ]+)").FindStringSubmatch(err.Error())
		if m == nil {
			t.Fatalf("an unknown field of %s gives %v", variable, err)
		}
		for _, field := range strings.Split(m[1], ", ") {
			if !regexp.MustCompile("(?m)^\\| `"+variable+"\\.[^|]*\\."+field+"`[^|]*\\||^\\| `"+variable+"\\."+field+"`[^|]*\\|").MatchString(text) &&
				!strings.Contains(text, "`"+variable+"."+field+"`") {
				t.Errorf("docs/policies.md does not explain %s.%s", variable, field)
			}
		}
	}
}
