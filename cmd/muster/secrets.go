package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// maxSecret bounds a file with a secret, in bytes; credentials of NATS are the
// longest, at about 1 KiB.
const maxSecret = 64 << 10

// readSecretFile reads a secret without the white space around it. The errors
// do not repeat the path.
func readSecretFile(path string) (fleet.Secret, error) {
	f, err := os.Open(path)
	if err != nil {
		return fleet.Secret{}, pathless(err)
	}
	defer f.Close() //nolint:errcheck // nothing was written
	text, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	switch value := strings.TrimSpace(string(text)); {
	case err != nil:
		return fleet.Secret{}, pathless(err)
	case len(text) > maxSecret:
		return fleet.Secret{}, errors.New("too long for a secret")
	case value == "":
		return fleet.Secret{}, errors.New("the file is empty")
	default:
		return fleet.NewSecret(value), nil
	}
}

// fixedSecret is a source that always has the same value.
func fixedSecret(s fleet.Secret) func(context.Context) (fleet.Secret, error) {
	return func(context.Context) (fleet.Secret, error) { return s, nil }
}

// secretFile is a secret in a file that may be replaced at any time. It is
// safe for concurrent use.
type secretFile struct {
	what string // for messages: "token of target acme"
	path string

	mu    sync.Mutex
	value fleet.Secret
	mtime time.Time // of the file that value was read from
	size  int64
}

// get gives the value as it is in the file now. It reads the file only where
// its time or size has changed.
func (s *secretFile) get(context.Context) (fleet.Secret, error) { return s.read() }

func (s *secretFile) read() (fleet.Secret, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	info, err := os.Stat(s.path)
	if err != nil {
		return fleet.Secret{}, fmt.Errorf("read the %s from %s: %w", s.what, s.path, pathless(err))
	}
	if !s.value.IsZero() && info.ModTime().Equal(s.mtime) && info.Size() == s.size {
		return s.value, nil
	}
	value, err := readSecretFile(s.path)
	if err != nil {
		return fleet.Secret{}, fmt.Errorf("read the %s from %s: %w", s.what, s.path, err)
	}
	s.value, s.mtime, s.size = value, info.ModTime(), info.Size()
	return value, nil
}
