package standalone

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	superuser = "postgres"
	database  = "muster"
)

// errMemoryHeld says that children of a killed server are still about.
var errMemoryHeld = errors.New("shared memory of the server before is still in use")

// cluster is the data of one server and how to run it.
type cluster struct {
	account *account
	bins    binaries
	dir     string // resolved
	fast    bool
}

func (c cluster) data() string    { return filepath.Join(c.dir, "data") }
func (c cluster) logFile() string { return filepath.Join(c.dir, "postgres.log") }

// prepare makes the cluster where there is none and returns the superuser's
// password. The cluster appears under its name in one step, complete: initdb
// that was killed half-way leaves nothing that looks like data.
func (c cluster) prepare(ctx context.Context) (string, error) {
	passwordFile := filepath.Join(c.dir, "password")
	b, err := os.ReadFile(passwordFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	password := strings.TrimSpace(string(b))
	_, err = os.Stat(c.data())
	if err == nil && password == "" {
		return "", fmt.Errorf("the password of the cluster in %s is missing: put it into %s, or move %s away to begin with an empty one", c.data(), passwordFile, c.data())
	}
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return password, err
	}
	if password == "" {
		password, err = newPassword(passwordFile)
		if err != nil {
			return "", err
		}
	}
	return password, c.initdb(ctx, password)
}

// newPassword makes a password and keeps it in a file for its owner alone.
func newPassword(file string) (string, error) {
	secret := make([]byte, 24)
	if _, err := rand.Read(secret); err != nil {
		return "", err
	}
	password := hex.EncodeToString(secret)
	if err := writeDurably(file, password+"\n"); err != nil {
		return "", err
	}
	return password, nil
}

func writeDurably(path, text string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Sync(), f.Close())
}

func (c cluster) initdb(ctx context.Context, password string) error {
	left, err := filepath.Glob(filepath.Join(c.dir, "initdb-*"))
	if err != nil {
		return err
	}
	for _, dir := range left {
		_ = os.RemoveAll(dir) // of a killed muster; in no one's way
	}
	work, err := os.MkdirTemp(c.dir, "initdb-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }() // the next initdb tries again
	// initdb reads the password from a file of the account that it runs as.
	secret := filepath.Join(work, "password")
	if err := os.WriteFile(secret, []byte(password+"\n"), 0o600); err != nil {
		return err
	}
	if err := errors.Join(c.account.give(secret), c.account.give(work)); err != nil {
		return err
	}
	data := filepath.Join(work, "data")
	args := []string{
		"--pgdata", data, "--username", superuser, "--pwfile", secret,
		"--auth", "scram-sha-256", "--locale", "C", "--encoding", "UTF8", "--no-instructions",
	}
	if c.fast {
		args = append(args, "--no-sync")
	}
	if _, err := runTool(tool(ctx, c.account, work, filepath.Join(c.bins.dir, "initdb"), args...)); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	}
	if err := os.Rename(data, c.data()); err != nil || c.fast {
		return err
	}
	parent, err := os.Open(c.dir)
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}

// settings are given on the command line, where they win over any file.
func (c cluster) settings(port int) map[string]string {
	s := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    strconv.Itoa(port),
		"unix_socket_directories": "", // the path of a socket has at most 107 bytes, a data directory's may have more
		"max_connections":         "100",
		"shared_buffers":          "128MB",
		"timezone":                "UTC",
		"log_timezone":            "UTC",
		"cluster_name":            "muster",
		// The log gets what the server says of itself, not each statement that
		// a client could not run.
		"log_min_messages":        "log",
		"log_min_error_statement": "panic",
		"log_checkpoints":         "off",
		"logging_collector":       "off",
		"log_destination":         "stderr",
	}
	if c.fast {
		s["max_connections"] = "400" // as many parallel tests as there are cores, each with a pool
		s["fsync"] = "off"
		s["synchronous_commit"] = "off"
		s["full_page_writes"] = "off"
	}
	return s
}

