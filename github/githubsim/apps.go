package githubsim

import (
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// App is a GitHub App. ID and PublicKey are required.
type App struct {
	ID        int64
	Slug      string // empty: app-ID
	PublicKey *rsa.PublicKey
	// Permissions are what its installations are granted, such as
	// administration: write. Nil: those that muster wants, in full.
	Permissions   map[string]string
	Installations []Installation
}

// Installation is an App's place in one account. ID and Account are required.
// It never sees another account, and no enterprise.
type Installation struct {
	ID      int64 // among those of all Apps
	Account string
	// Repositories are the names of those it was installed in. Nil: all.
	Repositories []string
}

// What the operations need; the values are read and write.
const (
	ofRepos = "administration"
	ofOrgs  = "organization_self_hosted_runners"
	ofAll   = "metadata" // which every App may read
)

// app is an App as the Sim keeps it. The Sim's lock guards it.
type app struct {
	App
	installations map[int64]*installation
}

type installation struct {
	Installation
	app       *app
	suspended time.Time // zero: it is not
	gone      bool
}

// issued is a token of an installation.
type issued struct {
	of          *installation
	permissions map[string]string
	expires     time.Time
	revoked     bool
}

// AddApp registers an App with its installations.
func (s *Sim) AddApp(a App) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case a.ID <= 0 || a.PublicKey == nil:
		return fmt.Errorf("github simulator: add App %d: want a positive id and a public key", a.ID)
	case s.apps[a.ID] != nil:
		return fmt.Errorf("github simulator: add App %d: it is there: %w", a.ID, fleet.ErrConflict)
	}
	if a.Slug == "" {
		a.Slug = fmt.Sprintf("app-%d", a.ID)
	}
	if a.Permissions == nil {
		a.Permissions = map[string]string{ofRepos: "write", ofOrgs: "write"}
	}
	known := &app{App: a, installations: make(map[int64]*installation)}
	for _, in := range a.Installations {
		if _, err := s.installation(in.ID); err == nil || in.ID <= 0 || in.Account == "" || known.installations[in.ID] != nil {
			return fmt.Errorf("github simulator: add App %d: installation %d in %q: want an id of its own and an account", a.ID, in.ID, in.Account)
		}
		known.installations[in.ID] = &installation{Installation: in, app: known}
	}
	s.apps[a.ID] = known
	return nil
}

// installation finds one of any App. The caller holds the lock.
func (s *Sim) installation(id int64) (*installation, error) {
	for _, a := range s.apps {
		if in := a.installations[id]; in != nil {
			return in, nil
		}
	}
	return nil, fmt.Errorf("github simulator: installation %d: %w", id, fleet.ErrNotFound)
}

func (s *Sim) install(id int64, do func(*installation)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	in, err := s.installation(id)
	if err != nil {
		return err
	}
	do(in)
	return nil
}

// Suspend makes an installation and its tokens good for nothing, or ends that.
func (s *Sim) Suspend(id int64, suspended bool) error {
	return s.install(id, func(in *installation) {
		in.suspended = time.Time{}
		if suspended {
			in.suspended = s.clock()
		}
	})
}

// Uninstall deletes an installation, and its tokens with it.
func (s *Sim) Uninstall(id int64) error {
	if err := s.RevokeInstallationTokens(id); err != nil {
		return err
	}
	return s.install(id, func(in *installation) { in.gone = true })
}

// RevokeInstallationTokens ends the tokens that an installation has now. It can
// have new ones.
func (s *Sim) RevokeInstallationTokens(id int64) error {
	return s.install(id, func(in *installation) {
		for _, t := range s.issued {
			t.revoked = t.revoked || t.of == in
		}
	})
}

// enter is nil for an installation token that may come in.
func (s *Sim) enter(t *issued) *answer {
	switch {
	case t.revoked, !s.clock().Before(t.expires):
		return s.jsonError(http.StatusUnauthorized, "Bad credentials", query{})
	case !t.of.suspended.IsZero():
		return s.suspendedAnswer()
	}
	return nil
}

func (s *Sim) suspendedAnswer() *answer {
	return s.jsonError(http.StatusForbidden, "This installation has been suspended", query{})
}

// inaccessible is what Apps are told of what they may not do.
func (s *Sim) inaccessible(q query) *answer {
	return s.jsonError(http.StatusForbidden, "Resource not accessible by integration", q)
}

