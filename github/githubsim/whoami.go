package githubsim

import (
	"fmt"
	"net/http"
)

// meta is what the server says of itself.
func (s *Sim) meta() *answer {
	if s.profile.version == "" {
		return &answer{status: http.StatusOK, body: []byte(`{"verifiable_password_authentication":false}`)}
	}
	return &answer{status: http.StatusOK, body: fmt.Appendf(nil,
		`{"verifiable_password_authentication":true,"installed_version":%s}`, quote(s.profile.version))}
}

// user is who a personal token belongs to, which installations have not.
func (s *Sim) user(token string, q query) *answer {
	if s.issued[token] != nil {
		return s.inaccessible(q)
	}
	return &answer{status: http.StatusOK, body: []byte(`{"login":"octocat","id":1,"type":"User","site_admin":false}`)}
}
