package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
)

// pemKey is a private key of an App: making one takes a while.
var pemKey = sync.OnceValue(func() string {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
})

// targetsOf is a configuration with one target, called a, b and so on and
// each of its own organisation, for each of the lines.
func targetsOf(lines ...string) string {
	var b strings.Builder
	b.WriteString("targets:\n")
	for i, line := range lines {
		name := string(rune('a' + i))
		fmt.Fprintf(&b, "  - {name: %s, scope: org/Of-%s, %s}\n", name, name, line)
	}
	return b.String()
}

// loaded is a configuration whose file lies in dir.
func loaded(t *testing.T, dir, text string) *config {
	t.Helper()
	path := filepath.Join(dir, "muster.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := loadConfig(path, variables(map[string]string{"HOME": "/h", "ONE": "one", "UNO": "one", "TWO": "two", "KEY": pemKey()}))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func wired(t *testing.T, c *config, before *wiring, observe observer) *wiring {
	t.Helper()
	w, err := wire(c, before, hearers{call: observe})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// groups are the names of targets that share a client, in order.
func groups(w *wiring) string {
	var all []string
	seen := map[*sharedClient]bool{}
	for _, t := range w.config.targets {
		if c := w.clients[t.Name]; !seen[c] {
			seen[c] = true
			all = append(all, strings.Join(c.serves.Load().names, ""))
		}
	}
	return strings.Join(all, " ")
}

func TestTargetsWithOneCredentialShareAClient(t *testing.T) {
	t.Parallel()
	const elsewhere, app = `api_url: "https://ghes.example.com/api/v3", `, "auth: {app: {id: 1, installation_id: 2, "
	for _, tt := range []struct {
		name, want string
		targets    []string
	}{
		{"one file", "ab", []string{"auth: {token_file: one}", "auth: {token_file: ./one}"}},
		{"one variable", "ab", []string{"auth: {token_env: ONE}", "auth: {token_env: ONE}"}},
		{"one token from three places", "abc", []string{"auth: {token_file: one}", "auth: {token_file: uno}", "auth: {token_env: ONE}"}},
		{"two tokens", "ac b", []string{"auth: {token_file: one}", "auth: {token_file: two}", "auth: {token_env: UNO}"}},
		{"two servers", "a bc", []string{"auth: {token_file: one}", elsewhere + "auth: {token_file: one}",
			`api_url: "https://GHES.example.com/api/v3/", auth: {token_file: one}`}},
		{"one App", "ab", []string{app + "private_key_file: key}}", app + "private_key_file: key}}"}},
		{"one App with two keys", "ab", []string{app + "private_key_file: key}}", app + "private_key_env: KEY}}"}},
		{"two installations", "a b", []string{app + "private_key_file: key}}", "auth: {app: {id: 1, installation_id: 3, private_key_file: key}}"}},
		{"two Apps", "a b", []string{app + "private_key_file: key}}", "auth: {app: {id: 2, installation_id: 2, private_key_file: key}}"}},
	} {
		dir := inDir(t, map[string]string{"one": "one\n", "uno": "one", "two": "two", "key": pemKey()})
		w := wired(t, loaded(t, dir, targetsOf(tt.targets...)), nil, nil)
		if got := groups(w); got != tt.want {
			t.Errorf("%s: clients are for %q, want %q", tt.name, got, tt.want)
		}
		for name, c := range w.clients {
			if w.inventory[name].GitHub != c.Client || w.remove[name].GitHub != c.Client || w.token[name].GitHub != c.Client {
				t.Errorf("%s: the jobs of target %s have different clients", tt.name, name)
			}
		}
	}
}

// What a client has learnt of GitHub's limits is not lost by a reload.
func TestClientsOutliveAReload(t *testing.T) {
	t.Parallel()
	const one, two, app = "auth: {token_file: one}", "auth: {token_file: two}", "auth: {app: {id: 1, installation_id: 2, private_key_file: %s}}"
	dir := inDir(t, map[string]string{"one": "one", "two": "two", "key": pemKey(), "moved": pemKey()})
	before := wired(t, loaded(t, dir, targetsOf(one, two, fmt.Sprintf(app, "key"), fmt.Sprintf(app, "key"))), nil, nil)
	was := before.clients
	for _, tt := range []struct {
		name    string
		targets []string
		want    []*sharedClient // nil: a new one
	}{
		{"nothing changed", []string{one, two, fmt.Sprintf(app, "key"), fmt.Sprintf(app, "key")}, []*sharedClient{was["a"], was["b"], was["c"], was["c"]}},
		{"another order", []string{two, one}, []*sharedClient{was["b"], was["a"]}},
		{"the token in a variable too", []string{"auth: {token_env: ONE}", one}, []*sharedClient{was["a"], was["a"]}},
		{"from a variable instead", []string{"auth: {token_env: ONE}"}, []*sharedClient{nil}},
		{"another place for the key", []string{fmt.Sprintf(app, "moved")}, []*sharedClient{nil}},
		{"another server", []string{`api_url: "https://ghes.example.com/api/v3", ` + one}, []*sharedClient{nil}},
	} {
		next := wired(t, loaded(t, dir, targetsOf(tt.targets...)), before, nil)
		for i, target := range next.config.targets {
			got, known := next.clients[target.Name], []*sharedClient{was["a"], was["b"], was["c"]}
			if want := tt.want[i]; want != nil && got != want || want == nil && slices.Contains(known, got) {
				t.Errorf("%s: target %s has the wrong client", tt.name, target.Name)
			}
		}
	}
	// A token that was replaced in its file is still the same credential.
	if err := os.WriteFile(filepath.Join(dir, "one"), []byte("rotated"), 0o600); err != nil {
		t.Fatal(err)
	}
	if next := wired(t, loaded(t, dir, targetsOf(one, two)), before, nil); next.clients["a"] != was["a"] {
		t.Error("the client of a rotated token did not outlive the reload")
	}
}

// Two files may hold the same token today and another one each tomorrow.
func TestTargetsPartWhenTheirFilesDo(t *testing.T) {
	t.Parallel()
	dir := inDir(t, map[string]string{"one": "one", "uno": "one"})
	s, err := newService(slog.New(slog.DiscardHandler), loaded(t, dir, targetsOf("auth: {token_file: one}", "auth: {token_file: uno}", "auth: {token_file: one}")), nil)
	if err != nil {
		t.Fatal(err)
	}
	before := s.wired()
	if got := groups(before); got != "abc" {
		t.Fatalf("clients are for %q, want one for all", got)
	}
	if err := os.Remove(filepath.Join(dir, "uno")); err != nil {
		t.Fatal(err)
	}
	if s.wired() != before {
		t.Error("targets part while a file is only away")
	}
	if err := os.WriteFile(filepath.Join(dir, "uno"), []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	after := s.wired()
	if got := groups(after); got != "ac b" {
		t.Errorf("clients are for %q, want b to have its own", got)
	}
	if after.clients["a"] != before.clients["a"] {
		t.Error("the client of the others did not go on")
	}
	if s.wired() != after {
		t.Error("they part again and again")
	}
}

func TestCallsCountForTheirTargetAndTheBudgetForAllThatShareIt(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-RateLimit-Remaining", "4711")
		if strings.HasSuffix(r.URL.Path, "/access_tokens") {
			w.WriteHeader(http.StatusCreated)
			fmt.Fprint(w, `{"token":"ghs_1","expires_at":"2126-01-01T00:00:00Z"}`) //nolint:errcheck // a client that is gone notices
			return
		}
		fmt.Fprint(w, `{"total_count":0,"runners":[]}`) //nolint:errcheck // as above
	}))
	t.Cleanup(srv.Close)
	var heard []string
	observe := func(target string, sharing []string, call github.Call) {
		heard = append(heard, fmt.Sprintf("%s of %s: %s %d %d", target, strings.Join(sharing, "+"), call.Op, call.Status, call.RateRemaining))
	}
	app := fmt.Sprintf("api_url: %q, auth: {app: {id: 1, installation_id: 2, private_key_env: KEY}}", srv.URL+"/api/v3")
	dir := inDir(t, nil)
	first := wired(t, loaded(t, dir, targetsOf(app, app)), nil, observe)
	list := func(w *wiring, target string, scope fleet.Scope) {
		t.Helper()
		if err := w.clients[target].CanList(t.Context(), scope); err != nil {
			t.Error(err)
		}
	}
	a, b := first.config.targets[0].Scope, first.config.targets[1].Scope
	list(first, "b", b)
	list(first, "a", a)
	// The one that is left has another name for its scope, which is the same.
	renamed := strings.Replace(targetsOf(app), "{name: a, scope: org/Of-a", "{name: z, scope: org/OF-B", 1)
	second := wired(t, loaded(t, dir, renamed), first, observe)
	list(second, "z", second.config.targets[0].Scope)
	list(first, "a", a) // what was under way
	want := []string{
		"a of a+b: create_installation_token 201 -1",
		"b of a+b: check_access 200 4711",
		"a of a+b: check_access 200 4711",
		"z of z: check_access 200 4711",
		"a of z: check_access 200 4711",
	}
	if diff := cmp.Diff(want, heard); diff != "" {
		t.Errorf("heard (-want +got):\n%s", diff)
	}
}
