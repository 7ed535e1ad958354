package token

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

// Grant lets hosts ask for kinds of tokens of targets. What no grant names is
// refused.
type Grant struct {
	Hosts      []string // exact names
	HostPrefix string   // literal; empty: Hosts alone count
	Targets    []string
	Kinds      []fleet.TokenKind
	Labels     []string // that a jit request may name, in any case
	PerHour    int      // tokens for one host in any 60 minutes; 0: no limit
	MaxLive    int      // unexpired tokens and their runners, of all its hosts; 0: no limit
}

// authorise finds the first grant that covers the request; its limits are the
// ones that count. It is pure.
//
// Names are compared as they are: patterns in rules of trust have let in more
// than they were meant to (octo-sts/app#1643).
func authorise(grants []Grant, r request) (Grant, bool) {
	for _, g := range grants {
		if g.covers(r) {
			return g, true
		}
	}
	return Grant{}, false
}

func (g Grant) covers(r request) bool {
	host := slices.Contains(g.Hosts, r.host) || g.HostPrefix != "" && strings.HasPrefix(r.host, g.HostPrefix)
	if !host || !slices.Contains(g.Targets, r.target) || !slices.Contains(g.Kinds, r.kind) {
		return false
	}
	for _, label := range r.labels {
		if !slices.ContainsFunc(g.Labels, func(allowed string) bool { return strings.EqualFold(allowed, label) }) {
			return false
		}
	}
	return true
}

func (g Grant) reach() db.Reach {
	return db.Reach{Hosts: g.Hosts, HostPrefix: g.HostPrefix, Targets: g.Targets}
}

// lock names the grant for the lock under which MaxLive is counted. Replicas
// with the same configuration agree on it.
func (g Grant) lock() string {
	body, err := json.Marshal(g.reach())
	if err != nil {
		panic(err) // strings always encode
	}
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}
