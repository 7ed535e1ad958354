package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
)

// readPools reads pools of the targets acme and widgets.
func readPools(text string) (pools []fleet.Pool, faults []string) {
	r := &reader{env: variables(nil), config: &config{file: "muster.yaml", dir: "/"}}
	for _, name := range []string{"acme", "widgets"} {
		r.config.targets = append(r.config.targets, targetConfig{Target: fleet.Target{Name: name}})
	}
	for _, p := range r.pools(parseYAML("muster.yaml", []byte(text), &r.faults).mapping().get("pools")) {
		pools = append(pools, p.Pool)
	}
	for _, err := range lines(r.faults.err()) {
		faults = append(faults, err.Error())
	}
	return pools, faults
}

func TestPools(t *testing.T) {
	t.Parallel()
	got, faults := readPools(`
pools:
  - {name: linux, target: acme, labels: [x64, Linux, self-hosted], max: 40}
  - name: gpu
    target: widgets
    labels: [gpu]
    min: 1
    max: 8
    idle: 2
    target_utilisation: 1
    boot_deadline: 15m
    min_lifetime: 1h
    cooldown: {up: 5s, down: 1h}
    step: {up: 50%, down: 2}
    periods:
      - {cron: "0 8 * * 1-5", duration: 10h, time_zone: Europe/London, min: 4, max: 16, idle: 4}
      - {cron: "0 0 * * 6", duration: 2d, idle: 0}
`)
	want := []fleet.Pool{
		{
			Name: "linux", Target: "acme", Labels: []string{"linux", "self-hosted", "x64"},
			PoolBounds: fleet.PoolBounds{Max: 40}, TargetUtilisation: 0.75, BootDeadline: 10 * time.Minute, MinLifetime: 10 * time.Minute,
			Cooldown: fleet.PoolCooldown{Up: 30 * time.Second, Down: 10 * time.Minute},
			Step:     fleet.PoolStep{Up: fleet.Portion{Count: 10}, Down: fleet.Portion{Percent: 10}},
		},
		{
			Name: "gpu", Target: "widgets", Labels: []string{"gpu"},
			PoolBounds: fleet.PoolBounds{Min: 1, Max: 8, Idle: 2}, TargetUtilisation: 1, BootDeadline: 15 * time.Minute, MinLifetime: time.Hour,
			Cooldown: fleet.PoolCooldown{Up: 5 * time.Second, Down: time.Hour},
			Step:     fleet.PoolStep{Up: fleet.Portion{Percent: 50}, Down: fleet.Portion{Count: 2}},
			Periods: []fleet.PoolPeriod{
				{Cron: "0 8 * * 1-5", TimeZone: "Europe/London", Duration: 10 * time.Hour, PoolBounds: fleet.PoolBounds{Min: 4, Max: 16, Idle: 4}},
				{Cron: "0 0 * * 6", TimeZone: "UTC", Duration: 48 * time.Hour, PoolBounds: fleet.PoolBounds{Min: 1, Max: 8}},
			},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" || len(faults) > 0 {
		t.Errorf("faults %v, pools (-want +got):\n%s", faults, diff)
	}
}

func TestBadPools(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, text string
		want       []string
	}{
		{"nothing said", "pools: [{}]", []string{
			"muster.yaml:1:9: pools[0].name: is missing: give the pool a short name",
			"muster.yaml:1:9: pools[0].target: is missing: say whose workflow jobs its hosts are for",
			"muster.yaml:1:9: pools[0].labels: is missing: name all that its runners carry, such as [self-hosted, linux, x64]",
			"muster.yaml:1:9: pools[0].max: is missing: say how many hosts it may have at most",
		}},
		{"names", `pools:
- {name: all, target: acme, labels: [a], max: 1}
- {name: Big, target: acne, labels: [a], max: 1}
- {name: gpu, target: acme, labels: [a], max: 1}
- {name: gpu, target: acme, labels: [b], max: 1}
- {name: same, target: acme, labels: [A], max: 1}
- {name: other, target: widgets, labels: [A], max: 1}
`, []string{
			`muster.yaml:2:10: pools[0].name: "all" stands for all pools: choose another name`,
			`muster.yaml:3:10: pools[1].name: "Big" cannot be a name: ` + nameRule,
			`muster.yaml:3:23: pools[1].target: target "acne" is unknown, there is acme, widgets`,
			"muster.yaml:5:10: pools[3].name: a pool gpu stands further up: give each its own name",
			"muster.yaml:6:38: pools[4].labels: pool gpu has the very same labels, and all jobs would wait for one of the two: join them",
		}},
		{"kinds of values", `pools:
- name: p
  target: acme
  labels: linux
  max: many
  minimum: 3
  target_utilisation: 75%
  boot_deadline: 10
  cooldown: {up: 30s, downn: 10m}
  step: {up: 0, down: 10.5%}
  periods: [8h, {cron: 8}]
`, []string{
			"muster.yaml:4:11: pools[0].labels: want a list, got text",
			"muster.yaml:5:8: pools[0].max: want a whole number, got text",
			"muster.yaml:6:3: pools[0].minimum: unknown key, want one of boot_deadline, cooldown, idle, labels, max, min, min_lifetime, name, periods, step, target, target_utilisation",
			"muster.yaml:7:23: pools[0].target_utilisation: want a number, got text",
			`muster.yaml:8:18: pools[0].boot_deadline: duration "10": want a number with a unit, such as 90s, 15m, 36h, 7d or 2w`,
			"muster.yaml:9:23: pools[0].cooldown.downn: unknown key, want one of down, up",
			"muster.yaml:10:14: pools[0].step.up: 0 is out of bounds, want 1 to 100000",
			`muster.yaml:10:23: pools[0].step.down: "10.5%" is neither a number of hosts nor a percentage of 1% to 100%, such as 10%`,
			"muster.yaml:11:13: pools[0].periods[0]: want keys with values, got text",
			"muster.yaml:11:17: pools[0].periods[1].duration: is missing: say how long the period lasts, such as 10h",
			"muster.yaml:11:24: pools[0].periods[1].cron: want text, got a number: put it in quotes",
		}},
		{"what makes no sense", `pools:
- name: p
  target: acme
  labels: [a]
  min: 5
  max: 10
  target_utilisation: 0
  cooldown: {down: 30d}
  periods:
  - {cron: "0 8 * * *", duration: 10h, max: 4}
  - {cron: "0 8 * *", duration: 10h}
  - {cron: "0 20 * * *", duration: 10m, time_zone: London}
  - {cron: "0 20 * * *", duration: 13h}
  - {cron: "0 21 * * *", duration: 1h}
`, []string{
			"muster.yaml:7:23: pools[0].target_utilisation: 0 is out of bounds, want more than 0 and at most 1, such as 0.75",
			"muster.yaml:8:20: pools[0].cooldown.down: 720h is too long, 168h is the most",
			"muster.yaml:10:5: pools[0].periods[0].min: 5 is more than max, which is 4: lower the one or raise the other",
			`muster.yaml:11:12: pools[0].periods[1].cron: "0 8 * *": `,
			"muster.yaml:12:36: pools[0].periods[2].duration: 10m is too short, 15m is the least: write how long, such as 10h",
			`muster.yaml:12:52: pools[0].periods[2].time_zone: time_zone "London" is not known: want UTC or an IANA name such as Europe/London`,
			"muster.yaml:14:12: pools[0].periods[4].cron: holds together with periods[3], such as on 2026-01-01 21:00 UTC: let one end before the other begins",
		}},
		{"bounds", "pools: [{name: p, target: acme, labels: [' '], min: 5, max: 4, idle: 1}]", []string{
			"muster.yaml:1:41: pools[0].labels: names no label: a job that asks for none could not be told to wait for this pool",
			"muster.yaml:1:53: pools[0].min: 5 is more than max, which is 4: lower the one or raise the other",
		}},
	}
	for _, tt := range tests {
		_, got := readPools(tt.text)
		for i := range min(len(got), len(tt.want)) {
			if strings.HasSuffix(tt.want[i], ": ") && strings.HasPrefix(got[i], tt.want[i]) {
				got[i] = tt.want[i] // the rest is the parser's
			}
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func FuzzPoolsNeverPanic(f *testing.F) {
	f.Add([]byte("pools: [{name: p, target: acme, labels: [a], max: 4, step: {up: 1e9}, periods: [{cron: '* * * * *', duration: 1h, min: -1}]}]"))
	f.Add([]byte("pools: {periods: [[]]}"))
	f.Fuzz(func(_ *testing.T, text []byte) { readPools(string(text)) })
}
