package main

import (
	"io"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/muster-fleet/muster/fleet"
)

// screen is a writer through which no hidden character reaches a terminal,
// whatever a command, an error or a log line quotes. Newlines and tabs pass. It
// holds back the bytes of a character that is not complete yet. It is safe for
// concurrent use.
type screen struct {
	to   io.Writer
	mu   sync.Mutex
	rest []byte // of a character whose end has not come
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := append(s.rest, p...)
	var shown strings.Builder
	for len(text) > 0 && utf8.FullRune(text) {
		r, size := utf8.DecodeRune(text)
		if fleet.Hidden(r) && r != '\n' && r != '\t' {
			r = ' '
		}
		shown.WriteRune(r)
		text = text[size:]
	}
	s.rest = append([]byte(nil), text...)
	if _, err := io.WriteString(s.to, shown.String()); err != nil {
		return 0, err
	}
	return len(p), nil
}

// unscreened is the writer behind a screen, for what another program writes.
func unscreened(w io.Writer) io.Writer {
	if s, ok := w.(*screen); ok {
		return s.to
	}
	return w
}