// permits is nil for an installation token that may do this in this scope.
func (s *Sim) permits(t *issued, q query, st *scopeState) *answer {
	if st.scope.Kind == fleet.ScopeEnterprise {
		return s.inaccessible(q)
	}
	in := t.of
	elsewhere := !strings.EqualFold(in.Account, st.scope.Owner) ||
		st.scope.Repo != "" && in.Repositories != nil && !slices.ContainsFunc(in.Repositories, func(name string) bool { return strings.EqualFold(name, st.scope.Repo) })
	if elsewhere {
		return s.notFound(q)
	}
	permission, level := q.needs()
	if permission == ofAll {
		return nil
	}
	if has := t.permissions[permission]; has != "write" && has != level {
		a := s.inaccessible(q)
		a.permission = permission + "=" + level
		return a
	}
	return nil
}

// needs is the permission that an operation takes.
func (q query) needs() (permission, level string) {
	permission, level = ofOrgs, "write"
	if q.scope.Kind == fleet.ScopeRepo {
		permission = ofRepos
	}
	switch q.op {
	case opRepos, opRepo:
		permission = ofAll
	case opRuns, opRunJobs, opJob:
		permission = "actions"
	case opDeliveries, opDelivery, opRedeliver:
		permission = "organization_hooks"
		if q.scope.Kind == fleet.ScopeRepo {
			permission = "repository_hooks"
		}
	}
	if q.op.reads() {
		level = "read"
	}
	return permission, level
}

// answerApp answers the routes that an App has as itself.
func (s *Sim) answerApp(q query, by *app, body []byte, e *Event) *answer {
	if q.op == opApp {
		return &answer{status: http.StatusOK, body: quote(map[string]any{
			"id": by.ID, "slug": by.Slug, "name": by.Slug, "permissions": by.Permissions, "events": []string{"workflow_job"},
			"installations_count": len(by.installations), "owner": account("octocat"),
		})}
	}
	in := by.installations[q.installation]
	if in == nil || in.gone {
		return s.notFound(q)
	}
	if q.op == opInstallation {
		var since any
		if !in.suspended.IsZero() {
			since = in.suspended.UTC().Format(time.RFC3339)
		}
		return &answer{status: http.StatusOK, body: quote(map[string]any{
			"id": in.ID, "account": account(in.Account), "app_id": by.ID, "app_slug": by.Slug, "target_type": "Organization",
			"repository_selection": in.selection(), "permissions": by.Permissions, "events": []string{"workflow_job"}, "suspended_at": since,
		})}
	}
	if !in.suspended.IsZero() {
		return s.suspendedAnswer()
	}
	return s.issue(in, body, q, e)
}

func account(login string) map[string]any {
	return map[string]any{"login": login, "id": 1, "type": "Organization"}
}

func (in *installation) selection() string {
	if in.Repositories == nil {
		return "all"
	}
	return "selected"
}

// installationTokenLife is GitHub's.
const installationTokenLife = time.Hour

// issue makes a token of an installation. Those made before stay good.
func (s *Sim) issue(in *installation, body []byte, q query, e *Event) *answer {
	permissions := maps.Clone(in.app.Permissions)
	var asked struct{ Permissions map[string]string }
	if len(body) > 0 && json.Unmarshal(body, &asked) != nil {
		return s.jsonError(http.StatusBadRequest, "Problems parsing JSON", q)
	}
	if asked.Permissions != nil {
		for name, level := range asked.Permissions {
			if has := permissions[name]; has != level && (has != "write" || level != "read") {
				return s.jsonError(http.StatusUnprocessableEntity, "The permissions requested are not granted to this installation.", q)
			}
		}
		permissions = asked.Permissions
	}
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	raw := []byte("ghs_")
	for len(raw) < 40 {
		raw = append(raw, alphabet[s.random.IntN(len(alphabet))])
	}
	token, expires := string(raw), s.clock().Add(installationTokenLife)
	s.issued[token] = &issued{of: in, permissions: permissions, expires: expires}
	e.Acted, e.Token, e.Installation = true, fingerprint(token), in.ID
	return &answer{status: http.StatusCreated, body: quote(struct {
		Token       string            `json:"token"`
		ExpiresAt   string            `json:"expires_at"`
		Permissions map[string]string `json:"permissions"`
		Selection   string            `json:"repository_selection"`
	}{token, expires.UTC().Format(time.RFC3339), permissions, in.selection()})}
}
