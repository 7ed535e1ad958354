package demand

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/queue"
)

// maxRunnerName is in bytes; GitHub's names are 64 long at most.
const maxRunnerName = 256

// readHeartbeat reads what a host says of itself. The errors repeat nothing
// that the host did not choose from a fixed set, but names of fields.
func readHeartbeat(host string, body []byte) (fleet.Heartbeat, error) {
	b := fleet.Heartbeat{Host: host}
	switch {
	case !fleet.ValidName(host):
		return b, errors.New("the host in the subject is not a name")
	case len(body) > queue.MaxBody:
		return b, fmt.Errorf("the body has %d bytes: want at most %d", len(body), queue.MaxBody)
	case !utf8.Valid(body):
		return b, errors.New("the body is not UTF-8")
	}
	fields, err := fieldsOf(body, "v", "runners")
	if err != nil {
		return b, err
	}
	if v, given := fields["v"]; given && string(v) != "1" {
		return b, errors.New("v is not 1")
	}
	var entries []json.RawMessage
	if err := json.Unmarshal(fields["runners"], &entries); err != nil || entries == nil {
		return b, errors.New("runners is not a list; a host without runners says []")
	}
	seen := map[fleet.HostRunner]bool{}
	for n, entry := range entries {
		r, err := readHostRunner(entry)
		if err != nil {
			return b, fmt.Errorf("runners[%d]: %w", n, err)
		}
		if key := (fleet.HostRunner{Target: r.Target, Name: r.Name}); seen[key] {
			return b, fmt.Errorf("runners[%d]: it stands there twice", n)
		} else {
			seen[key] = true
		}
		b.Runners = append(b.Runners, r)
	}
	return b, nil
}

func readHostRunner(entry []byte) (fleet.HostRunner, error) {
	var r fleet.HostRunner
	fields, err := fieldsOf(entry, "target", "name", "state")
	if err != nil {
		return r, err
	}
	for name, into := range map[string]any{"target": &r.Target, "name": &r.Name, "state": &r.State} {
		if json.Unmarshal(fields[name], into) != nil {
			return r, fmt.Errorf("%s is not a text", name)
		}
	}
	switch {
	case !fleet.ValidName(r.Target):
		return r, errors.New("target is not a name")
	case r.Name == "" || len(r.Name) > maxRunnerName || strings.ContainsFunc(r.Name, func(c rune) bool { return !unicode.IsPrint(c) }):
		return r, fmt.Errorf("name is not 1 to %d printable bytes", maxRunnerName)
	}
	switch r.State {
	case fleet.HostRunnerIdle, fleet.HostRunnerBusy, fleet.HostRunnerStopped:
		return r, nil
	}
	return r, errors.New("state is not idle, busy or stopped")
}

// fieldsOf takes a JSON object apart, which may have the known fields and no
// others. A map and not a struct, as that would take Name for name.
func fieldsOf(body []byte, known ...string) (map[string]json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil || fields == nil {
		return nil, errors.New("not one JSON object")
	}
	for name := range fields {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("unknown field %q: want %s", fleet.CleanText(name, maxRunnerName), strings.Join(known, ", "))
		}
	}
	return fields, nil
}
