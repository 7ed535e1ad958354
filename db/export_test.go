package db

import (
	"maps"
	"slices"
)

// HasClockRule reports whether a column of times, TABLE.COLUMN, has a rule.
func HasClockRule(name string) bool {
	_, has := clockColumns[name]
	return has
}

// ClockRules are the columns that have one.
func ClockRules() []string { return slices.Sorted(maps.Keys(clockColumns)) }
