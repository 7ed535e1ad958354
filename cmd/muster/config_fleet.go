package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/scheduler"
	"github.com/muster-fleet/muster/worker/token"
)

// tokenLife is how long GitHub's registration tokens are valid.
const tokenLife = time.Hour

const nameRule = "want lower-case letters, digits and -, at most 63, beginning with a letter or digit"

func (r *reader) targets(n node) {
	for _, entry := range n.list() {
		m := entry.mapping()
		if !m.there() {
			continue
		}
		var t targetConfig
		nameNode := m.need("name", "give the target a short name")
		if t.Name = nameNode.text(""); t.Name != "" {
			r.targetName(nameNode, t.Name)
		}
		scopeNode := m.need("scope", "write enterprise/SLUG, org/ORG or repo/OWNER/REPO")
		if s := scopeNode.text(""); s != "" {
			scope, err := fleet.ParseScope(s)
			if err != nil {
				scopeNode.fault("%v", err)
			}
			t.Scope = scope
		}
		api := m.get("api_url")
		before := len(r.faults)
		t.APIURL = r.apiURL(t.Name, api)
		web := m.get("web_url")
		if len(r.faults) == before {
			t.Web = webURL(web, api, t.APIURL)
		}
		// Two names for one scope would have two sets of limits.
		if other, twice := r.sameScope(t.Target); twice {
			scopeNode.fault("target %s is %s too: one scope is one target", other, t.Scope)
		}
		r.auth(&t, m)
		gap := m.get("max_observation_gap")
		if t.MaxObservationGap = gap.duration(time.Hour); t.MaxObservationGap == 0 && gap.there() {
			gap.fault("has to be more than 0: else no time counts as observed, and no runner is ever long offline")
		}
		tokens := m.get("tokens").mapping()
		t.shareRegistration = tokens.get("share_registration").boolean(true)
		validity := tokens.get("min_validity")
		if t.minValidity = validity.duration(20 * time.Minute); t.minValidity >= tokenLife {
			validity.fault("%s is as long as a registration token lives, which is %s: want less", t.minValidity, tokenLife)
		}
		tokens.close("require_sealed")
		r.webhook(&t, m)
		t.Brake = r.brake(m.get("brake").mapping())
		m.close()
		if t.Name != "" {
			r.config.targets = append(r.config.targets, t)
		}
	}
}

// sameScope finds a target further up that is the same scope of the same server.
func (r *reader) sameScope(t fleet.Target) (string, bool) {
	if t.Scope == (fleet.Scope{}) {
		return "", false
	}
	for _, other := range r.config.targets {
		if other.Same(t) {
			return other.Name, true
		}
	}
	return "", false
}

// brake reads when a target that goes dark halts its policies.
func (r *reader) brake(m *mapping) fleet.Brake {
	b := fleet.DefaultBrake
	b.Percent = m.get("percent").integer(b.Percent, 1, 100)
	b.Min = m.get("min").integer(b.Min, 1, 1_000_000)
	window := m.get("window")
	if b.Window = window.duration(b.Window); b.Window < time.Minute || b.Window > longestBrake {
		window.fault("%s is out of bounds, want 1m to 24h", b.Window)
	}
	m.close()
	return b
}

// longestBrake bounds the window of a brake: what went dark a day ago did not
// do so at once with what does today.
const longestBrake = 24 * time.Hour

func (r *reader) targetName(n node, name string) {
	switch {
	case name == fleet.All:
		n.fault("%q stands for all targets: choose another name", name)
	case !fleet.ValidName(name):
		n.fault("%q cannot be a name: %s", name, nameRule)
	}
	if _, twice := r.config.target(name); twice {
		n.fault("a target %s stands further up: give each its own name", name)
	}
}

// known reads names of targets, of which there has to be at least one.
func (r *reader) known(n node) []string {
	return names(n, "target", func(name string) string {
		if _, ok := r.config.target(name); !ok {
			return r.config.unknownTarget(name)
		}
		return ""
	})
}

// knownPools is known of pools.
func (r *reader) knownPools(n node) []string {
	return names(n, "pool", func(name string) string {
		if _, ok := r.config.pool(name); !ok {
			return r.config.unknownPool(name)
		}
		return ""
	})
}

