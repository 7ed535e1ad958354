package main

import (
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
)

// observer hears of a call: for which target it was, and which targets share
// its credential, and so GitHub's budget for it.
type observer func(target string, sharing []string, call github.Call)

// sharedClient is the client of one credential at one server, for all targets
// that use it. It outlives reloads of the configuration, and with it what it
// has learnt of GitHub's limits.
type sharedClient struct {
	*github.Client
	app     *github.App   // nil: its credential is a token
	source  string        // of its credential
	account func() string // who GitHub takes its requests to be from, now
	issuer  string        // and those for an App's tokens
	serves  atomic.Pointer[served]
	observe observer // nil: nobody
}

// served are the targets of a client.
type served struct {
	names   []string          // in the order of the file
	byScope map[string]string // names, those of targets that are gone too
}

// clients gives each target its client. Those of before go on where their
// credential comes from the same place; nil: there were none. It opens nothing.
func clients(targets []targetConfig, before map[string]*sharedClient, by hearers) (map[string]*sharedClient, error) {
	old := map[string]*sharedClient{}
	for _, c := range before {
		old[c.source] = c
	}
	accounts, known := map[string]string{}, map[string]*sharedClient{} // by source; by account
	for _, t := range targets {
		if _, read := accounts[t.source()]; read {
			continue
		}
		account := t.account()
		accounts[t.source()] = account
		if c := old[t.source()]; c != nil && known[account] == nil {
			known[account] = c
		}
	}
	all, serves := map[string]*sharedClient{}, map[*sharedClient]*served{}
	for _, t := range targets {
		account := accounts[t.source()]
		c := known[account]
		if c == nil {
			var err error
			if c, err = newClient(t, by); err != nil {
				return nil, usage("target %s: %w", t.Name, err)
			}
			known[account] = c
		}
		if serves[c] == nil {
			serves[c] = c.served()
		}
		all[t.Name] = c
		serves[c].names = append(serves[c].names, t.Name)
		serves[c].byScope[scopeKey(t.Scope)] = t.Name
	}
	for c, s := range serves {
		c.serves.Store(s)
	}
	return all, nil
}

// served begins the next list of targets.
func (c *sharedClient) served() *served {
	next := &served{byScope: map[string]string{}}
	if was := c.serves.Load(); was != nil {
		maps.Copy(next.byScope, was.byScope) // their calls may be under way
	}
	return next
}

func newClient(t targetConfig, by hearers) (*sharedClient, error) {
	c := &sharedClient{source: t.source(), account: t.account, observe: by.call}
	agent := "muster/" + readBuild().version
	cfg := github.Config{APIURL: t.APIURL, Token: t.auth.secret, UserAgent: agent, Observe: c.heard, Waited: by.waited}
	issuing := github.AppConfig{
		APIURL: t.APIURL, ID: t.auth.app, InstallationID: t.auth.installation,
		PrivateKey: t.auth.secret, UserAgent: agent, Observe: c.heard, Waited: by.waited,
	}
	if by.pauses != nil {
		cfg.OnPause = func(until time.Time, reason string) { by.pauses.Told(c.account(), until, reason) }
		issuing.OnPause = func(until time.Time, reason string) { by.pauses.Told(c.issuer, until, reason) }
	}
	if t.auth.app != 0 {
		app, err := github.NewApp(issuing)
		if err != nil {
			return nil, err
		}
		c.app, cfg.Token, cfg.Refused = app, app.Token, app.Refused
		c.issuer = fmt.Sprintf("%s app %d", strings.ToLower(t.APIURL), t.auth.app)
	}
	var err error
	if c.Client, err = github.New(cfg); err != nil {
		return nil, err
	}
	c.Share(by.replicas)
	if by.pauses != nil {
		c.keepPauses(by.pauses)
	}
	return c, nil
}

// heard tells of a call under the name of its target. Those for the credential
// itself stand under the first that uses it.
func (c *sharedClient) heard(call github.Call) {
	if c.observe == nil {
		return
	}
	s := c.serves.Load()
	name := s.byScope[scopeKey(call.Scope)]
	if call.Scope == (fleet.Scope{}) {
		name = s.names[0]
	}
	c.observe(name, s.names, call)
}

func scopeKey(s fleet.Scope) string { return strings.ToLower(s.String()) }

// source is where a target's credential comes from, and for which server.
func (t targetConfig) source() string { return strings.ToLower(t.APIURL) + " " + t.auth.source }

// account is who GitHub takes a target's requests to be from.
func (t targetConfig) account() string {
	if id := t.auth.identity(); id != "" {
		return strings.ToLower(t.APIURL) + " " + id
	}
	return t.source()
}

// parted reports whether two places that held the same token do no longer, so
// that targets need clients of their own.
func parted(targets []targetConfig, with map[string]*sharedClient) bool {
	user := map[*sharedClient]targetConfig{}
	for _, t := range targets {
		if with[t.Name].source == t.source() {
			user[with[t.Name]] = t
		}
	}
	for _, t := range targets {
		c := with[t.Name]
		if c.source == t.source() {
			continue
		}
		own, its := t.auth.identity(), user[c].auth.identity()
		if own != "" && its != "" && own != its {
			return true
		}
	}
	return false
}
