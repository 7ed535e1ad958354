package policies

import (
	"cmp"
	"slices"
)

// market is runners in no pool by each label that they carry: jobs for GitHub's
// own machines, of which there may be thousands, need not look at any of them.
type market map[string][]Offer

func marketOf(runners []Offer) market {
	m := market{}
	for _, r := range runners {
		r.Labels = normal(r.Labels)
		for _, label := range r.Labels {
			m[label] = append(m[label], r)
		}
	}
	return m
}

// with are the runners with that one of the labels which the fewest carry.
func (m market) with(labels []string) []Offer {
	if len(labels) == 0 {
		return nil
	}
	return m[slices.MinFunc(labels, func(a, b string) int { return cmp.Compare(len(m[a]), len(m[b])) })]
}