// names reads at least one name, each once; wrong says what is wrong with one.
func names(n node, what string, wrong func(name string) string) []string {
	var names []string
	for _, entry := range n.list() {
		name := entry.text("")
		if name == "" {
			continue
		}
		if why := wrong(name); why != "" {
			entry.fault("%s", why)
			continue
		}
		if slices.Contains(names, name) {
			entry.fault("%s stands here a second time: keep one", name)
			continue
		}
		names = append(names, name)
	}
	if n.there() && len(n.list()) == 0 {
		n.fault("names no %s: want at least one", what)
	}
	return names
}

func (r *reader) schedules(n node) {
	taken := map[string]bool{}
	for _, entry := range n.list() {
		r.schedule(entry, taken)
	}
	housekeep := scheduler.Spec{Job: fleet.JobHousekeep, Name: fleet.All, Cron: "0 3 * * *", Deadline: defaultDeadline}
	if !taken[string(housekeep.Job)+"/"+housekeep.Name] {
		r.parse(node{faults: &r.faults, file: r.config.file}, nil, housekeep)
	}
}

// defaultDeadline is how late a tick may still fire.
const defaultDeadline = 10 * time.Minute

func (r *reader) schedule(entry node, taken map[string]bool) {
	m := entry.mapping()
	if !m.there() {
		return
	}
	jobNode := m.need("job", "write sync, enforce, scale or housekeep")
	spec := scheduler.Spec{Job: fleet.Job(jobNode.text(""))}
	places := map[string]node{"cron": m.need("cron", `write five fields, such as "*/2 * * * *"`)}
	for _, key := range []string{"time_zone", "dst", "misfire", "overlap", "deadline", "jitter"} {
		places[key] = m.get(key)
	}
	spec.Cron = places["cron"].text("")
	spec.TimeZone = places["time_zone"].text("UTC")
	spec.DST = places["dst"].text("")
	spec.Misfire = places["misfire"].text("once")
	spec.Overlap = places["overlap"].text("skip")
	spec.Deadline = places["deadline"].duration(defaultDeadline)
	spec.Jitter = places["jitter"].duration(0)

	var names []string
	targets, pools := m.get("targets"), m.get("pools")
	unwanted := func(why string, nodes ...node) {
		for _, n := range nodes {
			if n.there() {
				n.fault("%s: leave the key out", why)
			}
		}
	}
	switch {
	case spec.Job == "": // said already
	case !slices.Contains(fleet.Jobs, spec.Job):
		jobNode.fault("%q is unknown, want sync, enforce, scale or housekeep", spec.Job)
	case spec.Job == fleet.JobScale:
		if names = r.knownPools(pools); !pools.there() {
			entry.fault("a schedule of scale wants pools: say which")
		}
		unwanted("pools know their target", targets)
	case spec.Job.Named():
		if names = r.known(targets); !targets.there() {
			entry.fault("a schedule of %s wants targets: say which", spec.Job)
		}
		unwanted("pools are for scale", pools)
	default:
		unwanted("housekeeping is for all of muster", targets, pools)
		names = []string{fleet.All}
	}
	m.close()
	for _, name := range names {
		spec.Name = name
		id := string(spec.Job) + "/" + name
		if taken[id] {
			entry.fault("a schedule %s stands further up: there is one for each job and name", id)
			continue
		}
		taken[id] = true
		if spec.Cron != "" && !r.parse(entry, places, spec) {
			return // the others would say the same
		}
	}
}

// parse adds a schedule, or reports what is wrong at the key it concerns.
func (r *reader) parse(entry node, places map[string]node, spec scheduler.Spec) bool {
	s, err := scheduler.Parse(spec)
	if err == nil {
		r.config.schedules = append(r.config.schedules, s)
		return true
	}
	for _, line := range strings.Split(err.Error(), "\n") {
		line = strings.TrimPrefix(line, fmt.Sprintf("schedule %s/%s: ", spec.Job, spec.Name))
		at := entry
		if word, _, _ := strings.Cut(line, " "); places[word].there() {
			at, line = places[word], strings.TrimPrefix(line, word+" ")
		}
		at.fault("%s", line)
	}
	return false
}

func (r *reader) policies(n node) {
	files, names := map[string]bool{}, map[string]string{}
	for _, entry := range n.list() {
		glob := entry.text("")
		if glob == "" {
			continue
		}
		for _, path := range r.expand(entry, glob) {
			if files[path] {
				continue
			}
			files[path] = true
			shown := r.shown(path)
			text, err := os.ReadFile(path)
			if err != nil {
				entry.fault("read %s: %v", shown, pathless(err))
				continue
			}
			loaded, err := policies.Load(shown, text)
			r.faults = append(r.faults, lines(err)...)
			for _, p := range loaded {
				r.policy(p, shown, names)
			}
		}
	}
}

