package github

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// Examination is what one harmless request tells of a credential and a scope.
// What GitHub says of a credential it also says where it refuses it.
type Examination struct {
	Server Sight
	// Err is why the scope cannot be listed, an *Error; nil: it can.
	Err     error
	Runners int // in the scope, as far as it can be listed

	// Classic says that the credential is a token with OAuth scopes, and Scopes
	// names them. Every other kind has permissions, which GitHub does not tell.
	Classic bool
	Scopes  []string
	// Wants are permissions, of which GitHub asks for one; empty: it does not
	// say. Only such are told as concern credentials that have permissions.
	Wants   string
	Expires time.Time // by the server's clock; zero: it does not say

	// ServerTime is the server's clock, which tells whole seconds, at some
	// moment from Asked to Answered of ours. Zero: it did not answer.
	ServerTime, Asked, Answered time.Time

	Limit, Remaining int // of requests in this window; Limit 0: there is none, as far as the answer says
	Reset            time.Time
}

// Examine asks for one runner of the scope, which lets see as much of the
// credential as can be seen without acting.
func (c *Client) Examine(ctx context.Context, scope fleet.Scope) Examination {
	var x Examination
	// Whoever has to get a token first is not to be timed with that.
	if _, err := c.token(ctx); err != nil && ctx.Err() != nil {
		x.Err = operation{op: OpExamine, scope: scope}.fail(fleet.ErrUnavailable, "get the credential: "+err.Error(), err)
		return x
	}
	x.Asked = time.Now()
	p, err := c.page(ctx, ask{op: OpExamine, scope: scope, number: 1, size: 1, heard: func(h http.Header) {
		x.hear(h)
		x.Answered = time.Now()
	}})
	x.Err, x.Runners = err, p.Total
	return x
}

// hear reads the headers of an answer.
func (x *Examination) hear(h http.Header) {
	x.Server.hear(h)
	if scopes, classic := h["X-Oauth-Scopes"]; classic {
		x.Classic, x.Scopes = true, words(strings.Join(scopes, ","))
	}
	x.Wants = clean(h.Get("X-Accepted-GitHub-Permissions"))
	x.Expires = expiry(h.Get("GitHub-Authentication-Token-Expiration"))
	x.ServerTime, _ = http.ParseTime(h.Get("Date")) // zero where there is none
	limit, err := strconv.Atoi(h.Get("X-RateLimit-Limit"))
	if err != nil || limit <= 0 {
		return
	}
	x.Limit, x.Remaining = limit, max(rateRemaining(h), 0)
	if reset, err := strconv.ParseInt(h.Get("X-RateLimit-Reset"), 10, 64); err == nil {
		x.Reset = time.Unix(reset, 0).UTC()
	}
}

// words are the parts of a list with commas.
func words(list string) []string {
	var all []string
	for w := range strings.SplitSeq(list, ",") {
		if w = clean(w); w != "" {
			all = append(all, w)
		}
	}
	return all
}

// expiry reads when a token ends, in each of the forms that GitHub has written
// it in; zero where it says nothing.
func expiry(text string) time.Time {
	for _, layout := range []string{"2006-01-02 15:04:05 MST", "2006-01-02 15:04:05 -0700"} {
		if at, err := time.Parse(layout, strings.TrimSpace(text)); err == nil {
			return at.UTC()
		}
	}
	return time.Time{}
}

// Offset is how far the server's clock is ahead of ours, and by how much at
// most that is wrong; false where the server has not told its time.
func (x Examination) Offset() (ahead, within time.Duration, known bool) {
	if x.ServerTime.IsZero() || x.Answered.IsZero() {
		return 0, 0, false
	}
	took := x.Answered.Sub(x.Asked)
	// The middle of the second that it told, against the middle of the request.
	middle := x.Asked.Add(took / 2)
	return x.ServerTime.Add(time.Second / 2).Sub(middle), took/2 + time.Second/2, true
}

// sufficient are the OAuth scopes of which a classic token needs one to act on
// the runners of a scope.
var sufficient = map[fleet.ScopeKind][]string{
	fleet.ScopeEnterprise: {"manage_runners:enterprise", "admin:enterprise"},
	fleet.ScopeOrg:        {"admin:org", "manage_runners:org"},
	fleet.ScopeRepo:       {"repo"},
}

// MayAct reports whether a classic token with these OAuth scopes may act on
// the runners of a scope, and names the scopes of which one is enough.
func MayAct(kind fleet.ScopeKind, scopes []string) (bool, []string) {
	for _, s := range scopes {
		for _, enough := range sufficient[kind] {
			if s == enough {
				return true, sufficient[kind]
			}
		}
	}
	return false, sufficient[kind]
}

// ActPermission is the permission of an App, or of a fine-grained token, that
// allows to act on the runners of a scope where it is write.
func ActPermission(kind fleet.ScopeKind) string {
	if kind == fleet.ScopeRepo {
		return "administration"
	}
	return "organization_self_hosted_runners"
}
