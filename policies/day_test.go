package policies_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

// work is one workflow job of a simulated day, in seconds.
type work struct{ queuedAt, takes int }

const daySeconds = 24 * 60 * 60

// midnight is when a day begins.
var midnight = monday.Truncate(24 * time.Hour)

// perHour is how many jobs a day asks for: quiet nights, a morning that rises, a
// lunch, and a release hour from 15:00.
var perHour = [24]int{20, 15, 10, 10, 15, 30, 80, 250, 550, 750, 800, 700, 450, 650, 800, 1500, 900, 650, 350, 200, 120, 80, 50, 30}

// arrivals is how jobs come: in runs of so many, on average of so many.
type arrivals struct {
	run  func(*rand.Rand) int
	mean float64
}

// inRuns is what pushes make of a day: most start a few jobs at once, some a
// matrix of dozens.
var inRuns = arrivals{func(r *rand.Rand) int {
	switch x := r.Float64(); {
	case x < 0.50:
		return 1
	case x < 0.80:
		return 2 + r.IntN(5) // 4 on average
	case x < 0.97:
		return 6 + r.IntN(15) // 13 on average
	}
	return 30 + r.IntN(51) // 55 on average
}, 0.5 + 0.3*4 + 0.17*13 + 0.03*55}

// alone has each job come by itself: a day without bursts.
var alone = arrivals{func(*rand.Rand) int { return 1 }, 1}

// day is a day's jobs. They take minutes, some of them an hour.
func (a arrivals) day(seed uint64) []work {
	r := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a load that can be repeated
	var all []work
	for hour, n := range perHour {
		apart := 3600 * a.mean / float64(n)
		for at := r.ExpFloat64() * apart; at < 3600; at += r.ExpFloat64() * apart {
			for range a.run(r) {
				all = append(all, work{hour*3600 + int(at), int(math.Min(math.Max(240*math.Exp(0.9*r.NormFloat64()), 20), 3600))})
			}
		}
	}
	return all
}

// sizer says how many hosts to ask for (above 0) or to take away (below).
type sizer func(now time.Time, online, busy, booting, queued int) int

// lived is what a day came to.
type lived struct {
	name        string
	p50, p95    time.Duration // of the wait of a job for its host
	longest     time.Duration
	hostMinutes int
	most        int // hosts at once
}

func (l lived) String() string {
	return fmt.Sprintf("%-14s wait p50 %6s  p95 %6s  longest %7s  host-minutes %6d  most hosts %3d", l.name, l.p50, l.p95, l.longest, l.hostMinutes, l.most)
}

type machine struct{ readyAt, freeAt, idleSince int }

// live lets hosts live through a day of jobs under a sizer. A host costs from
// the moment it is asked for, boots for 30 to 300 s, takes the job that waited
// longest, and is taken away only when idle, the longest idle first, never
// younger than its least lifetime.
func live(name string, seed uint64, jobs []work, start, every, leastLifetime int, size sizer) lived {
	r := rand.New(rand.NewPCG(seed, 2)) //nolint:gosec // boots that can be repeated
	var hosts []machine
	for range start {
		hosts = append(hosts, machine{})
	}
	var waits []int
	next, queue := 0, 0 // of jobs: the next to come, and the one that waits longest
	seconds, most := 0, 0
	for now := range daySeconds {
		for next < len(jobs) && jobs[next].queuedAt <= now {
			next++
		}
		online, busy := 0, 0
		for i := range hosts {
			h := &hosts[i]
			if h.readyAt > now {
				continue
			}
			online++
			if h.freeAt <= now && queue < next {
				waits = append(waits, now-jobs[queue].queuedAt)
				h.freeAt = now + jobs[queue].takes
				h.idleSince = h.freeAt
				queue++
			}
			if h.freeAt > now {
				busy++
			}
		}
		seconds += len(hosts)
		most = max(most, len(hosts))
		if now%every != 0 {
			continue
		}
		change := size(midnight.Add(time.Duration(now)*time.Second), online, busy, len(hosts)-online, next-queue)
		for range change {
			ready := now + 30 + r.IntN(271)
			hosts = append(hosts, machine{readyAt: ready, freeAt: ready, idleSince: ready})
		}
		for ; change < 0; change++ {
			away := -1
			for i, h := range hosts {
				if h.freeAt <= now && h.readyAt <= now-leastLifetime && (away < 0 || h.idleSince < hosts[away].idleSince) {
					away = i
				}
			}
			if away < 0 {
				break
			}
			hosts = slices.Delete(hosts, away, away+1)
		}
	}
	for _, job := range jobs[queue:] {
		waits = append(waits, daySeconds-job.queuedAt)
	}
	slices.Sort(waits)
	at := func(q float64) time.Duration { return time.Duration(waits[int(q*float64(len(waits)-1))]) * time.Second }
	return lived{name, at(0.5), at(0.95), at(1), seconds / 60, most}
}

