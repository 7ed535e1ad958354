package fleet

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// CleanText makes any bytes a text that can be recorded: valid UTF-8 without
// NUL, which Postgres cannot store, and at most so many bytes long, cut between
// characters. What cannot stay becomes U+FFFD.
func CleanText(s string, most int) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}

// Hidden reports whether a character must not reach a screen: controls steer a
// terminal, and format characters such as U+202E change what the rest of the
// line looks like. Line and paragraph separators, private and unassigned
// characters are among them.
func Hidden(r rune) bool { return !unicode.IsPrint(r) && r != ' ' }

// Shown makes a text from outside one line that is safe to show: each hidden
// character and each byte that is no UTF-8 becomes a blank or U+FFFD. Every
// command, error, log line and page shows such text through it or through a
// writer that does the same (issue 10).
func Shown(s string) string {
	s = strings.Map(func(r rune) rune {
		if Hidden(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	return strings.TrimSpace(s)
}

// ShownUpTo is Shown, cut behind so many characters.
func ShownUpTo(s string, most int) string {
	s = Shown(s)
	runes := 0
	for at := range s {
		if runes == most {
			return s[:at] + "…"
		}
		runes++
	}
	return s
}
