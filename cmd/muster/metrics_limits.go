package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-fleet/muster/github"
)

// limitGauges collects what clients know of GitHub's limits when they are asked.
type limitGauges struct {
	known func() map[string]github.Limits // by target; nil: nothing is known of any
}

var (
	rateLimit = describe("github_rate_limit", "Requests that GitHub allows in an hour; absent: the server has no limit, or has named none yet.", byTarget)
	pauseLeft = describe("github_pause_seconds", "For how much longer nothing is sent because GitHub asked for that; 0: it did not.", byTarget)
)

func (g *limitGauges) Describe(to chan<- *prometheus.Desc) {
	to <- rateLimit
	to <- pauseLeft
}

func (g *limitGauges) Collect(to chan<- prometheus.Metric) {
	if g.known == nil {
		return
	}
	for target, l := range g.known() {
		if l.Limit > 0 {
			to <- prometheus.MustNewConstMetric(rateLimit, prometheus.GaugeValue, float64(l.Limit), target)
		}
		left := max(time.Until(l.Paused), 0) // the zero time is long past
		to <- prometheus.MustNewConstMetric(pauseLeft, prometheus.GaugeValue, left.Seconds(), target)
	}
}
