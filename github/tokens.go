package github

import (
	"context"
	"net/http"
	"time"

	gh "github.com/google/go-github/v45/github"

	"github.com/muster-fleet/muster/fleet"
)

// RegistrationToken mints a token with which runners can register in the scope,
// any number of them until it expires, an hour from now. Every call mints
// another one. An error that is fleet.ErrUnavailable or fleet.ErrMalformed
// leaves open whether GitHub minted.
func (c *Client) RegistrationToken(ctx context.Context, scope fleet.Scope) (fleet.Token, error) {
	return c.mint(ctx, OpRegistrationToken, "actions/runners/registration-token", scope)
}

// RemovalToken mints a token with which a host can take its runner out of the
// scope. It is otherwise as RegistrationToken.
func (c *Client) RemovalToken(ctx context.Context, scope fleet.Scope) (fleet.Token, error) {
	return c.mint(ctx, OpRemovalToken, "actions/runners/remove-token", scope)
}

func (c *Client) mint(ctx context.Context, op, path string, scope fleet.Scope) (fleet.Token, error) {
	o := operation{op: op, scope: scope, method: http.MethodPost, path: path, want: http.StatusCreated}
	var w gh.RegistrationToken // v45 gives both kinds the same shape
	if _, err := c.do(ctx, o, decoded{&w}); err != nil {
		return fleet.Token{}, err
	}
	switch {
	case w.GetToken() == "":
		return fleet.Token{}, o.malformed(http.StatusCreated, "token is missing")
	case w.GetExpiresAt().IsZero():
		return fleet.Token{}, o.malformed(http.StatusCreated, "expires_at is missing")
	}
	return fleet.Token{Secret: fleet.NewSecret(w.GetToken()), ExpiresAt: w.GetExpiresAt().In(time.UTC)}, nil
}

// Downloads lists the runner applications that the server of the scope offers. A
// download that lacks something is left out, unless it is the only one.
func (c *Client) Downloads(ctx context.Context, scope fleet.Scope) ([]fleet.Download, error) {
	o := operation{op: OpDownloads, scope: scope, method: http.MethodGet, path: "actions/runners/downloads", want: http.StatusOK}
	var w []*gh.RunnerApplicationDownload
	if _, err := c.do(ctx, o, decoded{&w}); err != nil {
		return nil, err
	}
	lacking := false
	downloads := make([]fleet.Download, 0, len(w))
	for _, d := range w {
		if d.GetOS() == "" || d.GetArchitecture() == "" || d.GetDownloadURL() == "" || d.GetFilename() == "" {
			lacking = true
			continue
		}
		downloads = append(downloads, fleet.Download{
			OS:           d.GetOS(),
			Architecture: d.GetArchitecture(),
			URL:          d.GetDownloadURL(),
			Filename:     d.GetFilename(),
			SHA256:       d.GetSHA256Checksum(),
		})
	}
	if lacking && len(downloads) == 0 {
		return nil, o.malformed(http.StatusOK, "a download lacks os, architecture, download_url or filename")
	}
	return downloads, nil
}
