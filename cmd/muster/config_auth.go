package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
)

// auth is how a target's requests are let in: by a token, or by a GitHub
// App where app is set.
type auth struct {
	source string // where it comes from, as text that tells places apart
	// secret is the token, or the App's private key, as it is now; the file it
	// lies in may change.
	secret            func(context.Context) (fleet.Secret, error)
	app, installation int64 // 0: it is a token
}

// identity tells what the credential is, wherever it comes from: GitHub keeps
// one budget for it. It is empty while that cannot be read.
func (a auth) identity() string {
	if a.app != 0 {
		return fmt.Sprintf("app %d/%d", a.app, a.installation)
	}
	s, err := a.secret(context.Background())
	if err != nil {
		return ""
	}
	return "token " + s.Fingerprint()
}

func (r *reader) auth(t *targetConfig, target *mapping) {
	n := target.need("auth", "write auth: {token_file: FILE}, {token_env: NAME} or {app: {id: N, installation_id: N, private_key_file: FILE}}")
	m := n.mapping()
	if !m.there() {
		return
	}
	file, variable, app := m.get("token_file"), m.get("token_env"), m.get("app")
	m.close()
	given := slices.DeleteFunc([]node{file, variable, app}, func(n node) bool { return !n.there() })
	switch {
	case len(given) != 1:
		n.fault("want one of token_file, token_env and app")
	case app.there():
		r.app(t, app)
	default:
		t.auth, _ = r.lasting("token of target "+t.Name, file, variable, &t.authFaults)
	}
}

// app reads the credential of a GitHub App.
func (r *reader) app(t *targetConfig, n node) {
	m := n.mapping()
	if !m.there() {
		return
	}
	id := m.need("id", "write the App ID from the App's settings page").integer(0, 1, math.MaxInt)
	installation := m.need("installation_id", "write the number at the end of the installation's address").integer(0, 1, math.MaxInt)
	file, variable := m.get("private_key_file"), m.get("private_key_env")
	m.close()
	if t.Scope.Kind == fleet.ScopeEnterprise {
		n.fault("GitHub opens the runners of an enterprise to no App: use a classic token with manage_runners:enterprise, in token_file or token_env")
	}
	if file.there() == variable.there() {
		n.fault("want one of private_key_file and private_key_env")
		return
	}
	what := "private key of target " + t.Name
	c, at := r.lasting(what, file, variable, &t.authFaults)
	if c.secret == nil {
		return
	}
	c.app, c.installation = int64(id), int64(installation)
	c.source = fmt.Sprintf("app %d/%d, %s", c.app, c.installation, c.source)
	t.auth = c
	key, err := c.secret(context.Background())
	if err != nil || key.IsZero() {
		return // said already
	}
	if err := github.CheckPrivateKey(key); err != nil {
		r.at(at, "", &t.authFaults, "the %s cannot be used: %v: put the .pem file there that GitHub gave for the App", what, err)
	}
}

// lasting reads a secret that is asked for again and again where it is, in a
// file or a variable, and says which of them that is. What keeps it from being
// read goes to missing.
func (r *reader) lasting(what string, file, variable node, missing *faults) (auth, node) {
	if name := variable.text(""); name != "" {
		value := strings.TrimSpace(r.env(name))
		if value == "" {
			r.at(variable, "", missing, "the variable %s is empty or not set: put the %s there", name, what)
		}
		return auth{source: "variable " + name, secret: fixedSecret(fleet.NewSecret(value))}, variable
	}
	path := r.path(file.text(""))
	if path == "" {
		return auth{}, file
	}
	source := &secretFile{what: what, path: path}
	if _, err := source.read(); err != nil {
		r.at(file, "", missing, "%v: put the %s there", err, what)
	}
	return auth{source: "file " + path, secret: source.get}, file
}
