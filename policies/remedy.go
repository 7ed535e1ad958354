package policies

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"

	"cel.dev/cel-go/common"
)

var (
	undeclared = regexp.MustCompile(`^undeclared reference to '([^']*)'`)
	noField    = regexp.MustCompile(`^undefined field '([^']*)'`)
	noOverload = regexp.MustCompile(`^found no matching overload for '([^']*)' applied to '(.*)'$`)
	notBool    = regexp.MustCompile(`^expected type 'bool' but found '([^']*)'`)
	noFields   = regexp.MustCompile(`^type '([^']*)' does not support field selection`)
	mismatched = regexp.MustCompile(`^(?:mismatched|extraneous) input '([^']*)'`)
	badToken   = regexp.MustCompile(`^token recognition error at: '(.*)'$`)
	// expecting is the tail of a syntax fault: every token there could be.
	expecting = regexp.MustCompile(` expecting (?:\{.*\}|<EOF>)$`)
)

// elsewhere are names of other languages, with what CEL has for them.
var elsewhere = map[string]string{
	"any": "write exists, as in runner.labels.exists(l, l == \"gpu\")", "some": "write exists, as in runner.labels.exists(l, l == \"gpu\")",
	"every": "write all, as in runner.labels.all(l, l != \"gpu\")", "has": "write \"gpu\" in runner.labels, or has(runner.idle_for) for what may be unknown",
	"includes": "write \"gpu\" in runner.labels", "len": "write runner.labels.size()", "length": "write runner.labels.size()", "count": "write runner.labels.size()",
	"match": "write matches, as in runner.name.matches(\"^build-\")", "regex": "write matches, as in runner.name.matches(\"^build-\")",
	"lower": "labels are lower case already", "lowerAscii": "labels are lower case already", "upper": "labels are lower case",
	"and": "write &&", "or": "write ||", "not": "write !",
	"dyn": "leave it out, every value has its type", "type": "leave it out, every value has its type",
	"now": "use durations such as runner.offline_for and runner.age", "timestamp": "use durations such as runner.offline_for and runner.age",
	"hours": "compare with duration(\"168h\")", "days": "compare with duration(\"168h\")",
}

// remedy puts CEL's message in words that say what to do.
func (x *expression) remedy(message string, at common.Location) string {
	if m := undeclared.FindStringSubmatch(message); m != nil {
		return x.unknownName(m[1])
	}
	if m := noField.FindStringSubmatch(message); m != nil {
		return x.unknownField(m[1], at)
	}
	if m := noOverload.FindStringSubmatch(message); m != nil {
		return misfit(m[1], m[2])
	}
	if m := notBool.FindStringSubmatch(message); m != nil {
		return "a condition has to stand here, not " + plain(m[1]) + ": compare it with something"
	}
	if m := noFields.FindStringSubmatch(message); m != nil {
		return plain(m[1]) + " has no fields: write runner.labels.size() for how many labels there are"
	}
	switch {
	case strings.HasPrefix(message, "mismatched input '<EOF>'"):
		return "the expression ends too early: close what was opened, and leave no operator at the end"
	case message == "invalid matches argument":
		return badPattern
	case message == "comprehension exceeds nesting limit":
		return "a macro (exists, all, map, filter) within or after another costs too much: use one at a time"
	case message == "invalid argument to has() macro":
		return "has asks for one field, such as has(runner.idle_for); for a label write \"gpu\" in runner.labels"
	}
	if m := mismatched.FindStringSubmatch(message); m != nil {
		return x.outOfPlace(m[1])
	}
	if m := badToken.FindStringSubmatch(message); m != nil {
		return strayCharacters(m[1])
	}
	return expecting.ReplaceAllString(message, "")
}

const badPattern = "the pattern is not a regular expression: write one in RE2's syntax, such as ^build-[0-9]+$"

// unknownField names the fields there are, of the variable before the dot
// where one stands there.
func (x *expression) unknownField(name string, at common.Location) string {
	before := ""
	if n := at.Line(); n >= 1 && n <= len(x.lines) {
		line := []rune(x.lines[n-1])
		before = string(line[:min(max(at.Column(), 0), len(line))])
	}
	for _, variable := range []string{"runner", "host", "target"} {
		if strings.HasSuffix(before, variable) {
			return fmt.Sprintf("the field '%s' is unknown%s a %s has %s", name, cmp.Or(meant(name, strings.Split(fields[variable], ", ")), ":"), variable, fields[variable])
		}
	}
	return fmt.Sprintf("the field '%s' is unknown: a runner has %s; a host has %s; a target has %s", name, fields["runner"], fields["host"], fields["target"])
}

