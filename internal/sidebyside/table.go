package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// conditions say what a table is of.
func conditions(o options, server, shell string) string {
	load := ""
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		first, _, _ := strings.Cut(string(text), " ")
		load = ", load " + first
	}
	return fmt.Sprintf(`A sync beside its floors, and beside gh | jq | psql. Medians of %d interleaved repetitions.
%s, %s/%s, %d processors%s, %s
%s
%s
All servers are on loopback and share the processors. The rate governor is off, as github.com
would not have it: nothing is paced, and the simulated GitHub sets no limits.
`, o.reps, time.Now().UTC().Format(time.DateOnly), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), load, runtime.Version(), server, shell)
}

// table shows the medians of a plan, case by case.
func (r results) table(p plan) string {
	rows := [][]string{{"", "wall ms", "least", "CPU ms", "peak MB", "SQL", "rows", "WAL kB", "calls", "304", "protocol"}}
	last := ""
	for _, k := range r.keys {
		if k.plan != p {
			continue
		}
		if k.name != last {
			last = k.name
			rows = append(rows, nil, []string{k.name})
		}
		number := func(of func(figures) int64) string { return strconv.FormatInt(r.median(k, of), 10) }
		rows = append(rows, []string{
			"  " + k.contender,
			decimal(r.median(k, wall), 1e6), decimal(r.values(k, wall)[0], 1e6), decimal(r.median(k, cpu), 1e6),
			number(func(f figures) int64 { return f.PeakBytes / 1e6 }),
			number(func(f figures) int64 { return f.Statements }),
			number(func(f figures) int64 { return f.Rows }),
			decimal(r.median(k, func(f figures) int64 { return f.WALBytes }), 1e3),
			number(func(f figures) int64 { return int64(f.Calls) }),
			number(func(f figures) int64 { return int64(f.NotModified) }),
			r.all[k][0].Protocols,
		})
	}
	return fmt.Sprintf("\n%s\n\n%s", p, aligned(rows))
}

// decimal is n in a unit of so many, with one digit behind the point.
func decimal(n, unit int64) string {
	return strconv.FormatFloat(float64(n)/float64(unit), 'f', 1, 64)
}

func thousands(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// aligned sets rows in columns, the first to the left, the others to the
// right. A row of one cell is a heading, as wide as it likes.
func aligned(rows [][]string) string {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			if len(row) > 1 {
				widths[i] = max(widths[i], len(cell))
			}
		}
	}
	var b strings.Builder
	for _, row := range rows {
		line := ""
		for i, cell := range row {
			if i == 0 {
				line = fmt.Sprintf("  %-*s", widths[i], cell)
				continue
			}
			line += fmt.Sprintf("  %*s", widths[i], cell)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return b.String()
}
