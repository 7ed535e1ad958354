package main

import "fmt"

// verdict is a figure that was asked for.
type verdict struct {
	what     string
	measured float64
	unit     string
	limit    float64
	atLeast  bool // the limit is the least; otherwise the most
	below    bool // and not the limit itself
}

func (v verdict) ok() bool {
	switch {
	case v.atLeast:
		return v.measured >= v.limit
	case v.below:
		return v.measured < v.limit
	}
	return v.measured <= v.limit
}

// cells are the verdict's row in the table.
func (v verdict) cells() []string {
	word, bound := "ok", "at most"
	switch {
	case v.atLeast:
		bound = "at least"
	case v.below:
		bound = "below"
	}
	if !v.ok() {
		word = "MISSED"
	}
	return []string{v.what, fmt.Sprintf("%.2f%s", v.measured, v.unit), fmt.Sprintf("%s %g%s", bound, v.limit, v.unit), word}
}

// verdicts are the figures of this run that were asked for; those of fleets
// that it had none of are left out. They are of medians.
func verdicts(r results) []verdict {
	var all []verdict
	large, slow := plan{runners: 100_000}, plan{10_000, latency}
	ratio := func(what string, of key, to []key, limit float64, atLeast bool) {
		sum := 0.0
		for _, k := range append([]key{of}, to...) {
			if len(r.all[k]) == 0 {
				return
			}
		}
		for _, k := range to {
			sum += float64(r.median(k, wall))
		}
		v := verdict{what: what, unit: "x", limit: limit, atLeast: atLeast, measured: float64(r.median(of, wall)) / sum}
		if atLeast {
			v.measured = 1 / v.measured
		}
		all = append(all, v)
	}
	of := func(p plan, name, contender string) key { return key{p, name, contender} }

	ratio("100,000, every page in full: to fetching and throwing away",
		of(large, caseUnchanged, nameMuster), []key{of(large, caseUnchanged, nameDiscard)}, 2.5, false)
	ratio("100,000, every page a 304: to the bare walk",
		of(large, caseSame, nameMuster), []key{of(large, caseSame, nameRevalidate)}, 3, false)
	ratio("100,000, 2 % changed: to fetching and decoding",
		of(large, caseChanged, nameMuster), []key{of(large, caseChanged, nameDecode)}, 1.6, false)
	ratio("100,000, first load: to fetching, decoding and one COPY",
		of(large, caseFirst, nameMuster), []key{of(large, caseFirst, nameDecode), of(large, caseFirst, nameCopy)}, 2.5, false)
	most := int64(0)
	for _, c := range cases(large) {
		for _, name := range []string{nameMuster, nameCommand} {
			for _, bytes := range r.values(of(large, c.name, name), peak) {
				most = max(most, bytes)
			}
		}
	}
	if most > 0 {
		all = append(all, verdict{what: "100,000, peak memory in any case", measured: float64(most) / 1e6, unit: " MB", limit: 250, below: true})
	}
	for _, p := range []plan{slow, large} {
		limit, at := 4.0, "100,000, no latency"
		if p == slow {
			limit, at = 8, "10,000 over 50 ms"
		}
		for _, c := range []string{caseFirst, caseUnchanged, caseChanged} {
			for _, pipe := range []string{namePlain, nameTuned} {
				ratio(fmt.Sprintf("%s, %s: faster than %s", at, c, pipe),
					of(p, c, nameCommand), []key{of(p, c, pipe)}, limit, true)
			}
		}
	}
	ratio("10,000 over 50 ms: faster than a page at a time",
		of(slow, caseUnchanged, nameMuster), []key{of(slow, caseUnchanged, nameOneByOne)}, 6, true)
	return all
}

// judgement says how the figures that were asked for came out.
func judgement(r results) string {
	all := verdicts(r)
	if len(all) == 0 {
		return "\nNothing to judge: the limits are about 10,000 runners over latency and 100,000 without.\n"
	}
	rows := make([][]string, len(all))
	for i, v := range all {
		rows[i] = v.cells()
	}
	return "\nLimits, on medians of wall time unless they say otherwise\n\n" + aligned(rows)
}
