package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

// pools reads the pools, after the targets that they are of.
func (r *reader) pools(n node) []*policies.Pool {
	var all []*policies.Pool
	for _, entry := range n.list() {
		m := entry.mapping()
		if _, ok := entry.value.(ast.MapNode); !ok {
			continue
		}
		before := len(r.faults)
		nameNode := m.need("name", "give the pool a short name")
		p := fleet.Pool{Name: nameNode.text("")}
		if p.Name != "" {
			poolName(nameNode, p.Name, all)
		}
		targetNode := m.need("target", "say whose workflow jobs its hosts are for")
		if p.Target = targetNode.text(""); p.Target != "" {
			if _, ok := r.config.target(p.Target); !ok {
				targetNode.fault("%s", r.config.unknownTarget(p.Target))
			}
		}
		labels := m.need("labels", "name all that its runners carry, such as [self-hosted, linux, x64]")
		p.Labels = labels.texts()
		places := map[string]node{"": m.node, "labels": labels}
		m.need("max", "say how many hosts it may have at most")
		p.PoolBounds = poolBounds(m, "", places, fleet.PoolBounds{})
		places["target_utilisation"] = m.get("target_utilisation")
		p.TargetUtilisation = places["target_utilisation"].number(0.75)
		duration := func(m *mapping, key, name string, otherwise time.Duration) time.Duration {
			places[name] = m.get(key)
			return places[name].duration(otherwise)
		}
		p.BootDeadline = duration(m, "boot_deadline", "boot_deadline", 10*time.Minute)
		p.MinLifetime = duration(m, "min_lifetime", "min_lifetime", 10*time.Minute)
		cooldown, step := m.get("cooldown").mapping(), m.get("step").mapping()
		p.Cooldown.Up = duration(cooldown, "up", "cooldown.up", 30*time.Second)
		p.Cooldown.Down = duration(cooldown, "down", "cooldown.down", 10*time.Minute)
		places["step.up"], places["step.down"] = step.get("up"), step.get("down")
		p.Step.Up = places["step.up"].portion(fleet.Portion{Count: 10})
		p.Step.Down = places["step.down"].portion(fleet.Portion{Percent: 10})
		cooldown.close()
		step.close()
		for i, each := range m.get("periods").list() {
			z := each.mapping()
			if _, ok := each.value.(ast.MapNode); ok {
				p.Periods = append(p.Periods, poolPeriod(z, fmt.Sprintf("periods[%d].", i), places, p.PoolBounds))
			}
		}
		places["periods"] = m.get("periods")
		m.close()
		if len(r.faults) > before {
			continue // the checks below would say the same in other words
		}
		pool, wrong := policies.NewPool(p)
		for _, f := range wrong {
			poolPlace(places, f.Key).fault("%s", f.Text)
		}
		if pool == nil {
			continue
		}
		for _, other := range all {
			if other.Target == pool.Target && slices.Equal(other.Labels, pool.Labels) {
				labels.fault("pool %s has the very same labels, and all jobs would wait for one of the two: join them", other.Name)
			}
		}
		all = append(all, pool)
	}
	return all
}

func poolName(n node, name string, all []*policies.Pool) {
	switch {
	case name == fleet.All:
		n.fault("%q stands for all pools: choose another name", name)
	case !fleet.ValidName(name):
		n.fault("%q cannot be a name: %s", name, nameRule)
	case slices.ContainsFunc(all, func(p *policies.Pool) bool { return p.Name == name }):
		n.fault("a pool %s stands further up: give each its own name", name)
	}
}

// poolBounds reads the bounds of a pool or of a period of it, and notes where
// they stand.
func poolBounds(m *mapping, under string, places map[string]node, otherwise fleet.PoolBounds) fleet.PoolBounds {
	read := func(key string, otherwise int) int {
		places[under+key] = m.get(key)
		return places[under+key].integer(otherwise, 0, 100_000)
	}
	return fleet.PoolBounds{Min: read("min", otherwise.Min), Max: read("max", otherwise.Max), Idle: read("idle", otherwise.Idle)}
}

func poolPeriod(m *mapping, under string, places map[string]node, otherwise fleet.PoolBounds) fleet.PoolPeriod {
	places[under] = m.node
	places[under+"cron"] = m.need("cron", "say when the period begins, such as \"0 8 * * 1-5\" (in five fields: minute hour day month weekday)")
	places[under+"duration"] = m.need("duration", "say how long the period lasts, such as 10h")
	places[under+"time_zone"] = m.get("time_zone")
	z := fleet.PoolPeriod{
		Cron:       places[under+"cron"].text(""),
		Duration:   places[under+"duration"].duration(0),
		TimeZone:   places[under+"time_zone"].text("UTC"),
		PoolBounds: poolBounds(m, under, places, otherwise),
	}
	m.close()
	return z
}

// poolPlace is where a key stands, or what it would stand in.
func poolPlace(places map[string]node, key string) node {
	if at := places[key]; at.there() {
		return at
	}
	under := key[:strings.LastIndex(key, "].")+1]
	if under != "" {
		under += "."
	}
	at := places[under]
	at.path = places[""].path + "." + key
	return at
}

// number reads a number, whole or not.
func (n node) number(otherwise float64) float64 {
	switch v := n.value.(type) {
	case nil:
		return otherwise
	case *ast.FloatNode:
		return v.Value
	case *ast.IntegerNode:
		if f, err := strconv.ParseFloat(v.GetToken().Value, 64); err == nil {
			return f
		}
	}
	n.fault("want a number, got %s", n.kind())
	return otherwise
}

// portion reads a number of hosts, or a percentage.
func (n node) portion(otherwise fleet.Portion) fleet.Portion {
	if s, ok := n.value.(*ast.StringNode); ok {
		percent, err := strconv.Atoi(strings.TrimSuffix(s.Value, "%"))
		if err != nil || !strings.HasSuffix(s.Value, "%") || percent < 1 || percent > 100 {
			n.fault("%q is neither a number of hosts nor a percentage of 1%% to 100%%, such as 10%%", s.Value)
			return otherwise
		}
		return fleet.Portion{Percent: percent}
	}
	if !n.there() {
		return otherwise
	}
	return fleet.Portion{Count: n.integer(1, 1, 100_000)}
}
