package policies_test

import (
	"strings"
	"testing"

	"github.com/muster-fleet/muster/policies"
)

// A fault of the file as a whole names the line where it is, and stands alone.
func TestFaultsOfTheFileHaveAPlace(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, text, want string }{
		{"not UTF-8", "a: b\nc: \xff\n", "p.yaml:2:1: the line is not UTF-8"},
		{"no policy", "# nothing\n", "p.yaml:1:1: the file holds no policy"},
		{"nothing at all", "", "p.yaml:1:1: the file holds no policy"},
		{"an empty document", "---\n...\n", "p.yaml:1:1: the file holds no policy"},
		{"a tab", "apiVersion: muster/v1\n\tkind: x\n", "p.yaml:2:1: not YAML: a tab where only spaces may stand"},
		{"too many documents", strings.Repeat("---\n{}\n", 202), "p.yaml:401:1: more than 200 documents"},
	} {
		_, err := policies.Load("p.yaml", []byte(tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Count(err.Error(), "more than") > 1 {
			t.Errorf("%s: got %.300v, want %q", tt.name, err, tt.want)
		}
	}
}

// What editors and systems put around a text changes nothing.
func TestTextsAreReadAsEditorsLeaveThem(t *testing.T) {
	t.Parallel()
	plain := document(longOffline)
	for name, text := range map[string]string{
		"lines that end in CR LF":    strings.ReplaceAll(plain, "\n", "\r\n"),
		"a byte order mark":          "\xef\xbb\xbf" + plain,
		"no line feed at the end":    strings.TrimSuffix(plain, "\n"),
		"an end of the document":     plain + "...\n",
		"an end, and nothing before": "...\n" + plain,
		"empty documents around":     "---\n---\n" + plain + "---\n",
	} {
		loaded, err := policies.Load("p.yaml", []byte(text))
		if err != nil || len(loaded) != 1 || loaded[0].SHA256 != load(t, plain).SHA256 {
			t.Errorf("%s: %d policies, %v, want the one", name, len(loaded), err)
		}
	}
}

// A fault in an expression points at the rune where it is, whatever the style of
// the YAML.
func TestFaultsInExpressionsHaveAPlace(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, match, want string }{
		{"plain", `runner.nam == "a"`, "p.yaml:7:16"},
		{"single quotes", `'runner.name == ''it'' && runner.nam == "a"'`, "p.yaml:7:42"},
		{"single quotes around an apostrophe", `'runner.name == "it''s" && runner.nam == "a"'`, "p.yaml:7:43"},
		{"double quotes", `"runner.name == \"a\" && runner.nam == \"b\""`, "p.yaml:7:41"},
		{"hexadecimal", `"runner.name == \"\x41\" && runner.nam == \"b\""`, "p.yaml:7:44"},
		{"four digits", `"runner.name == \"\u0041\" && runner.nam == \"b\""`, "p.yaml:7:46"},
		{"eight digits", `"runner.name == \"\U00000041\" && runner.nam == \"b\""`, "p.yaml:7:50"},
		{"a line that goes on", "\"runner.name == \\\"a\\\" &&\\\n    runner.nam == \\\"b\\\"\"", "p.yaml:8:11"},
		{"a block", "|\n    runner.name == \"a\" &&\n    runner.nam == \"b\"", "p.yaml:9:11"},
		{"a folded block", ">-\n    runner.name == \"a\" &&\n    runner.nam == \"b\"", "p.yaml:9:11"},
		{"a block with indentation", "|\n    runner.name == \"a\" &&\n      runner.nam == \"b\"", "p.yaml:9:13"},
	} {
		_, err := policies.Load("p.yaml", []byte(document(tt.match)))
		if err == nil || !strings.HasPrefix(err.Error(), tt.want+": ") {
			t.Errorf("%s: got %v, want it at %s", tt.name, err, tt.want)
		}
	}
}
