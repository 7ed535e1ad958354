package fleet

import (
	"fmt"
	"net/url"
	"strings"
)

// apiPath is where GitHub Enterprise Server has its API, under the address of its
// web site.
const apiPath = "/api/v3"

// SameAddress reports whether two API addresses are equal by the rules of
// RFC 3986, section 6.2: the case of the host and a port that is the default do
// not count. The case of the path does not count either, since GitHub ignores it.
func SameAddress(a, b string) bool {
	return strings.EqualFold(normalAddress(a), normalAddress(b))
}

// normalAddress is an address with its host in lower case, without a port that is
// the default and without a slash at its end.
func normalAddress(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	u.Scheme, u.Host = strings.ToLower(u.Scheme), strings.ToLower(u.Host)
	port := u.Port()
	if u.Scheme == "https" && port == "443" || u.Scheme == "http" && port == "80" {
		u.Host = strings.TrimSuffix(u.Host, ":"+port)
	}
	u.Path = strings.TrimRight(u.Path, "/")
	return u.String()
}

// WebAddress derives the address of GitHub's web site from that of its API. An
// API that has a host of its own, called api.HOST, belongs to HOST
// (api.github.com, api.NAME.ghe.com, an Enterprise Server behind api.HOST); one
// at ADDRESS/api/v3 belongs to ADDRESS, with whatever path a gateway puts before
// it. An API at the root of any other host has its web site there too. An error
// says that none of this is so.
func WebAddress(api string) (string, error) {
	u, err := url.Parse(normalAddress(api))
	if err != nil || u.Host == "" {
		return "", fmt.Errorf("%q is not an absolute URL", api)
	}
	alone, own := strings.CutPrefix(u.Host, "api.")
	before, below := cutSuffixFold(u.Path, apiPath)
	switch {
	case below:
		return u.Scheme + "://" + u.Host + before, nil
	case u.Path == "" && own:
		return u.Scheme + "://" + alone, nil
	case u.Path == "" && !strings.Contains(u.Host, ".api."):
		return u.Scheme + "://" + u.Host, nil
	}
	return "", fmt.Errorf("the web site cannot be told from %s, which is neither https://api.HOST nor ADDRESS%s", api, apiPath)
}

func cutSuffixFold(s, suffix string) (string, bool) {
	at := len(s) - len(suffix)
	if at < 0 || !strings.EqualFold(s[at:], suffix) {
		return s, false
	}
	return s[:at], true
}
