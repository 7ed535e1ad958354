package demo

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// teller writes the account: one line a thing, with the time since the
// beginning.
type teller struct {
	mu    sync.Mutex
	out   io.Writer
	began time.Time
}

func newTeller(out io.Writer) *teller { return &teller{out: out, began: time.Now()} }

// print writes as it is. The account is for whoever watches; once nobody does,
// it is told in vain, and the checks judge all the same.
func (t *teller) print(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, _ = fmt.Fprintf(t.out, format, args...)
}

func (t *teller) chapter(format string, args ...any) {
	t.print("\n%s\n", fmt.Sprintf(format, args...))
}

func (t *teller) say(format string, args ...any) {
	t.print("  %5.1fs  %s\n", time.Since(t.began).Seconds(), fmt.Sprintf(format, args...))
}

// happening is what of an event the account is made of.
type happening struct {
	typ, target, name, host, reason, kind string
	change                                int // in hosts of a pool
}

func readHappening(body []byte) (happening, bool) {
	var e struct {
		Type string `json:"type"`
		Data struct {
			Target string `json:"target"`
			Name   string `json:"name"`
			Host   string `json:"host"`
			Reason string `json:"reason"`
			Kind   string `json:"kind"`
			Change any    `json:"change"` // of a runner it is a word
		} `json:"data"`
	}
	if json.Unmarshal(body, &e) != nil {
		return happening{}, false
	}
	hosts, _ := e.Data.Change.(float64)
	return happening{e.Type, e.Data.Target, e.Data.Name, e.Data.Host, e.Data.Reason, e.Data.Kind, int(hosts)}, true
}

// summary is what happened since the last one, in lines that stay few however
// much it was.
func summary(all []happening) []string {
	var lines []string
	counts := map[[2]string][]string{}
	var order [][2]string
	for _, h := range all {
		switch h.typ {
		case "policy.halted":
			lines = append(lines, fmt.Sprintf("%s: the policy halts itself. %s", h.target, h.reason))
		case "scale.up":
			lines = append(lines, fmt.Sprintf("%s: %d more for the pool. %s", h.target, h.change, h.reason))
		case "scale.down":
			lines = append(lines, fmt.Sprintf("%s: %d fewer for the pool. %s", h.target, h.change, h.reason))
		case "token.denied":
			lines = append(lines, fmt.Sprintf("%s asks for a token and is refused", h.host))
		case "token.issued":
			lines = append(lines, fmt.Sprintf("%s gets a %s token for %s", h.host, h.kind, h.target))
		case "runner.removed", "runner.registered", "runner.offline", "runner.online":
			key := [2]string{h.typ, h.target}
			if counts[key] == nil {
				order = append(order, key)
			}
			counts[key] = append(counts[key], h.name)
		}
	}
	words := map[string]string{
		"runner.removed": "removed", "runner.registered": "registered", "runner.offline": "went offline", "runner.online": "came online",
	}
	for _, key := range order {
		names := counts[key]
		slices.Sort(names)
		noun := "runners"
		if len(names) == 1 {
			noun = "runner"
		}
		shown := names
		if len(shown) > 3 {
			shown = append(slices.Clone(names[:3]), "…")
		}
		lines = append(lines, fmt.Sprintf("%s: %d %s %s %v", key[1], len(names), noun, words[key[0]], shown))
	}
	return lines
}
