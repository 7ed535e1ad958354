package githubsim_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/github/githubsim"
)

func TestConnectionsThatAreNotSecured(t *testing.T) {
	t.Parallel()
	sim, stop, err := githubsim.Start(t.Context(), githubsim.Config{TLS: true})
	must(t, err)
	defer stop()
	must(t, sim.AddScope(org))
	_, err = sim.CreateMany(org, 31, func(i int) githubsim.RunnerSpec {
		return githubsim.RunnerSpec{Name: strings.Repeat("r", i+1)}
	})
	must(t, err)
	// get gives the Link header of the list, on a connection of its own.
	get := func(roots *x509.CertPool) (string, error) {
		hc := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, sim.APIURL()+"/orgs/acme/actions/runners", nil)
		must(t, err)
		req.Header.Set("Authorization", "token "+credential)
		resp, err := hc.Do(req)
		if err != nil {
			return "", err
		}
		defer func() { _ = resp.Body.Close() }()
		_, err = io.Copy(io.Discard, resp.Body)
		return resp.Header.Get("Link"), err
	}

	if link, err := get(sim.Roots()); err != nil || !strings.HasPrefix(link, "<https://127.0.0.1:") {
		t.Errorf("trusted: Link %s, %v", link, err)
	}
	var unknown x509.UnknownAuthorityError
	if _, err := get(x509.NewCertPool()); !errors.As(err, &unknown) {
		t.Errorf("not trusted: %v, want an unknown authority", err)
	}
	remove, err := sim.Inject(githubsim.Fault{Kind: githubsim.FaultTLS, Count: 2})
	must(t, err)
	for range 2 {
		if _, err := get(sim.Roots()); err == nil || !strings.Contains(err.Error(), "tls: ") {
			t.Errorf("with the fault: %v, want one of TLS", err)
		}
		log := sim.Log()
		if e := log[len(log)-1]; e.Change != githubsim.ChangeHandshake || e.Fault != "tls" {
			t.Errorf("log: %+v", e)
		}
	}
	if _, err := get(sim.Roots()); err != nil {
		t.Errorf("after two: %v", err)
	}
	remove()
}
