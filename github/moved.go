package github

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/muster-fleet/muster/fleet"
)

// Moved reports whether GitHub answered that something has another name for good.
func Moved(err error) bool {
	var e *Error
	return errors.As(err, &e) && (e.Status == http.StatusMovedPermanently || e.Status == http.StatusPermanentRedirect)
}

// RepositoryNow gives a repository under the name that it has now. GitHub redirects
// the name that it had before: that is followed once, and only within the same API,
// so that the credential goes nowhere else. fleet.ErrNotFound: it is gone, or the
// credential does not see it.
func (c *Client) RepositoryNow(ctx context.Context, repo fleet.Scope) (fleet.Scope, error) {
	o := operation{op: OpRepository, scope: repo, method: http.MethodGet, want: http.StatusOK, follow: true}
	var answer struct {
		FullName string `json:"full_name"`
	}
	if _, err := c.do(ctx, o, decoded{&answer}); err != nil {
		return fleet.Scope{}, err
	}
	now, err := fleet.ParseScope("repo/" + answer.FullName)
	if err != nil {
		return fleet.Scope{}, o.malformed(http.StatusOK, "full_name: "+err.Error())
	}
	return now, nil
}

// within is where an answer redirects to, if that is an address below this API's
// own; else empty.
func (c *Client) within(got reply) string {
	if !redirects(got.status) {
		return ""
	}
	base := c.requests.BaseURL
	location := got.header.Get("Location")
	to, err := url.Parse(location)
	if err != nil || location == "" {
		return ""
	}
	to = base.ResolveReference(to)
	if to.Scheme != base.Scheme || !strings.EqualFold(to.Host, base.Host) || !strings.HasPrefix(to.Path, base.Path) || to.User != nil {
		return ""
	}
	return to.String()
}