// shown is how messages name a file: as the operator would from where
// muster.yaml was found.
func (r *reader) shown(path string) string {
	if rel, err := filepath.Rel(r.config.dir, path); err == nil && filepath.IsLocal(rel) {
		return filepath.Join(filepath.Dir(r.config.file), rel)
	}
	return path
}

func (r *reader) policy(p *policies.Policy, file string, names map[string]string) {
	if other, twice := names[p.Name]; twice {
		r.faults.add(file, 0, 0, "policy %s stands in %s too: give each its own name", p.Name, other)
		return
	}
	names[p.Name] = file
	for _, target := range p.Targets {
		if _, ok := r.config.target(target); !ok && target != fleet.All {
			r.faults.add(file, 0, 0, "policy %s: spec.scope.targets: %s", p.Name, r.config.unknownTarget(target))
		}
	}
	if window := p.Guards.Max.Window; window > r.config.retain && r.config.retain > 0 {
		r.faults.add(file, 0, 0, "policy %s: spec.guards.max.window: %s is longer than deletions are remembered (retain_days: %d): shorten it, or raise retain_days",
			p.Name, p.Guards.Max.WindowText(), r.config.retain/(24*time.Hour))
	}
	r.config.policies = append(r.config.policies, p)
}

// lines are the errors that were joined into one.
func lines(err error) []error {
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		return joined.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

// prefix is a literal beginning of host names.
var prefix = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

var kinds = []fleet.TokenKind{fleet.TokenRegistration, fleet.TokenRemoval, fleet.TokenJIT}

func (r *reader) grants(n node) {
	for _, entry := range n.list() {
		m := entry.mapping()
		if !m.there() {
			continue
		}
		var g token.Grant
		hosts, hostPrefix := m.get("hosts"), m.get("host_prefix")
		if hosts.there() == hostPrefix.there() {
			entry.fault("want one of hosts and host_prefix")
		}
		for _, host := range hosts.list() {
			name := host.text("")
			if name != "" && !fleet.ValidName(name) {
				host.fault("%q cannot be the name of a host: %s; for many hosts there is host_prefix", name, nameRule)
			}
			g.Hosts = append(g.Hosts, name)
		}
		if hosts.there() && len(hosts.list()) == 0 {
			hosts.fault("names no host: want at least one")
		}
		if g.HostPrefix = hostPrefix.text(""); g.HostPrefix != "" && !prefix.MatchString(g.HostPrefix) {
			hostPrefix.fault("%q cannot begin the name of a host: it is taken literally, %s", g.HostPrefix, nameRule)
		}
		g.Targets = r.known(m.need("targets", "say for which targets"))
		kindsNode := m.need("kinds", "write kinds: [registration, removal]")
		for _, kind := range kindsNode.list() {
			k := fleet.TokenKind(kind.text(""))
			if k != "" && !slices.Contains(kinds, k) {
				kind.fault("%q is unknown, want registration, removal or jit", k)
			}
			g.Kinds = append(g.Kinds, k)
		}
		if kindsNode.there() && len(kindsNode.list()) == 0 {
			kindsNode.fault("names no kind of token: want at least one")
		}
		for _, label := range m.get("labels").texts() {
			g.Labels = append(g.Labels, strings.ToLower(label))
		}
		perHour := m.need("per_hour", "say how many tokens each host may have in an hour")
		g.PerHour = perHour.integer(0, 1, 1_000_000)
		g.MaxLive = m.get("max_live").integer(0, 1, 1_000_000)
		m.close()
		r.config.grants = append(r.config.grants, g)
		r.admit(g)
	}
}

// admit notes on the targets of a grant which hosts may register runners with
// them: a host may then be asked to drain a runner of its own name.
func (r *reader) admit(g token.Grant) {
	if !slices.Contains(g.Kinds, fleet.TokenRegistration) && !slices.Contains(g.Kinds, fleet.TokenJIT) {
		return
	}
	for i := range r.config.targets {
		t := &r.config.targets[i]
		if !slices.Contains(g.Targets, t.Name) {
			continue
		}
		t.Hosts.Names = append(t.Hosts.Names, g.Hosts...)
		if g.HostPrefix != "" {
			t.Hosts.Prefixes = append(t.Hosts.Prefixes, g.HostPrefix)
		}
	}
}
