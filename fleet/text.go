package fleet

import (
	"strings"
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
