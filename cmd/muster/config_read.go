package main

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/muster-fleet/muster/fleet"
)

// reader fills in a config and notes what is wrong on the way.
type reader struct {
	env    func(string) string
	config *config
	faults faults
}

func (r *reader) read(root node) {
	c, top := r.config, root.mapping()
	c.databaseURL = r.secret(top, "database_url", "MUSTER_DATABASE_URL")
	c.migrateURL = r.secret(top, "migrate_url", "MUSTER_MIGRATE_URL")
	r.nats(top.get("nats"))
	r.dataDir(top.get("data_dir"))
	r.embedded(top.get("embedded"))
	c.listen = r.address(top.get("listen"), "127.0.0.1:8425")
	r.targets(top.get("targets"))
	c.pools = r.pools(top.get("pools"))
	r.schedules(top.get("schedules"))
	const mostDays = 36500 // a hundred years: beyond that times would not fit
	c.retain = time.Duration(top.get("retain_days").integer(400, 1, mostDays)) * 24 * time.Hour
	r.policies(top.get("policies"))
	r.grants(top.get("grants"))
	top.close("audit")
	r.warnOfBlindness()
	r.warnOfShortBounds()
}

func (r *reader) nats(n node) {
	m, c := n.mapping(), &r.config.nats
	c.url = r.secret(m, "url", "MUSTER_NATS_URL")
	creds := m.get("creds_file")
	c.credsFile = r.path(creds.text(""))
	if v := r.env("MUSTER_NATS_CREDS_FILE"); v != "" {
		c.credsFile, creds = v, node{}
	}
	replicas := m.get("replicas")
	c.replicas = replicas.integer(1, 1, 5)
	own := c.url.IsZero()
	c.allowSharedInbox = m.get("allow_shared_inbox").boolean(own)
	m.close()
	if own && creds.there() {
		creds.fault("the embedded NATS has a login of its own: set nats.url too, or leave this out")
	}
	if own && c.replicas > 1 {
		replicas.fault("the embedded NATS is one server: set nats.url, or leave this out")
	}
	if c.credsFile == "" || own {
		return
	}
	if _, err := readSecretFile(c.credsFile); err != nil {
		r.at(creds, "MUSTER_NATS_CREDS_FILE", &r.faults, "read %s: %v", c.credsFile, err)
	}
}

func (r *reader) dataDir(n node) {
	dir := r.path(n.text(""))
	if dir == "" {
		var err error
		if dir, err = defaultDataDir(r.env); err != nil && r.config.databaseURL.IsZero() {
			r.at(n, "data_dir", &r.faults, "%v", err)
		}
	}
	r.config.dataDir = dir
}

func (r *reader) embedded(n node) {
	m := n.mapping()
	r.config.embedded = embeddedConfig{
		natsListen:   r.address(m.get("nats_listen"), "127.0.0.1:4222"),
		postgresPort: m.get("postgres_port").integer(54329, 0, 65535),
	}
	m.close()
}

// address reads host:port.
func (r *reader) address(n node, otherwise string) string {
	s := n.text(otherwise)
	_, port, err := net.SplitHostPort(s)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		n.fault("%q is not HOST:PORT, such as %s", s, otherwise)
		return otherwise
	}
	return s
}

// path is relative to the file.
func (r *reader) path(p string) string {
	if p == "" || filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(r.config.dir, p)
}

// at reports a fault at its place in the file, or under a name of its own
// where the file does not have it.
func (r *reader) at(n node, otherwise string, to *faults, format string, args ...any) {
	if n.there() {
		n.faults = to
		n.fault(format, args...)
		return
	}
	to.add(otherwise, 0, 0, format, args...)
}

// secret reads a value that may stand in the file, in a file of its own
// (KEY_file), or in the environment (the variable, or VARIABLE_FILE). The
// environment wins; in either place one form is enough.
func (r *reader) secret(m *mapping, key, variable string) fleet.Secret {
	plain, file := m.get(key), m.get(key+"_file")
	if s, ok := plain.value.(*ast.StringNode); ok && s.Value == "" {
		plain.value = nil // written out, and as good as absent
	}
	value, path := plain.text(""), r.path(file.text(""))
	if plain.there() && file.there() {
		file.fault("%s is set too: keep one of them", plain.path)
	}
	where := variable
	if inEnv, pathInEnv := r.env(variable), r.env(variable+"_FILE"); inEnv != "" || pathInEnv != "" {
		if inEnv != "" && pathInEnv != "" {
			r.faults.add(variable+"_FILE", 0, 0, "%s is set too: keep one of them", variable)
		}
		value, path, plain, file = inEnv, pathInEnv, node{}, node{}
	}
	if path != "" {
		where = variable + "_FILE"
		s, err := readSecretFile(path)
		if err != nil {
			r.at(file, where, &r.faults, "read %s: %v", path, err)
			return fleet.Secret{}
		}
		value, plain = s.Reveal(), file
	}
	if value == "" {
		return fleet.Secret{}
	}
	if err := validURL(key, value); err != nil {
		r.at(plain, where, &r.faults, "%v", err)
		return fleet.Secret{}
	}
	return fleet.NewSecret(value)
}

