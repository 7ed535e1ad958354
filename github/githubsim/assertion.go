package githubsim

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// What GitHub says of the assertions by which Apps log in.
const (
	undecodable = "A JSON web token could not be decoded"
	badIssued   = "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued"
	badExpires  = "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires"
	farExpires  = "'Expiration time' claim ('exp') is too far in the future"
)

// maxAssertion is how far in the future an assertion may end.
const maxAssertion = 10 * time.Minute

// assertion is an App's JSON web token, taken apart and not verified.
type assertion struct {
	header struct {
		Algorithm string `json:"alg"`
	}
	claims struct {
		Issuer  json.RawMessage `json:"iss"`
		Issued  json.Number     `json:"iat"`
		Expires json.Number     `json:"exp"`
	}
	signed    string
	signature []byte
}

func parseAssertion(token string) (assertion, bool) {
	var a assertion
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return a, false
	}
	header, err := base64.RawURLEncoding.DecodeString(parts[0])
	if err != nil || json.Unmarshal(header, &a.header) != nil {
		return a, false
	}
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(claims, &a.claims) != nil {
		return a, false
	}
	a.signed = parts[0] + "." + parts[1]
	a.signature, err = base64.RawURLEncoding.DecodeString(parts[2])
	return a, err == nil
}

// issuer is the number of the App that it says it is from; 0: none.
func (a assertion) issuer() int64 {
	id, err := strconv.ParseInt(strings.Trim(string(a.claims.Issuer), `"`), 10, 64)
	if err != nil {
		return 0
	}
	return id
}

// asserted finds the App that an assertion is from, by the server's clock. The
// caller holds the lock.
func (s *Sim) asserted(token, scheme string) (*app, *answer) {
	refuse := func(status int, message string) (*app, *answer) {
		return nil, s.jsonError(status, message, query{})
	}
	if token == "" {
		return refuse(http.StatusUnauthorized, "Requires authentication")
	}
	a, ok := parseAssertion(token)
	if !ok || scheme != "bearer" || a.header.Algorithm != "RS256" {
		return refuse(http.StatusUnauthorized, undecodable)
	}
	by := s.apps[a.issuer()]
	if by == nil {
		return refuse(http.StatusNotFound, "Integration not found")
	}
	hash := sha256.Sum256([]byte(a.signed))
	if rsa.VerifyPKCS1v15(by.PublicKey, crypto.SHA256, hash[:], a.signature) != nil {
		return refuse(http.StatusUnauthorized, undecodable)
	}
	now := s.clock()
	issued, err := a.claims.Issued.Int64()
	if err != nil || time.Unix(issued, 0).After(now) {
		return refuse(http.StatusUnauthorized, badIssued)
	}
	expires, err := a.claims.Expires.Int64()
	switch {
	case err != nil || !time.Unix(expires, 0).After(now):
		return refuse(http.StatusUnauthorized, badExpires)
	case time.Unix(expires, 0).Sub(now) > maxAssertion:
		return refuse(http.StatusUnauthorized, farExpires)
	}
	return by, nil
}
