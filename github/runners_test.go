package github_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/github/githubsim"
)

func TestRunnerConverts(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, body string
		want       fleet.Runner
	}{
		{"as 3.1 has it",
			`{"id":7,"name":"MBP","os":"macos","status":"online","busy":false,"labels":[{"id":5,"name":"self-hosted","type":"read-only"},{"id":20,"name":"macOS","type":"read-only"}]}`,
			fleet.Runner{ID: 7, Name: "MBP", OS: "macos", Status: "online", Labels: []string{"macos", "self-hosted"}}},
		{"as later servers have it",
			`{"id":7,"name":"b","os":"Ubuntu 22.04.5 LTS","status":"offline","busy":true,"runner_group_id":3,"ephemeral":true,"version":"2.320.0","labels":[],"new":{}}`,
			fleet.Runner{ID: 7, Name: "b", OS: "linux", Status: "offline", Busy: true, Group: "3", Ephemeral: fleet.Yes, Version: "2.320.0"}},
		{"labels in any order, case and number",
			`{"id":7,"name":"b","busy":false,"status":"online","labels":[{"name":"Zeta"},{"name":"GPU"},{"name":"gpu"},{"name":"a"}]}`,
			fleet.Runner{ID: 7, Name: "b", Status: "online", Labels: []string{"a", "gpu", "zeta"}}},
		{"busy missing is busy", `{"id":7,"status":"online","labels":[]}`, fleet.Runner{ID: 7, Status: "online", Busy: true}},
		{"busy null is busy", `{"id":7,"status":"online","busy":null,"labels":[]}`, fleet.Runner{ID: 7, Status: "online", Busy: true}},
		{"a status nobody knows stays", `{"id":7,"busy":false,"status":"Sleeping","labels":[]}`, fleet.Runner{ID: 7, Status: "Sleeping"}},
		{"nulls", `{"id":7,"name":null,"os":null,"busy":false,"status":"online","runner_group_id":null,"ephemeral":null,"version":null,"labels":[]}`, fleet.Runner{ID: 7, Status: "online"}},
		{"another distribution", `{"id":7,"busy":false,"status":"online","os":"Red Hat Enterprise Linux 9.4 (Plow)","labels":[]}`, fleet.Runner{ID: 7, Status: "online", OS: "linux"}},
		{"Windows with its trailing blank", `{"id":7,"busy":false,"status":"online","os":"Microsoft Windows 10.0.17763 ","labels":[]}`, fleet.Runner{ID: 7, Status: "online", OS: "windows"}},
		{"macOS with its version", `{"id":7,"busy":false,"status":"online","os":"macOS 14.5.0","labels":[]}`, fleet.Runner{ID: 7, Status: "online", OS: "macos"}},
		{"Darwin is no Windows", `{"id":7,"busy":false,"status":"online","os":"Darwin 23.5.0","labels":[]}`, fleet.Runner{ID: 7, Status: "online", OS: "macos"}},
		{"a distribution nobody knows", `{"id":7,"busy":false,"status":"online","os":"Void Linux","labels":[]}`, fleet.Runner{ID: 7, Status: "online", OS: "linux"}},
		{"before the first connect", `{"id":7,"busy":false,"status":"online","os":"unknown","labels":[]}`, fleet.Runner{ID: 7, Status: "online"}},
		{"a system nobody knows", `{"id":7,"busy":false,"status":"online","os":" FreeBSD 14 ","labels":[]}`, fleet.Runner{ID: 7, Status: "online", OS: "freebsd 14"}},
		{"text that cannot be stored", `{"id":7,"name":"b\u0000x","busy":false,"status":"on\u0000line","os":"Pl\u0000n9","version":"2\u0000","labels":[{"name":"G\u0000U"}]}`,
			fleet.Runner{ID: 7, Name: "b\uFFFDx", OS: "pl\uFFFDn9", Status: "on\uFFFDline", Version: "2\uFFFD", Labels: []string{"g\uFFFDu"}}},
		{"a text without end", `{"id":7,"name":"` + strings.Repeat("n", 5000) + `","busy":false,"status":"online","labels":[]}`,
			fleet.Runner{ID: 7, Name: strings.Repeat("n", 1100), Status: "online"}},
		{"a large id", `{"id":9223372036854775807,"busy":false,"status":"online","labels":[]}`, fleet.Runner{ID: 9223372036854775807, Status: "online"}},
	}
	for _, tt := range tests {
		got, err := answers(t, says(http.StatusOK, tt.body)).Runner(t.Context(), org, tt.want.ID)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestARunnerThatCannotBeBelieved(t *testing.T) {
	t.Parallel()
	for _, body := range []string{``, `null`, `{}`, `[]`, `{"id":0,"labels":[]}`, `{"id":8,"labels":[]}`, `{"id":7}`, `{"id":7,"status":"online"}`, `{"id":7,"labels":[]}`, `{"id":7,"labels":[],"status":"online"}{}`,
		`{"id":7,"labels":[{"name":""}],"status":"online"}`, `{"id":7,"labels":[],"status":"online","busy":"no"}`, `{"message":"Not Found"}`} {
		_, err := answers(t, says(http.StatusOK, body)).Runner(t.Context(), org, 7)
		wantKind(t, body, err, fleet.ErrMalformed)
	}
}

func TestRemoveRunnerAgainstTheSimulator(t *testing.T) {
	t.Parallel()
	for _, scope := range scopes {
		sim, url := simulator(t)
		ids := fill(t, sim, scope, 2)
		gh := client(t, url)
		if err := sim.Assign(scope, ids[0]); err != nil {
			t.Fatal(err)
		}
		wantKind(t, "busy", gh.RemoveRunner(t.Context(), scope, ids[0], nil), fleet.ErrBusy)
		if err := gh.RemoveRunner(t.Context(), scope, ids[1], nil); err != nil {
			t.Errorf("RemoveRunner() = %v", err)
		}
		wantKind(t, "again", gh.RemoveRunner(t.Context(), scope, ids[1], nil), fleet.ErrNotFound)
		_, err := gh.Runner(t.Context(), scope, ids[1])
		wantKind(t, "get", err, fleet.ErrNotFound)
		if r, err := gh.Runner(t.Context(), scope, ids[0]); err != nil || !r.Busy {
			t.Errorf("the busy one: %+v, %v", r, err)
		}
	}
	old, url := simulator(t, func(c *githubsim.Config) { c.BusyDeleteStatus = http.StatusInternalServerError })
	id := fill(t, old, org, 1)[0]
	if err := old.Assign(org, id); err != nil {
		t.Fatal(err)
	}
	wantKind(t, "busy on an old server", client(t, url).RemoveRunner(t.Context(), org, id, nil), fleet.ErrUnavailable)
}

func TestCanListTellsAMissingRunnerFromAnInvisibleScope(t *testing.T) {
	t.Parallel()
	sim, url := simulator(t)
	gh := client(t, url)
	_, err := gh.Runner(t.Context(), org, 7)
	wantKind(t, "missing runner", err, fleet.ErrNotFound)
	if err := gh.CanList(t.Context(), org); err != nil {
		t.Errorf("CanList() = %v, want nil", err)
	}
	sim.Grant(credential, org, githubsim.AccessInvisible)
	_, err = gh.Runner(t.Context(), org, 7)
	wantKind(t, "invisible scope", err, fleet.ErrNotFound)
	wantKind(t, "CanList", gh.CanList(t.Context(), org), fleet.ErrNotFound)
	sim.Grant(credential, org, githubsim.AccessForbidden)
	wantKind(t, "CanList", gh.CanList(t.Context(), org), fleet.ErrForbidden)
}

func TestTokens(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, scope := range scopes {
		sim, url := simulator(t, func(c *githubsim.Config) { c.Now = func() time.Time { return now } })
		gh := client(t, url)
		registration, err := gh.RegistrationToken(t.Context(), scope)
		if err != nil {
			t.Fatal(err)
		}
		removal, err := gh.RemovalToken(t.Context(), scope)
		if err != nil {
			t.Fatal(err)
		}
		for _, tok := range []fleet.Token{registration, removal} {
			if len(tok.Secret.Reveal()) != 29 || !tok.ExpiresAt.Equal(now.Add(time.Hour)) || tok.ExpiresAt.Location() != time.UTC {
				t.Errorf("token of %d characters, expires %s", len(tok.Secret.Reveal()), tok.ExpiresAt)
			}
		}
		if _, _, err := sim.RegisterRunner(registration.Secret.Reveal(), githubsim.RunnerSpec{Name: "host-1"}); err != nil {
			t.Errorf("with the registration token: %v", err)
		}
		if _, _, err := sim.RegisterRunner(removal.Secret.Reveal(), githubsim.RunnerSpec{Name: "host-2"}); err == nil {
			t.Error("a runner was registered with the removal token")
		}
	}
}

func TestATokenThatCannotBeBelieved(t *testing.T) {
	t.Parallel()
	const secret = "AHIDDENHIDDENHIDDENHIDDENHIDD"
	for _, body := range []string{
		``, `null`, `{}`, `{"token":""}`,
		`{"token":"` + secret + `"}`,
		`{"token":"` + secret + `","expires_at":null}`,
		`{"token":"` + secret + `","expires_at":"` + secret + `"}`,
		`{"expires_at":"2020-01-22T12:13:35.123-08:00"}`,
		`{"token":{"token":"` + secret + `"},"expires_at":"2020-01-22T12:13:35.123-08:00"}`,
		`{"token":"` + secret + `","expires_at":"2020-01-22T12:13:35.123-08:00"} ` + secret,
		`"` + secret + `"`,
	} {
		gh := answers(t, says(http.StatusCreated, body))
		_, err := gh.RegistrationToken(t.Context(), org)
		wantKind(t, body, err, fleet.ErrMalformed)
		wantNot(t, err.Error(), secret)
		_, err = gh.RemovalToken(t.Context(), org)
		wantKind(t, body, err, fleet.ErrMalformed)
	}
	_, err := answers(t, says(http.StatusOK, `{"token":"`+secret+`","expires_at":"2020-01-22T12:13:35.123-08:00"}`)).RegistrationToken(t.Context(), org)
	wantKind(t, "200 instead of 201", err, fleet.ErrMalformed)
	wantNot(t, err.Error(), secret)
}

func TestDownloads(t *testing.T) {
	t.Parallel()
	whole := `{"os":"linux","architecture":"x64","download_url":"https://x/a.tar.gz","filename":"a.tar.gz","sha256_checksum":"abc","temp_download_token":"t"}`
	got, err := answers(t, says(http.StatusOK, `[`+whole+`]`)).Downloads(t.Context(), org)
	want := []fleet.Download{{OS: "linux", Architecture: "x64", URL: "https://x/a.tar.gz", Filename: "a.tar.gz", SHA256: "abc"}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if got, err := answers(t, says(http.StatusOK, `[]`)).Downloads(t.Context(), org); err != nil || len(got) != 0 {
		t.Errorf("an empty list: %v, %v", got, err)
	}
	got, err = answers(t, says(http.StatusOK, `[{"os":"linux"},`+whole+`]`)).Downloads(t.Context(), org)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("one that lacks something costs itself alone: %v (-want +got):\n%s", err, diff)
	}
	for _, body := range []string{``, `null`, `{}`, `[null]`, `[{}]`, `[` + whole} {
		_, err := answers(t, says(http.StatusOK, body)).Downloads(t.Context(), org)
		wantKind(t, body, err, fleet.ErrMalformed)
	}
}

// A deletion that waits for its turn is confirmed after the wait, and again
// before it is sent a second time: its reason may have ended meanwhile.
func TestADeletionIsConfirmedRightBeforeItIsSent(t *testing.T) {
	t.Parallel()
	var order []string
	sim, gh, at := limited(t, githubsim.Usual, func(c *github.Config) {
		current := "ghp_expired"
		c.Token = func(context.Context) (fleet.Secret, error) {
			order = append(order, "credential")
			return fleet.NewSecret(current), nil
		}
		c.Refused = func(fleet.Secret) bool {
			current = credential
			return true
		}
		c.Waited = func(github.Wait) { order = append(order, "waited") }
		c.Observe = func(github.Call) { order = append(order, "sent") }
	})
	ids := fill(t, sim, org, 2)
	gh.Pause(at.Now().Add(time.Second))
	err := gh.RemoveRunner(t.Context(), org, ids[0], func(context.Context) error {
		order = append(order, "confirmed")
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	want := []string{"waited", "credential", "confirmed", "sent", "credential", "confirmed", "sent"}
	if diff := cmp.Diff(want, order); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}

	no := errors.New("the policy is off")
	before := len(sim.Log())
	for range 100 { // what is not sent takes nothing of the limits
		if err := gh.RemoveRunner(t.Context(), org, ids[1], func(context.Context) error { return no }); err != no {
			t.Fatalf("RemoveRunner() = %v, want the error of confirm as it is", err)
		}
	}
	if asked := len(sim.Log()) - before; asked != 0 {
		t.Errorf("GitHub was asked %d times", asked)
	}
	if err := gh.RemoveRunner(t.Context(), org, ids[1], nil); err != nil {
		t.Error(err)
	}
}
