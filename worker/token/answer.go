package token

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// refusal is one row of the table of refusals. The description goes out in a
// header and holds nothing of the request.
type refusal struct {
	code        int
	name        string
	description string
}

// The refusals, in the order in which they are looked for.
var (
	badRequestRefusal = refusal{400, "bad_request", ""} // described by the badRequest
	auditUnavailable  = refusal{503, "audit_unavailable", "the request could not be recorded, so nothing was handed out; ask again"}
	denied            = refusal{403, "denied", "no grant allows this"}
	conflict          = refusal{409, "conflict", "this request_id was used with another body before; use a new one"}
	leaseOver         = refusal{409, "conflict", "the host that this demand_id asks for is not wanted any more, or another came for it; take the next request"}
	quota             = refusal{429, "quota", "the limit of the grant is reached; ask again"}
	kindUnsupported   = refusal{501, "kind_unsupported", "jit is not there yet; ask for kind registration"}
	githubError       = refusal{502, "github_error", "GitHub gave no token; ask again"}
)

// Headers of a refusal, as the services of nats.go's micro name them.
const (
	headerError = "Nats-Service-Error"
	headerCode  = "Nats-Service-Error-Code"
)

// answer is what a request came to: a token, or a refusal.
type answer struct {
	request request
	refusal refusal // zero where issued
	// reason is for the log and the trail. It never goes out.
	reason     string
	retryAfter time.Duration // 0: does not say
	counted    bool          // a refusal without a row and a line of log of its own
	repeated   bool          // the answer to the same request before

	auditID  string // of the event that tells of the handing out
	url      string
	token    fleet.Token
	issuedAt time.Time
}

// issued goes by the audit event: without one there is no token to hand out.
func (a answer) issued() bool { return a.auditID != "" }

// sum begins the sum of refusals like this one.
func (a answer) sum() refusalSum {
	return refusalSum{
		key: keyOf(a.request.host, a.refusal.name), code: fleet.AuditTokenDenied, why: a.reason,
		row: fleet.TokenRequest{
			Host: a.request.host, Target: a.request.target, Kind: a.request.kind, Outcome: fleet.TokenDenied, Code: a.refusal.code,
		},
	}
}

// again is the same answer for a repeat of its request.
func (a answer) again() answer {
	a.repeated = true
	return a
}

// outcome is the answer's name in metrics.
func (a answer) outcome() string {
	switch {
	case !a.issued():
		return a.refusal.name
	case a.repeated:
		return "repeated"
	}
	return string(fleet.TokenIssued)
}

func (r request) refused(why refusal, reason string) answer {
	return answer{request: r, refusal: why, reason: reason}
}

type tokenBody struct {
	V         int    `json:"v"`
	RequestID string `json:"request_id"`
	AuditID   string `json:"audit_id"`
	Kind      string `json:"kind"`
	Target    string `json:"target"`
	URL       string `json:"url"`
	Token     string `json:"token"`
	ExpiresAt string `json:"expires_at"`
}

type refusalBody struct {
	V            int    `json:"v"`
	RequestID    string `json:"request_id"`
	Code         int    `json:"code"`
	Error        string `json:"error"`
	RetryAfterMS int64  `json:"retry_after_ms"`
}

// encode makes the message that goes out. It is the one place where a token
// leaves its wrapping.
func (a answer) encode() ([]byte, map[string]string, error) {
	if a.issued() {
		body, err := compact(tokenBody{
			V: 1, RequestID: a.request.echo, AuditID: a.auditID,
			Kind: string(a.request.kind), Target: a.request.target, URL: a.url,
			Token: a.token.Secret.Reveal(), ExpiresAt: a.token.ExpiresAt.UTC().Format(time.RFC3339),
		})
		return body, nil, err
	}
	body, err := compact(refusalBody{
		V: 1, RequestID: a.request.echo, Code: a.refusal.code, Error: a.refusal.name,
		// Rounded up: who comes back too early is refused again.
		RetryAfterMS: int64((a.retryAfter + time.Millisecond - 1) / time.Millisecond),
	})
	return body, map[string]string{
		headerError: a.refusal.description,
		headerCode:  strconv.Itoa(a.refusal.code),
	}, err
}

// compact leaves & in an address as it is: not every script has a JSON parser.
func compact(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("encode answer: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
