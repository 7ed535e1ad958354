package policies_test

import (
	"strings"
	"testing"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

// withParams is a policy that reports, with params.
func withParams(params, match string) string {
	return strings.Replace(reporting(match), "  match: |", "  params: {"+params+"}\n  match: |", 1)
}

func TestParamsStandForTheirValues(t *testing.T) {
	t.Parallel()
	const params = `least: 2.320.0, teams: [team-web, team-db], long: 168h, many: 2, few: -1, share: 0.5, on: true, none: []`
	r := due(1)
	r.Ephemeral = fleet.No
	r.Version, r.Labels = "2.319.0", []string{"linux", "team-db"}
	for _, match := range []string{
		`!version_at_least(runner.version, params.least)`,
		`runner.labels.exists(l, l in params.teams)`,
		`runner.offline_for > duration(params.long)`,
		`runner.labels.size() == params.many`,
		`params.few < 0 && runner.labels.size() > params.few`,
		`params.share * 2.0 == 1.0 && runner.ephemeral == false`,
		`params.on && runner.status == "offline"`,
		`!("linux" in params.none) && runner.labels.size() > 0`,
	} {
		var used []string
		for _, entry := range strings.SplitAfter(params, ", ") {
			name, _, _ := strings.Cut(entry, ":")
			if strings.Contains(match, "params."+name) {
				used = append(used, strings.TrimSuffix(entry, ", "))
			}
		}
		written := strings.Join(used, ", ")
		if strings.Contains(match, "params.teams") {
			written = "teams: [team-web, team-db]" // whose comma splits it
		}
		p := load(t, withParams(written, match))
		plan := policies.Decide(p, policies.Input{Target: healthy(), Runners: []fleet.Observed{r}}, now)
		if len(plan.Marks) != 1 {
			t.Errorf("%s does not match: %v", match, plan.Counts)
		}
	}
}

func TestParamsChangeTheHash(t *testing.T) {
	t.Parallel()
	a := load(t, withParams("long: 168h", `runner.offline_for > duration(params.long)`))
	b := load(t, withParams("long: 169h", `runner.offline_for > duration(params.long)`))
	if a.SHA256 == b.SHA256 {
		t.Errorf("two policies of other params have the hash %s", a.SHA256)
	}
}

func TestLongParamsAreRefused(t *testing.T) {
	t.Parallel()
	for _, value := range []string{strings.Repeat("x", 257), "[" + strings.Repeat("x, ", 100) + "x]"} {
		_, err := policies.Load("p.yaml", []byte(withParams("a: "+value, `runner.name == params.a`)))
		if err == nil || !strings.Contains(err.Error(), "is the most") {
			t.Errorf("a param of %d bytes: %v", len(value), err)
		}
	}
}