// start returns once the server accepts clients. When ctx ends before that, no
// server is left.
func (c cluster) start(ctx context.Context, port int) (*process, error) {
	if err := os.Rename(c.logFile(), c.logFile()+".old"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	log, err := os.OpenFile(c.logFile(), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the child has its own
	args := []string{"-D", c.data()}
	for name, value := range c.settings(port) {
		args = append(args, "-c", name+"="+value)
	}
	cmd := tool(context.WithoutCancel(ctx), c.account, c.data(), filepath.Join(c.bins.dir, "postgres"), args...)
	cmd.Stdout, cmd.Stderr = log, log
	proc, err := launch(cmd)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for !c.ready(proc.pid) {
		select {
		case <-proc.done:
			return nil, c.whyEnded(port, proc.err)
		case <-ctx.Done():
			// The caller waits no longer, so neither does a recovery.
			return nil, errors.Join(ctx.Err(), proc.stop(ctx))
		case <-tick.C:
		}
	}
	return proc, nil
}

// ready reads the server's own word: its process number on the first line of
// postmaster.pid and its state on the eighth, which is how pg_ctl knows.
func (c cluster) ready(pid int) bool {
	b, err := os.ReadFile(filepath.Join(c.data(), "postmaster.pid"))
	if err != nil {
		return false
	}
	lines := strings.Split(string(b), "\n")
	return len(lines) >= 8 && strings.TrimSpace(lines[0]) == strconv.Itoa(pid) && strings.TrimSpace(lines[7]) == "ready"
}

// whyEnded finds the reason in the log of a server that did not come up.
func (c cluster) whyEnded(port int, status error) error {
	b, err := os.ReadFile(c.logFile())
	if err != nil {
		return err
	}
	log := string(b)
	switch {
	case strings.Contains(log, "Address already in use"):
		return fmt.Errorf("127.0.0.1:%d: %w", port, errPortTaken)
	case strings.Contains(log, "shared memory block") && strings.Contains(log, "still in use"):
		return errMemoryHeld
	}
	return fmt.Errorf("the server ended%s (its log is %s)", howEnded(status, log, c.dir, freeSpace(c.dir)), c.logFile())
}

// tight is less than a server starts with: a segment of its write-ahead log,
// and some.
const tight = 32 << 20

// howEnded is the log's first fault, or how the server ended where it gives
// none. A log on a full disk stays empty; free is what is left there, in bytes.
func howEnded(status error, log, dir string, free uint64) string {
	text := firstFault(log, "FATAL:", "PANIC:")
	if text == "" {
		text = fmt.Sprintf(": %v%s", status, lastLine(log))
	}
	if free < tight {
		text += fmt.Sprintf("; %d KiB are free for %s, which is too little: make room there", free>>10, dir)
	}
	return text
}

// freeSpace is how many bytes an ordinary user may still write to the disk of a
// directory; as many as there can be where that is not known.
func freeSpace(dir string) uint64 {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return math.MaxUint64
	}
	return uint64(fs.Bavail) * uint64(fs.Bsize)
}

// ensureDatabase makes the database where it is missing and returns its URL.
func ensureDatabase(ctx context.Context, port int, password string) (string, error) {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(superuser, password),
		Host:     net.JoinHostPort("127.0.0.1", strconv.Itoa(port)),
		Path:     "/postgres",
		RawQuery: "sslmode=disable",
	}
	conn, err := pgx.Connect(ctx, u.String())
	if err != nil {
		return "", fmt.Errorf("connect as %s: %w", superuser, err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // nothing is left to lose
	var exists bool
	err = conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, database).Scan(&exists)
	if err == nil && !exists {
		_, err = conn.Exec(ctx, `CREATE DATABASE `+pgx.Identifier{database}.Sanitize())
	}
	if err != nil {
		return "", fmt.Errorf("make database %s: %w", database, err)
	}
	u.Path = "/" + database
	return u.String(), nil
}

// hostOf is the part of a URL that may be printed.
func hostOf(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	return u.Host
}