const (
	dayMin = 2
	dayMax = 400
)

func liveARC(name string, seed uint64, jobs []work, suggest func(a *arcSize, busy, queued int) int) lived {
	a := arcSize{lowest: dayMin, highest: dayMax, desired: dayMin}
	return live(name, seed, jobs, dayMin, int(arcSync.Seconds()), 0, func(now time.Time, online, busy, booting, queued int) int {
		return a.take(suggest(&a, busy, queued), now) - online - booting
	})
}

// eventsWake is how soon after an event muster decides, in seconds.
const eventsWake = 5

func liveMuster(p *policies.Pool, name string, seed uint64, jobs []work) lived {
	var memory fleet.SizeMemory
	return live(name, seed, jobs, p.Min, eventsWake, int(p.MinLifetime.Seconds()), func(now time.Time, online, busy, booting, queued int) int {
		d := p.Size(fleet.Supply{Online: online, Busy: busy, Booting: booting},
			fleet.Demand{Queued: queued, InProgress: busy, At: now, Confidence: fleet.ConfidenceKnown}, memory, now)
		memory = d.Memory
		if d.Direction == fleet.SizeDown {
			return -d.Change
		}
		return d.Change
	})
}

// liveFixed has as many hosts all day as the same host-minutes buy.
func liveFixed(hostMinutes int, seed uint64, jobs []work) lived {
	n := (hostMinutes + daySeconds/60 - 1) / (daySeconds / 60)
	return live(fmt.Sprintf("fixed, %d", n), seed, jobs, n, daySeconds, 0, func(time.Time, int, int, int, int) int { return 0 })
}

// dayPool is what a pool of this size wants: to ask for more at once than ten,
// and as soon as jobs come; some hosts that wait for work while people do, and
// few others in reserve, where every tenth host-minute counts. The rest are
// defaults.
func dayPool() fleet.Pool {
	p := sized(dayMin, dayMax, 2)
	p.TargetUtilisation = 0.9
	p.Step.Up.Count = 100
	p.Cooldown = fleet.PoolCooldown{Up: eventsWake * time.Second, Down: 3 * time.Minute}
	p.Periods = []fleet.PoolPeriod{period("0 8 * * *", "UTC", 11*time.Hour, dayMin, dayMax, 10)}
	return p
}

// firstDay is the seed of the first day.
const firstDay uint64 = 201

// day is one day lived by everybody, with the same jobs and the same boots.
type day struct{ muster, queued, busy, fixed lived }

func liveDay(p *policies.Pool, seed uint64, jobs []work) day {
	d := day{
		muster: liveMuster(p, "muster", seed, jobs),
		queued: liveARC("ARC, queued", seed, jobs, func(_ *arcSize, busy, queued int) int { return arcQueued(queued, busy) }),
		busy:   liveARC("ARC, busy", seed, jobs, func(a *arcSize, busy, _ int) int { return arcBusy(a.desired, busy) }),
	}
	d.fixed = liveFixed(d.muster.hostMinutes, seed, jobs)
	return d
}

