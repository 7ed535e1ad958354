package main

import (
	"fmt"
	"strings"
)

// readHarmless reads the list of mutants that no test has to notice: for each
// its key, and in the lines below, indented, the reason. Lines with # are for
// people.
func readHarmless(text string) (map[string]string, error) {
	reasons := map[string]string{}
	key := ""
	for i, line := range strings.Split(text, "\n") {
		said := strings.TrimSpace(line)
		switch {
		case said == "", strings.HasPrefix(line, "#"):
		case !strings.HasPrefix(line, "\t"):
			if key != "" && reasons[key] == "" {
				return nil, fmt.Errorf("line %d: %q has no reason: write it indented below", i+1, key)
			}
			key = said
			if _, twice := reasons[key]; twice {
				return nil, fmt.Errorf("line %d: %q is there twice: keep one", i+1, key)
			}
			reasons[key] = ""
		case key == "":
			return nil, fmt.Errorf("line %d: a reason without a mutant above it", i+1)
		default:
			reasons[key] = strings.TrimSpace(reasons[key] + " " + said)
		}
	}
	if key != "" && reasons[key] == "" {
		return nil, fmt.Errorf("%q has no reason: write it indented below", key)
	}
	return reasons, nil
}

// folderOf is the package that a key of the list is about.
func folderOf(key string) string {
	name, _, _ := strings.Cut(key, " ")
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i]
	}
	return "."
}
