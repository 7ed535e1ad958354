package token

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/queue"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// A stop lasts as long as Serve says, and an intent is called lost only after more
// than twice what a request may take.
func TestTheTimesOfARequest(t *testing.T) {
	t.Parallel()
	if whole := workLimit + outcomeLimit + lateLimit; whole != 27*time.Second {
		t.Errorf("a stop lasts %s, want the 27s that Serve names", whole)
	}
	if openLimit != 60*time.Second || openLimit <= 2*(workLimit+outcomeLimit) {
		t.Errorf("an intent is lost after %s, want 60s", openLimit)
	}
	if recordFresh != 2*time.Second {
		t.Errorf("an answer of Postgres's counts for %s, want 2s", recordFresh)
	}
}

func TestClaimable(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		lease fleet.Lease
		want  string // a part of why not; empty: it may be claimed
	}{
		{"asked for", fleet.Lease{State: fleet.LeaseRequested, Deadline: noon.Add(1)}, ""},
		{"at its deadline", fleet.Lease{State: fleet.LeaseRequested, Deadline: noon}, "is over since"},
		{"expired early", fleet.Lease{State: fleet.LeaseExpired, Deadline: noon.Add(1)}, "is over since"},
		{"its own", fleet.Lease{State: fleet.LeaseClaimed, Host: "build-01", Deadline: noon.Add(1)}, ""},
		{"another's", fleet.Lease{State: fleet.LeaseClaimed, Host: "build-02", Deadline: noon.Add(1)}, "claimed by host build-02"},
		{"its own, online", fleet.Lease{State: fleet.LeaseOnline, Host: "build-01", Deadline: noon.Add(1)}, "online already"},
	} {
		if got := claimable(tt.lease, "build-01", noon); !strings.Contains(got, tt.want) || (got == "") != (tt.want == "") {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// Whoever comes back before its time is refused again: what is left is rounded up.
func TestWhenToAskAgainIsRoundedUp(t *testing.T) {
	t.Parallel()
	for after, want := range map[time.Duration]string{
		0: `"retry_after_ms":0}`, 1: `"retry_after_ms":1}`, time.Millisecond: `"retry_after_ms":1}`, time.Millisecond + 1: `"retry_after_ms":2}`,
	} {
		body, _, err := answer{refusal: quota, retryAfter: after}.encode()
		if err != nil || !strings.HasSuffix(string(body), want) {
			t.Errorf("%s: %s, %v, want %s", after, body, err, want)
		}
	}
}

// Scripts without a JSON parser take the address as it is.
func TestAnAddressIsNotEscaped(t *testing.T) {
	t.Parallel()
	body, _, err := answer{auditID: "a", url: "https://ghes/x?a=1&b=<>"}.encode()
	if err != nil || !strings.Contains(string(body), `"url":"https://ghes/x?a=1&b=<>"`) {
		t.Errorf("answer is %s, %v", body, err)
	}
}

func TestARepeatIsAnsweredForTwoMinutes(t *testing.T) {
	t.Parallel()
	var turns turns
	r := request{host: "build-01", id: "x"}
	turns.take(r, noon)
	turns.end(r, answer{request: r, auditID: "a", issuedAt: noon})
	if _, _, repeated := turns.take(r, noon.Add(2*time.Minute-1)); !repeated {
		t.Error("within two minutes the repeat is not answered")
	}
	if _, _, repeated := turns.take(r, noon.Add(2*time.Minute)); repeated {
		t.Error("after two minutes the repeat gets the old answer")
	}
	turns.sent(r)
	if n := len(turns.sentSince(time.Now().Add(-time.Hour))); n != 1 {
		t.Errorf("%d tokens went out, want 1", n)
	}
	turns.forget(noon.Add(2 * time.Minute))
	if n := len(turns.sentAt); n != 0 {
		t.Errorf("%d times of sending are kept", n)
	}
}

func TestAFaultIsNamedByItsClass(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"unavailable (5xx)":    &github.Error{Status: 599, Kind: fleet.ErrUnavailable},
		"no token (no answer)": errors.New("oops"),
		// The first class that fits counts.
		"rate limited (no answer)": errors.Join(fleet.ErrForbidden, fleet.ErrRateLimited),
	} {
		if got := failure(err); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}

// An event of one refusal has no count; that of a sum has.
func TestAnEventHasWhatItsRowHas(t *testing.T) {
	t.Parallel()
	bare := event(fleet.AuditTokenDenied, fleet.TokenRequest{RequestID: "x", Attempt: 1, Count: 1}, noon)
	for _, key := range []string{"code", "count", "demand_id", "fingerprint", "expires_at"} {
		if v, there := bare.Details[key]; there {
			t.Errorf("%s is %v, want none", key, v)
		}
	}
	full := event(fleet.AuditTokenDenied, fleet.TokenRequest{
		RequestID: "x", Attempt: 1, Count: 2, Code: 403, DemandID: "d", Fingerprint: "f",
		ExpiresAt: noon.In(time.FixedZone("CET", 3600)),
	}, noon)
	for key, want := range map[string]any{"code": 403, "count": 2, "demand_id": "d", "fingerprint": "f", "expires_at": "2026-03-01T12:00:00Z"} {
		if got := full.Details[key]; got != want {
			t.Errorf("%s is %v, want %v", key, got, want)
		}
	}
}

func TestTheLongestRequestThatIsTaken(t *testing.T) {
	t.Parallel()
	body := `{"target":"acme","kind":"registration","demand_id":"` + strings.Repeat("é", 128) + `"}`
	body += strings.Repeat(" ", queue.MaxBody-len(body))
	if _, err := read("build-01", []byte(body)); err != nil {
		t.Errorf("the longest body and demand_id: %v", err)
	}
}

func TestForeignTextIsShownUpTo100Characters(t *testing.T) {
	t.Parallel()
	whole := strings.Repeat("é", 100)
	if got := printable(whole); got != whole {
		t.Errorf("100 characters are shown as %q", got)
	}
	if got := printable(whole + "é"); strings.Count(got, "é") > 100 || got == whole {
		t.Errorf("101 characters are shown as %q", got)
	}
}

// A metric has no series for a kind that somebody made up.
func TestKindsThatAreNoneAreObservedAsOne(t *testing.T) {
	t.Parallel()
	var heard []string
	i := &Issuer{Observe: func(kind, outcome string, _ time.Duration) { heard = append(heard, kind+" "+outcome) }}
	for _, kind := range []fleet.TokenKind{fleet.TokenRegistration, fleet.TokenRemoval, fleet.TokenJIT, "made-up"} {
		i.observe(kind, "x", time.Now())
	}
	if got := strings.Join(heard, ","); got != "registration x,removal x,jit x, x" {
		t.Errorf("observed %q", got)
	}
	(&Issuer{}).observe(fleet.TokenJIT, "x", time.Now()) // nobody listens
}

// What a false address should have been is said as the configuration has it.
func TestWhereAnAnswerMayGoIsSaid(t *testing.T) {
	t.Parallel()
	for shared, want := range map[bool]string{
		false: "not under _INBOX_host.build-01.>", true: "not under _INBOX_host.build-01.> or _INBOX.>",
	} {
		if err := checkReply("build-01", "elsewhere", shared); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("shared %v: %v, want %s", shared, err, want)
		}
	}
}

// Sums that could not be written come back whole, also where no window is left.
func TestSumsThatAreGivenBack(t *testing.T) {
	t.Parallel()
	var r refusals
	key := refusalKey{"stranger", "denied"}
	for range 7 {
		r.count(refusalSum{key: key, why: "no grant"}, noon)
	}
	r.giveBack(r.take(noon, true))
	sums := r.take(noon, false)
	if len(sums) != 1 || sums[0].count != 7 || sums[0].why != "no grant" {
		t.Errorf("sums are %+v, want the one that was given back", sums)
	}
}
