package policies

import (
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"

	"github.com/muster-fleet/muster/fleet"
)

// runnerView is a runner as an expression sees it. There are durations and no
// times: a zero time would be 2,000 years ago, and so long offline. A nil
// pointer, an empty text and an empty list of labels are unknown.
type runnerView struct {
	Name        string         `cel:"name"`
	OS          string         `cel:"os"`
	Status      string         `cel:"status"`
	Busy        bool           `cel:"busy"`
	Labels      []string       `cel:"labels"`
	Group       string         `cel:"group"`
	Version     string         `cel:"version"`
	Ephemeral   *bool          `cel:"ephemeral"`
	OfflineFor  *time.Duration `cel:"offline_for"`
	IdleFor     *time.Duration `cel:"idle_for"`
	Age         *time.Duration `cel:"age"`
	OnlineSeen  *time.Duration `cel:"online_seen"`
	NeverOnline bool           `cel:"never_online"`
	// NewerRegistrations is a pointer for the same reason: 0 says that there
	// is none, nil that the host is not known.
	NewerRegistrations *int64 `cel:"newer_registrations"`
}

// hostView is the machine that a runner runs on as an expression sees it.
type hostView struct {
	Known     bool           `cel:"known"`
	State     string         `cel:"state"`
	SilentFor *time.Duration `cel:"silent_for"`
}

// hostStates are the states a host may be in, where they are known.
var hostStates = []string{"booting", "running", "silent", "gone"}

// targetView is a target as an expression sees it.
type targetView struct {
	Name  string `cel:"name"`
	Scope string `cel:"scope"`
}

func viewOf(t fleet.TargetState) targetView {
	v := targetView{Name: t.Name}
	if t.Scope != (fleet.Scope{}) {
		v.Scope = t.Scope.String()
	}
	return v
}

// fields names the fields of each variable, for messages.
var fields = map[string]string{
	"runner": "name, os, status, busy, labels, group, version, ephemeral, offline_for, idle_for, age, online_seen, never_online, newer_registrations",
	"host":   "known, state, silent_for",
	"target": "name, scope",
}

// unknownFields are the fields that may be unknown, with the value that stands
// for that. The bools busy and never_online are always known: muster takes a
// missing busy for busy.
var unknownFields = func() map[string]*types.Unknown {
	m := map[string]*types.Unknown{}
	for _, f := range []string{"runner.name", "runner.os", "runner.status", "runner.labels", "runner.group", "runner.version", "runner.ephemeral",
		"runner.offline_for", "runner.idle_for", "runner.age", "runner.online_seen", "runner.newer_registrations",
		"host.state", "host.silent_for", "target.name", "target.scope"} {
		m[f] = types.NewUnknown(0, types.NewAttributeTrail(f))
	}
	return m
}()

// durationFields are the fields that are durations, by view.
var durationFields = map[string][]string{
	"Runner": {"offline_for", "idle_for", "age", "online_seen"},
	"Host":   {"silent_for"},
}

// unknowns makes reading an unknown field give CEL's unknown. The native
// adapter alone gives 0 and "", and then !(runner.offline_for > d) and
// runner.group != "prod" hold for runners of which nothing is known.
type unknowns struct{ types.Provider }

func (u unknowns) FindStructFieldType(structType, field string) (*types.FieldType, bool) {
	ft, ok := u.Provider.FindStructFieldType(structType, field)
	unknown := unknownFields[strings.ToLower(structType)+"."+field]
	if !ok || unknown == nil {
		return ft, ok
	}
	return &types.FieldType{
		Type:  ft.Type,
		IsSet: ft.IsSet,
		GetFrom: func(object any) (any, error) {
			if !ft.IsSet(object) {
				return unknown, nil
			}
			return ft.GetFrom(object)
		},
	}, true
}

// activation holds the variables of one evaluation. It may be used again for
// the next runner, by one goroutine.
type activation struct {
	runner runnerView
	host   hostView
	target targetView

	offlineFor, idleFor, age, onlineSeen, silentFor time.Duration
	newer                                           int64
}

func (a *activation) ResolveName(name string) (any, bool) {
	switch name {
	case "runner":
		return &a.runner, true
	case "host":
		return &a.host, true
	case "target":
		return &a.target, true
	}
	return nil, false
}

func (a *activation) Parent() cel.Activation { return nil }

// observe puts a runner in, as it is known at now, and how many its host has
// registered since it was last there.
func (a *activation) observe(r *fleet.Observed, newer int, now time.Time) {
	a.runner = runnerView{
		Name: r.Name, OS: r.OS, Status: string(r.Status), Busy: r.Busy,
		Group: r.Group, Version: r.Version, Ephemeral: r.Ephemeral.Answer(),
		NeverOnline: r.LastOnlineAt.IsZero() && !r.FirstSeenAt.IsZero() && r.Status == fleet.StatusOffline,
	}
	// An empty list is unknown, as no list is: every self-hosted runner has labels.
	if len(r.Labels) > 0 {
		a.runner.Labels = r.Labels
	}
	if r.Status == fleet.StatusOffline && !r.OfflineSince.IsZero() {
		a.offlineFor = r.OfflineFor
		a.runner.OfflineFor = &a.offlineFor
	}
	// How long it has been idle is unknown too where it was never seen busy:
	// its workflow jobs may all have run between two looks.
	if since := r.IdleSince(now); !since.IsZero() {
		a.idleFor = max(now.Sub(since), 0)
		a.runner.IdleFor = &a.idleFor
	}
	if !r.FirstSeenAt.IsZero() {
		a.age = max(now.Sub(r.FirstSeenAt), 0)
		a.runner.Age = &a.age
	}
	if !r.LastOnlineAt.IsZero() {
		a.onlineSeen = max(now.Sub(r.LastOnlineAt), 0)
		a.runner.OnlineSeen = &a.onlineSeen
	}
	if r.Host != "" {
		a.newer = int64(newer)
		a.runner.NewerRegistrations = &a.newer
	}
	state := r.HostSays.State(now)
	a.host = hostView{Known: state != "", State: string(state)}
	if !r.HostSays.SeenAt.IsZero() {
		a.silentFor = max(now.Sub(r.HostSays.SeenAt), 0)
		a.host.SilentFor = &a.silentFor
	}
}
