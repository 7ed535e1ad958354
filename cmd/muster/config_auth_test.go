package main

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
)

func TestAnAppArrives(t *testing.T) {
	t.Parallel()
	dir := inDir(t, map[string]string{"app.pem": pemKey()})
	c := loaded(t, dir, `targets:
  - {name: file, scope: org/acme, auth: {app: {id: 11, installation_id: 22, private_key_file: app.pem}}}
  - {name: variable, scope: repo/acme/widgets, auth: {app: {id: 11, installation_id: 33, private_key_env: KEY}}}
`)
	for name, want := range map[string]auth{
		"file":     {source: "app 11/22, file " + filepath.Join(dir, "app.pem"), app: 11, installation: 22},
		"variable": {source: "app 11/33, variable KEY", app: 11, installation: 33},
	} {
		target, _ := c.target(name)
		key, err := target.auth.secret(t.Context())
		if err != nil || key != fleet.NewSecret(strings.TrimSpace(pemKey())) {
			t.Errorf("%s: the key is not the one given: %v", name, err)
		}
		if got := target.auth; got.source != want.source || got.app != want.app || got.installation != want.installation {
			t.Errorf("%s: auth = %+v, want %+v", name, got, want)
		}
	}
}

func TestBadApps(t *testing.T) {
	t.Parallel()
	dir := inDir(t, map[string]string{"good.pem": pemKey(), "bad.pem": "hunter2", "empty.pem": "", "muster.yaml": `targets:
  - {name: none, scope: org/a, auth: {}}
  - {name: every, scope: org/b, auth: {token_file: good.pem, token_env: T, app: {id: 1}}}
  - {name: bare, scope: org/c, auth: {app: {}}}
  - {name: keys, scope: org/d, auth: {app: {id: 1, installation_id: 2, private_key_file: good.pem, private_key_env: T}}}
  - {name: ids, scope: org/e, auth: {app: {id: 0, installation_id: "2", private_key_file: good.pem, key: x}}}
  - {name: gone, scope: org/f, auth: {app: {id: 1, installation_id: 2, private_key_file: gone.pem}}}
  - {name: empty, scope: org/g, auth: {app: {id: 1, installation_id: 2, private_key_file: empty.pem}}}
  - {name: bad, scope: org/h, auth: {app: {id: 1, installation_id: 2, private_key_file: bad.pem}}}
  - {name: unset, scope: org/i, auth: {app: {id: 1, installation_id: 2, private_key_env: UNSET}}}
  - {name: text, scope: org/j, auth: {app: {id: 1, installation_id: 2, private_key_env: T}}}
  - {name: octo, scope: enterprise/octo, auth: {app: {id: 1, installation_id: 2, private_key_file: good.pem}}}
`})
	path := filepath.Join(dir, "muster.yaml")
	env := variables(map[string]string{"T": "hunter2", "HOME": "/h"})
	_, err := loadConfig(path, env)
	want := []string{
		`2:38: targets[0].auth: want one of token_file, token_env and app`,
		`3:39: targets[1].auth: want one of token_file, token_env and app`,
		`4:44: targets[2].auth.app.id: is missing: write the App ID from the App's settings page`,
		`4:44: targets[2].auth.app.installation_id: is missing: write the number at the end of the installation's address`,
		`4:44: targets[2].auth.app: want one of private_key_file and private_key_env`,
		`5:44: targets[3].auth.app: want one of private_key_file and private_key_env`,
		`6:48: targets[4].auth.app.id: 0 is out of bounds, want 1 to 9223372036854775807`,
		`6:68: targets[4].auth.app.installation_id: want a whole number, got text`,
		`6:101: targets[4].auth.app.key: unknown key, want one of id, installation_id, private_key_env, private_key_file`,
		`7:90: targets[5].auth.app.private_key_file: read the private key of target gone from DIR/gone.pem: no such file or directory: put the private key of target gone there`,
		`8:91: targets[6].auth.app.private_key_file: read the private key of target empty from DIR/empty.pem: the file is empty: put the private key of target empty there`,
		`9:89: targets[7].auth.app.private_key_file: the private key of target bad cannot be used: not a private key in PEM, which begins with -----BEGIN and has line breaks: put the .pem file there that GitHub gave for the App`,
		`10:90: targets[8].auth.app.private_key_env: the variable UNSET is empty or not set: put the private key of target unset there`,
		`11:89: targets[9].auth.app.private_key_env: the private key of target text cannot be used: not a private key in PEM, which begins with -----BEGIN and has line breaks: put the .pem file there that GitHub gave for the App`,
		`12:54: targets[10].auth.app: GitHub opens the runners of an enterprise to no App: use a classic token with manage_runners:enterprise, in token_file or token_env`,
	}
	var got []string
	for _, line := range lines(errors.Unwrap(err)) {
		got = append(got, strings.ReplaceAll(strings.TrimPrefix(line.Error(), path+":"), dir, "DIR"))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
	if err != nil && strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a secret shows in:\n%v", err)
	}
}

// Who only reads need not be able to read the key; that an enterprise has no
// Apps he learns all the same.
func TestReadingNeedsNoPrivateKey(t *testing.T) {
	t.Parallel()
	env := variables(map[string]string{"HOME": "/h"})
	for scope, want := range map[string]string{"org/acme": "", "enterprise/octo": "to no App"} {
		dir := inDir(t, map[string]string{
			"muster.yaml": "targets: [{name: a, scope: " + scope + ", auth: {app: {id: 1, installation_id: 2, private_key_file: gone}}}]\n",
		})
		_, err := loadForReading(filepath.Join(dir, "muster.yaml"), env)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: loadForReading = %v, want %q in it", scope, err, want)
		}
	}
}
