package fleet

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// ScopeKind is one of the three levels at which GitHub registers runners.
type ScopeKind string

const (
	ScopeEnterprise ScopeKind = "enterprise"
	ScopeOrg        ScopeKind = "org"
	ScopeRepo       ScopeKind = "repo"
)

// Scope is one enterprise, organisation or repository of a GitHub instance.
// The zero Scope is not valid.
type Scope struct {
	Kind  ScopeKind
	Owner string // enterprise slug, organisation, or owner of the repository
	Repo  string // set for ScopeRepo only
}

// slug is stricter than GitHub's own rules: no dot-only names and nothing
// that could change the path of a URL.
var slug = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$`)

// ParseScope reads enterprise/SLUG, org/ORG or repo/OWNER/REPO.
func ParseScope(s string) (Scope, error) {
	parts := strings.Split(s, "/")
	var sc Scope
	switch {
	case len(parts) == 2 && parts[0] == string(ScopeEnterprise):
		sc = Scope{Kind: ScopeEnterprise, Owner: parts[1]}
	case len(parts) == 2 && parts[0] == string(ScopeOrg):
		sc = Scope{Kind: ScopeOrg, Owner: parts[1]}
	case len(parts) == 3 && parts[0] == string(ScopeRepo):
		sc = Scope{Kind: ScopeRepo, Owner: parts[1], Repo: parts[2]}
	default:
		return Scope{}, fmt.Errorf("scope %q: want enterprise/SLUG, org/ORG or repo/OWNER/REPO", s)
	}
	if err := sc.Valid(); err != nil {
		return Scope{}, err
	}
	return sc, nil
}

// Valid reports what is wrong with the scope, or nil.
func (s Scope) Valid() error {
	bad := func(part string) error {
		return fmt.Errorf("scope %q: %q is not a GitHub name (letters, digits, '.', '_' and '-', not only dots, no '..')", s, part)
	}
	check := func(part string) error {
		if !slug.MatchString(part) || strings.Contains(part, "..") {
			return bad(part)
		}
		return nil
	}
	switch s.Kind {
	case ScopeEnterprise, ScopeOrg:
		return check(s.Owner)
	case ScopeRepo:
		if err := check(s.Owner); err != nil {
			return err
		}
		// A repository may be called .github.
		if strings.HasPrefix(s.Repo, ".") && len(s.Repo) > 1 {
			return check(s.Repo[1:])
		}
		return check(s.Repo)
	}
	return fmt.Errorf("scope kind %q: want enterprise, org or repo", s.Kind)
}

// String is the form that ParseScope reads.
func (s Scope) String() string {
	if s.Kind == ScopeRepo {
		return string(s.Kind) + "/" + s.Owner + "/" + s.Repo
	}
	return string(s.Kind) + "/" + s.Owner
}

// DefaultAPIURL is the API of github.com.
const DefaultAPIURL = "https://api.github.com"

// Target is one scope of one GitHub instance that muster looks after, under a
// short name of the operator's. Scope and APIURL are fixed at the first complete
// sync.
type Target struct {
	Name   string
	Scope  Scope
	APIURL string // without a trailing slash; https://HOST/api/v3 for GitHub Enterprise Server
	// Web is the address of the server's web site; empty: the one that
	// WebAddress derives from APIURL.
	Web string
	// MaxObservationGap is the longest interval between two complete syncs
	// that still counts as observed time. Zero means nothing ever counts.
	MaxObservationGap time.Duration
	Brake             Brake
	// Hosts are those that a grant lets register runners with the target.
	Hosts HostNames
}

// Same reports whether two targets are one scope of one server, as far as their
// addresses tell. The names do not count.
func (t Target) Same(other Target) bool {
	return strings.EqualFold(t.Scope.String(), other.Scope.String()) && SameAddress(t.APIURL, other.APIURL)
}

var name = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// ValidName reports whether s may name a target, a host or a pool.
func ValidName(s string) bool { return name.MatchString(s) }

// All stands for every target in a trigger, so no target may be called that.
const All = "all"

// WebURL is what config.sh --url takes: the web address of the scope, below Web
// or what is derived from the API's address.
func (t Target) WebURL() (string, error) {
	site := t.Web
	if site == "" {
		derived, err := WebAddress(t.APIURL)
		if err != nil {
			return "", fmt.Errorf("web address of target %s: %w: set web_url", t.Name, err)
		}
		site = derived
	}

	path := t.Scope.Owner
	switch t.Scope.Kind {
	case ScopeEnterprise:
		path = "enterprises/" + t.Scope.Owner
	case ScopeRepo:
		path = t.Scope.Owner + "/" + t.Scope.Repo
	}
	return strings.TrimRight(site, "/") + "/" + path, nil
}

// TargetState is a target with what the last syncs told about it: the part of
// the evidence that all its runners share.
type TargetState struct {
	Target
	LastCompleteSyncAt time.Time   // zero: never
	LastOutcome        SyncOutcome // of the newest sync that ended; empty: none yet
	Suspect            Suspect     // of the newest complete sync
	Population         int         // live runners, before any matching
	CredentialFault    string      // why GitHub refuses this target's credential; empty: it does not
}
