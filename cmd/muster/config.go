package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/scheduler"
	"github.com/muster-fleet/muster/worker/enforce"
	"github.com/muster-fleet/muster/worker/token"
)

// config is muster.yaml and the environment, checked as a whole. It is not
// changed after loading.
type config struct {
	file string // empty where there is none
	dir  string // where relative paths start

	databaseURL fleet.Secret // zero: embedded
	migrateURL  fleet.Secret // zero: databaseURL
	nats        natsConfig
	dataDir     string // absolute; only for what is embedded
	embedded    embeddedConfig
	listen      string // host:port

	targets   []targetConfig // in the order of the file
	schedules []scheduler.Schedule
	policies  []*policies.Policy
	pools     []*policies.Pool
	grants    []token.Grant
	retain    time.Duration // of ticks, runs, syncs, decisions and history

	// warnings are what serve says of a configuration that it accepts, one
	// line each.
	warnings []string
}

type natsConfig struct {
	url              fleet.Secret // zero: embedded. It may carry a password
	credsFile        string       // empty: none
	replicas         int          // of the streams
	allowSharedInbox bool
}

type embeddedConfig struct {
	natsListen   string // host:port
	postgresPort int    // on 127.0.0.1; 0 takes a free one
}

type targetConfig struct {
	fleet.Target
	auth              auth
	shareRegistration bool
	minValidity       time.Duration // left of a shared registration token
	// webhookSecrets are those of its webhook, as they are now; nil: it has none.
	webhookSecrets func(context.Context) ([]fleet.Secret, error)

	// What keeps the credential, and the webhook's secrets, from being read now.
	authFaults, webhookFaults faults
}

// target finds a target by its name.
func (c *config) target(name string) (targetConfig, bool) {
	for _, t := range c.targets {
		if t.Name == name {
			return t, true
		}
	}
	return targetConfig{}, false
}

func (c *config) targetNames() []string {
	names := make([]string, len(c.targets))
	for i, t := range c.targets {
		names[i] = t.Name
	}
	return names
}

// pool finds a pool by its name.
func (c *config) pool(name string) (*policies.Pool, bool) {
	for _, p := range c.pools {
		if p.Name == name {
			return p, true
		}
	}
	return nil, false
}

func (c *config) poolNames() []string {
	names := make([]string, len(c.pools))
	for i, p := range c.pools {
		names[i] = p.Name
	}
	return names
}

// unknownPool says that a pool is not configured, and which ones are.
func (c *config) unknownPool(name string) string {
	if len(c.pools) == 0 {
		return fmt.Sprintf("pool %q is unknown: there is none under pools: in muster.yaml", name)
	}
	return fmt.Sprintf("pool %q is unknown, there is %s", name, strings.Join(c.poolNames(), ", "))
}

// runs reports whether a policy is configured, and for a target that is.
func (c *config) runs(policy, target string) bool {
	_, known := c.target(target)
	return known && slices.ContainsFunc(enforce.Covering(c.policies, target), func(p *policies.Policy) bool {
		return p.Name == policy
	})
}

// covered reports whether any policy has something to say about a target.
func (c *config) covered(target string) bool { return len(enforce.Covering(c.policies, target)) > 0 }

// unknownTarget says that a target is not configured, and which ones are.
func (c *config) unknownTarget(name string) string {
	if len(c.targets) == 0 {
		return fmt.Sprintf("target %q is unknown: there is none under targets: in muster.yaml", name)
	}
	return fmt.Sprintf("target %q is unknown, there is %s", name, strings.Join(c.targetNames(), ", "))
}

// localConfig is the configuration in the current directory.
const localConfig = "muster.yaml"

// systemConfig is where the configuration lies when nobody says otherwise and
// there is none in the current directory.
const systemConfig = "/etc/muster/muster.yaml"

// findConfig is the file to read: the one that was asked for, or the first
// that exists; empty where there is none.
func findConfig(asked string, env func(string) string) (string, error) {
	if asked == "" {
		asked = env("MUSTER_CONFIG")
	}
	if asked != "" {
		return asked, nil
	}
	for _, path := range []string{localConfig, systemConfig} {
		_, err := os.Stat(path)
		if err == nil {
			return path, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("look for %s: %w", path, err)
		}
	}
	return "", nil
}

// loadConfig reads and checks everything, the secrets of targets too. An
// empty path means that there is no file: everything is as by default. The
// error has one line for each fault.
func loadConfig(path string, env func(string) string) (*config, error) {
	c, all := readConfig(path, env)
	for _, t := range c.targets {
		all = append(append(all, t.authFaults...), t.webhookFaults...)
	}
	if err := all.err(); err != nil {
		return nil, configError{err}
	}
	return c, nil
}

// loadForTarget is loadConfig for somebody who speaks to GitHub for one target:
// its credential has to be there, and no other secret.
func loadForTarget(path string, env func(string) string, name string) (*config, error) {
	c, all := readConfig(path, env)
	if t, ok := c.target(name); ok {
		all = append(all, t.authFaults...)
	}
	if err := all.err(); err != nil {
		return nil, configError{err}
	}
	return c, nil
}

// loadForReading is loadConfig for somebody who does not need the secrets of
// targets, and may have no right to read them.
func loadForReading(path string, env func(string) string) (*config, error) {
	c, all := readConfig(path, env)
	if err := all.err(); err != nil {
		return nil, configError{err}
	}
	return c, nil
}

// configError is a configuration that cannot be used.
type configError struct{ error }

func (e configError) Unwrap() error { return e.error }

// readConfig also returns what is wrong; that of the secrets of targets stands
// with them.
func readConfig(path string, env func(string) string) (*config, faults) {
	r := &reader{env: env, config: &config{file: path}}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		r.faults.add(path, 0, 0, "find its directory: %v", err)
		return r.config, r.faults
	}
	r.config.dir = dir
	var text []byte
	if path != "" {
		if text, err = os.ReadFile(path); err != nil {
			r.faults.add(path, 0, 0, "read the configuration: %v", pathless(err))
			return r.config, r.faults
		}
	}
	r.read(parseYAML(path, text, &r.faults))
	return r.config, r.faults
}

// pathless is the reason without the path, where the path has been said.
func pathless(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// defaultDataDir is the user's data directory, as the XDG base directory
// specification has it.
func defaultDataDir(env func(string) string) (string, error) {
	if os.Getuid() == 0 {
		return "/var/lib/muster", nil
	}
	// The specification has relative paths ignored.
	if dir := env("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "muster"), nil
	}
	if home := env("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "share", "muster"), nil
	}
	return "", errors.New("neither XDG_DATA_HOME nor HOME is set: set data_dir")
}