func (x *expression) unknownName(name string) string {
	switch {
	case name == "params" && x.params == "":
		return "the policy has no params: write them under spec.params"
	case name == "params", strings.HasPrefix(name, "params."):
		return "params has no such entry: there is " + x.params
	case elsewhere[name] != "":
		return "'" + name + "' is unknown: " + elsewhere[name]
	}
	known := []string{"runner", "host", "target", "params", "version_at_least", "duration", "size"}
	return "'" + name + "' is unknown" + cmp.Or(meant(name, known), ":") + " there are runner, host, target, params, version_at_least and CEL's own functions and macros; text stands in quotes"
}

// outOfPlace puts a syntax fault at a word into words.
func (x *expression) outOfPlace(word string) string {
	switch {
	case word == "and", word == "or", word == "not", strings.HasPrefix(x.source, "not "), strings.Contains(x.source, " not "):
		return "and, or and not are no operators: write &&, || and !"
	case len(word) == 1 && strings.Contains("dhmsw", word):
		return "a duration stands in quotes: write duration(\"168h\")"
	}
	return "'" + word + "' cannot stand here: put an operator such as && or == in front, and quotes around text"
}

// strayCharacters says what to write instead of what is no CEL at all.
func strayCharacters(found string) string {
	switch {
	case strings.HasPrefix(found, "=~"):
		return "=~ is no operator: write runner.name.matches(\"^build-\")"
	case strings.HasPrefix(found, "="):
		return "= is no operator: compare with =="
	case strings.HasPrefix(found, "&"):
		return "& is no operator: write &&"
	case strings.HasPrefix(found, "|"):
		return "| is no operator: write ||"
	case strings.HasPrefix(found, "'"), strings.HasPrefix(found, `"`):
		return "the text is not closed: put a quote at its end"
	case strings.ContainsAny(found, "“”„‘’«»"):
		return found + " is no quote here: write \" or '"
	}
	return "'" + found + "' cannot stand in an expression: leave it out"
}

// misfit says why a function or operator does not take what it was given.
func misfit(function, given string) string {
	types := strings.Trim(given, "()")
	holds := func(kinds ...string) bool {
		for _, kind := range kinds {
			for _, part := range strings.Split(types, ", ") {
				if part == kind {
					return true
				}
			}
		}
		return false
	}
	onList := strings.HasPrefix(given, "list(string).")
	switch function {
	case "_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_":
		a, b, _ := strings.Cut(types, ", ")
		what := plain(a) + " and " + plain(b) + " cannot be compared: "
		switch {
		case holds("null"):
			return what + "nothing is null here, ask has(runner.group) for what may be unknown"
		case holds("duration"):
			return what + "write duration(\"168h\")"
		case holds("list(string)"):
			return what + "for one label write \"gpu\" in runner.labels"
		case holds("bool"):
			return what + "write it alone, or with ! in front"
		case holds("string") && holds("int", "uint", "double"):
			return what + "put the number in quotes; versions are compared by version_at_least(runner.version, \"2.320.0\")"
		}
		return what + "compare like with like"
	case "@in":
		switch {
		case types == "string, string":
			return "in looks into a list: for a part of a text write runner.name.contains(\"gpu\")"
		case strings.HasPrefix(types, "list("):
			return "in takes one value, not a list: write runner.labels.exists(l, l in [\"gpu\", \"arm64\"])"
		}
		what, _, _ := strings.Cut(types, ", ")
		return plain(what) + " is never in a list of texts: put it in quotes"
	case "contains", "startsWith", "endsWith", "matches":
		if onList {
			return function + " is for text, not for a list: write \"gpu\" in runner.labels, or runner.labels.exists(l, l." + function + "(\"gpu\"))"
		}
		return function + " takes text: put it in quotes"
	case "version_at_least":
		return "version_at_least takes two texts, such as version_at_least(runner.version, \"2.320.0\")"
	case "duration":
		return "duration takes text, such as duration(\"168h\")"
	case "!_":
		return "! takes a condition, not " + plain(types) + ": compare it with something"
	case "_[_]":
		return "fields are read with a dot, such as runner.name, and only lists have places, such as runner.labels[0]"
	}
	if op := strings.Trim(function, "_"); op != function {
		a, b, _ := strings.Cut(types, ", ")
		return op + " does not take " + plain(a) + " and " + plain(b) + ": use values of one type"
	}
	return function + " does not take " + given + ": look up what it takes in docs/policies.md"
}

// plain names a type in a reader's words.
func plain(kind string) string {
	switch kind {
	case "string":
		return "text"
	case "int", "uint", "double":
		return "a number"
	case "bool":
		return "a condition"
	case "list(string)":
		return "a list"
	case "duration":
		return "a duration"
	case "null":
		return "null"
	}
	return kind
}
