package main

import "slices"

// key is a contender in a case of a plan.
type key struct {
	plan      plan
	name      string // of the case
	contender string
}

// results are all figures, in the order of their first coming.
type results struct {
	keys []key
	all  map[key][]figures
}

func (r *results) add(k key, f figures) {
	if _, known := r.all[k]; !known {
		r.keys = append(r.keys, k)
	}
	r.all[k] = append(r.all[k], f)
}

// values are what all repetitions gave, ascending; none where there was none.
func (r results) values(k key, of func(figures) int64) []int64 {
	var all []int64
	for _, f := range r.all[k] {
		all = append(all, of(f))
	}
	slices.Sort(all)
	return all
}

// median is the middle one of values, the lower one of two. There has to be
// one.
func (r results) median(k key, of func(figures) int64) int64 {
	all := r.values(k, of)
	return all[(len(all)-1)/2]
}

func wall(f figures) int64 { return int64(f.Wall) }
func cpu(f figures) int64  { return int64(f.CPU) }
func peak(f figures) int64 { return f.PeakBytes }
