package fleet

import "time"

// TokenKind is what a token is good for.
type TokenKind string

const (
	TokenRegistration TokenKind = "registration"
	TokenRemoval      TokenKind = "removal"
	// TokenJIT is a known kind that this version does not issue: it is
	// answered with kind_unsupported.
	TokenJIT TokenKind = "jit"
)

// Token is a registration or removal token as GitHub minted it.
type Token struct {
	Secret    Secret
	ExpiresAt time.Time
}

// TokenOutcome is the state of one attempt at a token.
type TokenOutcome string

const (
	TokenRequested TokenOutcome = "requested" // intent committed, not yet settled
	TokenIssued    TokenOutcome = "issued"
	TokenDenied    TokenOutcome = "denied"
	TokenFailed    TokenOutcome = "failed"
	TokenUnknown   TokenOutcome = "unknown" // the intent was never settled: GitHub may have minted
)

// TokenRequest is one attempt of one host at one token, as it is recorded.
type TokenRequest struct {
	RequestID   string // UUID; with Host and Attempt the key
	Attempt     int    // from 1; a repeat that another replica answers is a further attempt
	Host        string
	Target      string // as asked, even where unknown
	Kind        TokenKind
	Outcome     TokenOutcome
	Code        int    // of the refusal, as HTTP has it; 0 where issued
	BodySHA256  string // hex; tells a repeat from another request under the same id
	DemandID    string
	RequestedAt time.Time
	IssuedAt    time.Time
	ExpiresAt   time.Time
	Fingerprint string
	Reason      string
	// Count is how many refused requests the row stands for; 0 is 1.
	Count int
}