// beats is less of a wait for at most 1.15 times the host-minutes.
func (d day) beats(arc lived) bool {
	return d.muster.p95 < arc.p95 && float64(d.muster.hostMinutes) <= 1.15*float64(arc.hostMinutes)
}

// dominated is by whoever is no worse in both.
func (d day) dominated() []string {
	var by []string
	for _, o := range []lived{d.queued, d.busy, d.fixed} {
		if o.p95 <= d.muster.p95 && o.hostMinutes <= d.muster.hostMinutes {
			by = append(by, o.name)
		}
	}
	return by
}

// Days of jobs that come in runs. The settings were chosen on other days than
// these; BenchmarkDays lives more of them, and tells where the bounds that are
// asked for here do not hold.
func TestSimulatedDay(t *testing.T) {
	t.Parallel()
	p, defaults := checked(t, dayPool()), checked(t, sized(dayMin, dayMax, 0))
	for seed := firstDay; seed < firstDay+5; seed++ {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			jobs := inRuns.day(seed)
			d := liveDay(p, seed, jobs)
			told := []string{fmt.Sprintf("%d jobs, at most %d within an hour", len(jobs), busiestHour(jobs))}
			for _, l := range []lived{d.muster, d.queued, d.busy, d.fixed, liveMuster(defaults, "(all defaults)", seed, jobs)} {
				told = append(told, l.String())
			}
			t.Log(strings.Join(told, "\n"))
			if by := d.dominated(); len(by) > 0 {
				t.Errorf("dominated by %v", by)
			}
			for _, arc := range []lived{d.queued, d.busy} {
				if !d.beats(arc) {
					t.Errorf("against %s: waits %s against %s, for %.3f times the host-minutes",
						arc.name, d.muster.p95, arc.p95, float64(d.muster.hostMinutes)/float64(arc.hostMinutes))
				}
			}
		})
	}
}

// BenchmarkDays tells on how many of thirty days each of ARC's formulas is
// beaten, the p95 wait of an average day, and muster's host-minutes as a part of
// theirs, on average and on the worst day. In runs, muster beats the busy
// formula on all days and the queued one on 28: on two it waits less, for up to
// 1.16 times the host-minutes. Where jobs come one by one nothing is beaten so:
// 95 of 100 wait for nobody under muster and under the busy formula, which takes
// a third more host-minutes, and less than under the queued one, but for 1.21
// times its host-minutes.
func BenchmarkDays(b *testing.B) {
	p := checked(b, dayPool())
	for name, jobs := range map[string]arrivals{"in runs": inRuns, "alone": alone} {
		b.Run(name, func(b *testing.B) { benchmarkDays(b, p, jobs) })
	}
}

func benchmarkDays(b *testing.B, p *policies.Pool, jobs arrivals) {
	const days = 30
	for b.Loop() {
		sums := map[string]float64{"dominated": 0, "beats-queued": 0, "beats-busy": 0}
		for seed := firstDay; seed < firstDay+days; seed++ {
			d := liveDay(p, seed, jobs.day(seed))
			sums["dominated"] += float64(len(d.dominated()))
			sums["p95-s"] += d.muster.p95.Seconds() / days
			for name, arc := range map[string]lived{"queued": d.queued, "busy": d.busy} {
				if d.beats(arc) {
					sums["beats-"+name]++
				}
				cost := float64(d.muster.hostMinutes) / float64(arc.hostMinutes)
				sums["p95-s-"+name] += arc.p95.Seconds() / days
				sums["cost-of-"+name] += cost / days
				sums["worst-cost-of-"+name] = max(sums["worst-cost-of-"+name], cost)
			}
		}
		for name, sum := range sums {
			b.ReportMetric(sum, name)
		}
	}
}

// busiestHour is the most jobs of any hour of the clock.
func busiestHour(jobs []work) int {
	var hours [24]int
	for _, job := range jobs {
		hours[job.queuedAt/3600]++
	}
	return slices.Max(hours[:])
}