// validURL checks only what can be said without repeating the value: it may
// carry a password.
func validURL(key, value string) error {
	if key == "url" {
		for _, part := range strings.Split(value, ",") {
			u, err := url.Parse(strings.TrimSpace(part))
			if err != nil || u.Host == "" || (u.Scheme != "nats" && u.Scheme != "tls" && u.Scheme != "ws" && u.Scheme != "wss") {
				return fmt.Errorf("not the address of a NATS server: want nats://HOST:PORT, several with commas between")
			}
		}
		return nil
	}
	if strings.HasPrefix(value, "postgres://") || strings.HasPrefix(value, "postgresql://") {
		// A host may be absent: PGHOST and the like fill it in.
		if _, err := url.Parse(value); err == nil {
			return nil
		}
	} else if strings.Contains(value, "=") && !strings.Contains(value, "://") {
		return nil // key=value pairs, as libpq has them
	}
	return fmt.Errorf("not the address of a Postgres database: want postgres://USER@HOST/DATABASE")
}

// apiURL checks the address of a GitHub API and takes the slash off its end.
func (r *reader) apiURL(target string, n node) string {
	s := n.text(fleet.DefaultAPIURL)
	u, ok := siteAddress(n, s, "want "+fleet.DefaultAPIURL+" or https://HOST/api/v3")
	if !ok {
		return s
	}
	host, path := strings.ToLower(u.Hostname()), strings.Trim(u.Path, "/")
	cloud := strings.HasSuffix(host, ".ghe.com")
	switch {
	case host == "github.com" || host == "www.github.com":
		n.fault("%s is the web site, not the API: write %s or leave the key out", u.Host, fleet.DefaultAPIURL)
	case cloud && !strings.HasPrefix(host, "api."):
		n.fault("%s is the web site, not the API: write https://api.%s", u.Host, host)
	case path != "" && (cloud || host == "api.github.com"):
		n.fault("%s has the API at its root: write https://%s", u.Host, host)
	case u.Scheme == "https" && path == "" && !servesAPIAlone(host):
		n.fault("%s is the web site of an Enterprise Server, not its API: write %s/api/v3", s, strings.TrimRight(s, "/"))
	case u.Scheme == "http" && !loopback(u.Hostname()):
		r.warn("target %s: api_url %s is not https: the credential and every token cross the network in the clear", target, s)
	}
	return strings.TrimRight(s, "/")
}

// webURL reads the address of the web site, for servers where it cannot be told
// from the API's; empty where nothing is said.
func webURL(n, api node, apiURL string) string {
	s := n.text("")
	if s == "" {
		if _, err := fleet.WebAddress(apiURL); err != nil && len(api.text("")) > 0 {
			api.fault("%v: write web_url: https://HOST too", err)
		}
		return ""
	}
	if _, ok := siteAddress(n, s, "want the address that people open, such as https://ghes.example.com"); !ok {
		return ""
	}
	return strings.TrimRight(s, "/")
}

// siteAddress reads the address of a server, and faults what is none. It repeats
// nothing that may hold a password.
func siteAddress(n node, s, want string) (*url.URL, bool) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		n.fault("not an absolute http or https address: %s", want)
	case u.User != nil:
		n.fault("must not carry a user or password: credentials belong under auth")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		n.fault("must not carry a query or fragment: %s", want)
	default:
		return u, true
	}
	return nil, false
}

// servesAPIAlone reports whether a host may have the API at its root, as
// api.github.com and api.NAME.ghe.com have it.
func servesAPIAlone(host string) bool {
	return strings.HasPrefix(host, "api.") || strings.Contains(host, ".api.") || loopback(host)
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// expand gives the files that a glob names, which has to be at least one.
func (r *reader) expand(n node, glob string) []string {
	found, err := filepath.Glob(r.path(glob))
	if err != nil {
		n.fault("%q is not a pattern of file names: %v", glob, err)
		return nil
	}
	var files []string
	for _, path := range found {
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			continue
		}
		files = append(files, path)
	}
	if len(files) == 0 {
		n.fault("no file matches %q: mend the path (relative ones start at %s) or leave it out", glob, r.config.dir)
	}
	return files
}
