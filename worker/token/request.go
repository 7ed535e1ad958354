package token

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/queue"
)

// request is what a host asks for, as it was read.
type request struct {
	host       string // as the subject says, which nats-server enforces
	id         string // UUID in its canonical form
	echo       string // the id as the host wrote it
	target     string
	kind       fleet.TokenKind
	labels     []string
	demandID   string
	bodySHA256 string // hex
}

// badRequest is why a request cannot be understood: what goes to the host, from
// a fixed set of words, and the place, which may be in the host's own words and
// goes into the trail alone.
type badRequest struct{ refusal, place string }

func (e *badRequest) Error() string {
	if e.place == "" {
		return e.refusal
	}
	return e.refusal + ": " + printable(e.place)
}

// What a 400 says.
const (
	badHost      = "the host in the subject is not a name: want " + nameRule
	badSize      = "the body is longer than 16 KiB"
	badJSON      = "the body is not one JSON object in UTF-8"
	badField     = "the body has an unknown field"
	badTwice     = "the body has a field twice"
	badType      = "a field has a value of the wrong type"
	badVersion   = "v is not 1"
	badID        = "request_id is not a UUID"
	badTarget    = "target is not a name: want " + nameRule
	badKind      = "kind is not registration, removal or jit"
	badDemand    = "demand_id is not up to 128 printable characters"
	badJITField  = "runner_name, runner_group, labels and work_folder belong to kind jit"
	badSealing   = "xkey: sealed answers are not there yet, and nothing is sent unsealed to who asks for sealing"
	nameRule     = "lower-case letters, digits and hyphens, 63 at most"
	maxDemand    = 128
	uuidLength   = 36
	maxPrintable = 100 // of foreign text that is repeated, in characters
)

// read makes a request of a body. Whatever is wrong with it is a *badRequest;
// the request returned then has the host, and an id under which the trail can
// be searched.
func read(host string, body []byte) (request, error) {
	r := request{host: host, bodySHA256: hexSum(body)}
	err := r.decode(body)
	if r.id == "" {
		r.id = uuid.NewString()
		r.echo = r.id
	}
	return r, err
}

func (r *request) decode(body []byte) error {
	if len(body) > queue.MaxBody {
		return &badRequest{refusal: badSize}
	}
	fields, err := object(body)
	if err != nil {
		return err
	}
	// First of all the id, so that a refusal can carry it.
	if err := r.readID(fields); err != nil {
		return err
	}
	if !fleet.ValidName(r.host) {
		return &badRequest{badHost, r.host}
	}
	version := 1
	var name, group, folder string
	known := map[string]any{
		"v": &version, "request_id": &r.echo, "target": &r.target, "kind": &r.kind, "demand_id": &r.demandID,
		"runner_name": &name, "runner_group": &group, "labels": &r.labels, "work_folder": &folder,
	}
	for _, f := range fields {
		into, ok := known[f.name]
		switch {
		case f.name == "xkey":
			return &badRequest{refusal: badSealing}
		case !ok:
			return &badRequest{badField, f.name}
		case bytes.Equal(f.value, []byte("null")) || json.Unmarshal(f.value, into) != nil:
			return &badRequest{badType, f.name}
		}
	}
	return r.check(fields, version)
}

func (r *request) check(fields []field, version int) error {
	switch {
	case version != 1:
		return &badRequest{refusal: badVersion}
	case !fleet.ValidName(r.target):
		return &badRequest{badTarget, r.target}
	case r.kind != fleet.TokenRegistration && r.kind != fleet.TokenRemoval && r.kind != fleet.TokenJIT:
		return &badRequest{badKind, string(r.kind)}
	case utf8.RuneCountInString(r.demandID) > maxDemand || strings.ContainsFunc(r.demandID, fleet.Hidden):
		return &badRequest{badDemand, r.demandID}
	}
	if r.kind != fleet.TokenJIT {
		for _, f := range fields {
			switch f.name {
			case "runner_name", "runner_group", "labels", "work_folder":
				return &badRequest{badJITField, f.name}
			}
		}
	}
	return nil
}

func (r *request) readID(fields []field) error {
	at := slices.IndexFunc(fields, func(f field) bool { return f.name == "request_id" })
	if at < 0 {
		return nil
	}
	var s string
	if err := json.Unmarshal(fields[at].value, &s); err != nil {
		return &badRequest{refusal: badID}
	}
	// uuid.Parse also takes braces, a urn: prefix and no hyphens at all.
	id, err := uuid.Parse(s)
	if err != nil || len(s) != uuidLength {
		return &badRequest{badID, s}
	}
	r.id, r.echo = id.String(), s
	return nil
}

type field struct {
	name  string
	value json.RawMessage
}

// object takes a body apart. encoding/json alone would take Target for target,
// the last of two targets, half a character and whatever follows the object.
func object(body []byte) ([]field, error) {
	bad := &badRequest{refusal: badJSON}
	if !utf8.Valid(body) {
		return nil, bad
	}
	d := json.NewDecoder(bytes.NewReader(body))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return nil, bad
	}
	var fields []field
	seen := make(map[string]bool)
	for d.More() {
		key, err := d.Token()
		name, _ := key.(string) // every other key is an error
		var value json.RawMessage
		if err != nil || d.Decode(&value) != nil {
			return nil, bad
		}
		if seen[name] {
			return nil, &badRequest{badTwice, name}
		}
		seen[name] = true
		fields = append(fields, field{name, value})
	}
	if _, err := d.Token(); err != nil {
		return nil, bad
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, bad
	}
	return fields, nil
}

// hostOf takes the host out of the subject of a request.
func hostOf(subject string) string {
	before, after, _ := strings.Cut(queue.TokenSubject("*"), "*")
	return strings.TrimSuffix(strings.TrimPrefix(subject, before), after)
}

// checkReply refuses to answer anywhere but in the host's own inbox. Without
// it, a host could have tokens sent to another one, or what muster may publish
// sent in muster's name: nats-server checks who asks, not where the answer is
// to go.
func checkReply(host, reply string, shared bool) error {
	own := "_INBOX_host." + host + "."
	ok := strings.HasPrefix(reply, own) || shared && strings.HasPrefix(reply, "_INBOX.")
	for _, token := range strings.Split(reply, ".") {
		if token == "" || token == "*" || token == ">" || strings.ContainsFunc(token, unicode.IsSpace) {
			ok = false
		}
	}
	if ok {
		return nil
	}
	if shared {
		own += "> or _INBOX."
	}
	return fmt.Errorf("an answer was wanted at %q, which is not under %s>", printable(reply), printable(own))
}

// printable makes foreign text fit for a log line and for a column.
func printable(s string) string { return fleet.ShownUpTo(s, maxPrintable) }

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
